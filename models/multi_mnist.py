"""Images of several digits: each of 0, 1 or 2 MNIST digits, shrunk by about 1.3, at a random place of 50 x 50 pixels.

Made as in Eslami et al. 2016: digits do not overlap. MNIST (LeCun et al. 1998) is read from the folder `mnist` of the
directory that the environment variable PPVI_DATA names; without it the digits are shapes drawn here.
"""

import gzip
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE, MOST = 50, 2


def multi_mnist(n, seed=0):
    """Images `(n, 50, 50)` between 0 and 1, and how many digits each shows."""
    rng = np.random.default_rng(seed)
    digits = mnist()
    digits = shapes(rng, 1000) if digits is None else digits
    counts = rng.integers(0, MOST + 1, n)
    return np.stack([scene(rng, digits, count) for count in counts]), counts


def mnist():
    """The training images, `(60000, 28, 28)`, or None where there are none."""
    path = Path(os.environ.get("PPVI_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = path / "mnist" / "train-images-idx3-ubyte.gz"
    if not path.exists():
        return None
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)


def shapes(rng, n):
    """Circles, squares, triangles and crosses, drawn like digits."""
    drawn = np.zeros((n, 28, 28), np.uint8)
    for i, kind in enumerate(rng.integers(0, 4, n)):
        picture = Image.new("L", (28, 28))
        draw, (x, y), r = ImageDraw.Draw(picture), rng.uniform(13, 15, 2), rng.uniform(7, 10)
        box = (x - r, y - r, x + r, y + r)
        if kind == 0:
            draw.ellipse(box, outline=255, width=3)
        elif kind == 1:
            draw.rectangle(box, outline=255, width=3)
        elif kind == 2:
            draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], outline=255, width=3)
        else:
            draw.line((x - r, y, x + r, y), 255, 3)
            draw.line((x, y - r, x, y + r), 255, 3)
        drawn[i] = np.asarray(picture)
    return drawn


def scene(rng, digits, count):
    """One image; places are drawn anew until no two digits overlap."""
    while True:
        canvas, covered = np.zeros((SIZE, SIZE), np.float32), 0
        for digit in digits[rng.integers(0, len(digits), count)]:
            side = int(28 / max(1.0, 1.3 + 0.1 * rng.normal()))
            small = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BILINEAR)) / 255
            row, column = rng.integers(0, SIZE - side, 2)
            canvas[row : row + side, column : column + side] += small
            covered += np.count_nonzero(small)
        if np.count_nonzero(canvas) == covered:
            return canvas
