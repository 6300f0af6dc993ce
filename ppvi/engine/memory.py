"""How many runs of a program go side by side: as many as there is memory for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

LARGE = 10**8
"""Numbers that are held at a time, about."""


def numbers_in(tree: Any) -> int:
    """Numbers among arguments."""
    if isinstance(tree, Mapping):
        return numbers_in(tuple(tree.values()))
    return sum(map(numbers_in, tree)) if isinstance(tree, tuple | list) else int(np.prod(np.shape(tree)))


def abreast(n: int, particles: int, *trees: Any) -> int:
    """Of `n` runs, each with so many particles that go through all of these arguments, how many side by side."""
    return int(np.clip(LARGE // max(particles * numbers_in(trees), 1), 1, n))
