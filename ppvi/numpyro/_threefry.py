"""The random bits of JAX's default keys, by NumPy: Threefry-2x32 of 20 rounds.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A key is the 64 bits of its two words,
and what is drawn at the i-th of many places is the cipher of i, as JAX has it with `jax_threefry_partitionable`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_PARITY = np.uint32(0x1BD11BDA)
_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def cipher(key: Any, counts: Any) -> np.ndarray:
    """Of 64 bits, by a key; each broadcast to the other."""
    (first, second), (x, y) = _words(key), _words(counts)
    schedule = first, second, first ^ second ^ _PARITY
    x, y = x + schedule[0], y + schedule[1]
    for i in range(5):
        for by in _ROTATIONS[i % 2]:
            x = x + y
            y = (y << np.uint32(by)) | (y >> np.uint32(32 - by))
            y = y ^ x
        x, y = x + schedule[(i + 1) % 3], y + schedule[(i + 2) % 3] + np.uint32(i + 1)
    return (x.astype(np.uint64) << _HALF) | y


def _words(x: Any) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(x, np.uint64)
    return (x >> _HALF).astype(np.uint32), (x & _LOW).astype(np.uint32)


def _places(params: Mapping[str, Any], key: np.ndarray) -> np.ndarray:
    """The cipher of each place of a shape, for each of the keys."""
    shape = params["shape"]
    counts = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
    return cipher(np.asarray(key).reshape((*np.shape(key), *(1 for _ in shape))), counts)


def _bits(params: Mapping[str, Any], key: np.ndarray) -> np.ndarray:
    drawn, width = _places(params, key), params["bit_width"]
    if width == 64:
        return drawn
    high, low = _words(drawn)
    return (high ^ low).astype(f"uint{width}")


def _seeded(params: Mapping[str, Any], seed: np.ndarray) -> np.ndarray:
    """A number of 32 bits is the low word, whatever its sign."""
    return seed.astype(np.uint64) & (_LOW if seed.dtype.itemsize <= 4 else ~np.uint64(0))


RULES: dict[str, Callable[..., np.ndarray]] = {
    "random_bits": _bits,
    "random_fold_in": lambda params, key, data: cipher(key, np.asarray(data, np.uint32)),
    "random_seed": _seeded,
    "random_split": _places,
}
