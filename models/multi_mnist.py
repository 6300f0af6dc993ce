"""Images of several digits: each of 0, 1 or 2 MNIST digits, shrunk by about 1.3, at a random place of 50 x 50 pixels.

Made as in Eslami et al. 2016: digits do not overlap. They are MNIST's where it is at hand (`models.datasets`), and else
shapes that are drawn.
"""

import numpy as np
from PIL import Image

from models.datasets import held, mnist
from models.generated import shapes

SIZE, MOST = 50, 2


def multi_mnist(n, seed=0):
    """Images `(n, 50, 50)` between 0 and 1, and how many digits each shows."""
    rng = np.random.default_rng(seed)
    digits = mnist()[0] if held("mnist/train-images-idx3-ubyte.gz") else shapes(1000, rng)
    counts = rng.integers(0, MOST + 1, n)
    return np.stack([scene(rng, digits, count) for count in counts]), counts


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
