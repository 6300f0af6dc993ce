"""Data that entries of the gallery share: where they come from, under which licence, and that they are what they should be.

A file is looked for in the folder `PPVI_DATA`, else in `../shared/data` beside the checkout, else it is fetched from its
public source once and kept in `~/.cache/ppvi` (or `PPVI_CACHE`). Whatever way it came, its content has to have the checksum
that is stated here: of the decoded content, since copies differ in how they are packed. Quick runs need none of it: they take
what is made here.
"""

import gzip
import hashlib
import os
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Splits(NamedTuple):
    """Arrays for training, for choosing, and for the number that is reported."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def held(path: str) -> Path | None:
    """A file of the data at hand, by its path in that folder, or None."""
    root = Path(os.environ.get("PPVI_DATA", Path(__file__).parents[2] / "shared" / "data"))
    return root / path if (root / path).exists() else None


def fetched(url: str, path: str, convert: Callable[[bytes], bytes] = bytes) -> Path:
    """A public file, converted and kept in the cache; written whole or not at all."""
    kept = Path(os.environ.get("PPVI_CACHE", Path.home() / ".cache" / "ppvi")) / path
    if not kept.exists():
        with urllib.request.urlopen(url, timeout=60) as reply:
            content = convert(reply.read())
        kept.parent.mkdir(parents=True, exist_ok=True)
        half = kept.with_name(f"{kept.name}.{os.getpid()}")
        half.write_bytes(content)
        half.replace(kept)
    return kept


def verified(what: str, content: bytes | Iterable[bytes], sha256: str) -> None:
    """Refuse content that is not what is stated; of rows, in whatever order copies have them."""
    pieces = [content] if isinstance(content, bytes) else sorted(content)
    found = hashlib.sha256(b"".join(pieces)).hexdigest()
    if found != sha256:
        raise ValueError(f"{what}: the content has the checksum {found}, not {sha256}: it is other data, or damaged.")


MNIST = {
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Checksums of the files as they are unpacked."""


def mnist(part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits, `(n, 28, 28)` of 0 to 255, and which they are; `part` is "train" (60,000) or "t10k" (10,000).

    LeCun, Cortes and Burges, yann.lecun.com/exdb/mnist, CC BY-SA 3.0, from a mirror.
    """
    mirror = "https://storage.googleapis.com/cvdf-datasets/mnist/"

    def unpacked(name: str) -> bytes:
        path = held(f"mnist/{name}") or fetched(mirror + name, f"mnist/{name}")
        content = gzip.decompress(path.read_bytes())
        verified(name, content, MNIST[name])
        return content

    images = np.frombuffer(unpacked(f"{part}-images-idx3-ubyte.gz"), np.uint8, offset=16).reshape(-1, 28, 28)
    return images, np.frombuffer(unpacked(f"{part}-labels-idx1-ubyte.gz"), np.uint8, offset=8)


STATIC_MNIST = {
    "train": "aae6de292e6b68d898acf52062a1ac62907fc7ab417c59582d6523a1da0f9a61",
    "valid": "d10b4edf2e0765693846b51a5895f81f69fa37b6459b7f665bfa9c8cc9723622",
    "test": "87ff96664646cc41575aeb3ae4fbbabc1475ca3d42be4659d7a829d9f22c845a",
}
"""Checksums of the rows, 98 bytes each, in lexical order."""


def static_mnist() -> Splits:
    """MNIST made black and white once and for all: 50,000, 10,000 and 10,000 rows of 784 zeros and ones, `float32`.

    Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks", 2008, in Larochelle's copy,
    www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist; no licence is stated there, that of MNIST is CC BY-SA 3.0.
    """
    site = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
    packed = held("static_mnist/static_binarized_mnist_packed.npz")
    parts = []
    for part, sha256 in STATIC_MNIST.items():
        if packed:
            rows = np.load(packed)[part]
        else:
            kept = fetched(f"{site}/binarized_mnist_{part}.amat", f"static_mnist/{part}", _packed_rows)
            rows = np.frombuffer(kept.read_bytes(), np.uint8).reshape(-1, 98)
        verified(f"static MNIST, {part}", map(bytes, rows), sha256)
        parts.append(np.unpackbits(rows, axis=1).astype(np.float32))
    return Splits(*parts)


def _packed_rows(text: bytes) -> bytes:
    """Rows of 784 digits 0 and 1 between blanks, eight to a byte."""
    digits = np.frombuffer(text, np.uint8)
    return np.packbits(
        digits[(digits == ord("0")) | (digits == ord("1"))].reshape(-1, 784) - ord("0"), axis=1
    ).tobytes()


def shapes(n: int, seed: int | np.random.Generator = 0) -> np.ndarray:
    """Circles, squares, triangles and crosses, drawn like digits: `(n, 28, 28)` of 0 to 255."""
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(seed)
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


def binary_shapes(n: int, seed: int = 0) -> np.ndarray:
    """The same in black and white, `(n, 784)` of zeros and ones."""
    return (shapes(n, seed).reshape(n, 784) > 127).astype(np.float32)


def binary_images(full: bool, n: int = 300, test: int = 50) -> Splits:
    """Static MNIST for full runs, and so many shapes for quick ones."""
    return static_mnist() if full else Splits(binary_shapes(n), binary_shapes(test, 1), binary_shapes(test, 2))
