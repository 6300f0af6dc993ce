"""Tables at the joint assignments of many runs, by moves of axes where that will do.

    out[c, i, ...] = table[d_1[c, i], ..., d_n[c, i], i, ...]

Where C = K^w runs go through all assignments of w lanes, the value of each lane is a digit of the run's number, to the base
K: the table's axes are laid along those of the digits. A lookup is slower, and its derivative a scatter, one addition after
the other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from ppvi._ops import Array, Ops

FEW = 8
"""The most kinds of entries, by which digits they have, that are laid apart."""


def at(ops: Ops, table: Array, digits: Sequence[np.ndarray]) -> Array:
    """A table `(K, ..., K, *shape)` in C runs, `(C, *shape)`.

    **Arguments**

    - `digits`: for each axis of K which of its entries a run has, `(C, *shape)` or shorter, with size 1 along axes for which
      it is the same.
    """
    found = np.stack(np.broadcast_arrays(*digits))
    count, runs, *lanes = found.shape
    base, shape = table.shape[0], table.shape[count:]
    width = round(math.log(runs, base)) if base > 1 else 0
    places = _places(found, base, width)
    if places is not None:
        kinds, which = np.unique(places.reshape(count, -1), axis=1, return_inverse=True)
        if 0 < kinds.shape[1] <= FEW:
            which = which.reshape(1, *lanes, *[1] * (len(shape) - len(lanes)))
            first, *others = (_along(ops, table, tuple(kind), width) for kind in kinds.T)
            for kind, laid in enumerate(others, 1):
                first = ops.where(ops.constant(which == kind, "bool"), laid, first)
            return first
    return ops.choose(ops.reshape(table, (base**count, *shape)), _number(found, base))


def _number(digits: Sequence[np.ndarray] | np.ndarray, base: int) -> np.ndarray:
    return functools.reduce(lambda number, digit: number * base + digit, digits)


def _places(found: np.ndarray, base: int, width: int) -> np.ndarray | None:
    """Which digit of the run's number each is, from the left, `(n, *lanes)`; None where they are others."""
    runs, powers = np.arange(found.shape[1]), [base**place for place in reversed(range(width))]
    if not powers or powers[0] * base != len(runs):
        return None
    places = found[:, powers].argmax(1)  # that one is 1, and the others are 0, where the number is a power
    numbers = runs[:, None] // powers % base
    alike = (np.array_equal(numbers[:, place], digit) for place, digit in zip(places, found, strict=True))
    return places if all(alike) else None


def _along(ops: Ops, table: Array, places: Sequence[int], width: int) -> Array:
    """The table in all runs, where its axes are these digits of their numbers."""
    base, count, shape = table.shape[0], len(places), table.shape[len(places) :]
    used = sorted(set(places))
    if len(used) < count:
        each = np.indices((base,) * len(used)).reshape(len(used), -1)
        numbers = _number([each[used.index(place)] for place in places], base)
        table = ops.choose(ops.reshape(table, (base**count, *shape)), numbers)
    elif list(places) != used:
        order = sorted(range(count), key=places.__getitem__)
        table = ops.transpose(table, (*order, *range(count, len(table.shape))))
    if len(used) < width:
        table = ops.reshape(table, (*(base if place in used else 1 for place in range(width)), *shape))
        table = ops.broadcast(table, (*[base] * width, *shape))
    return ops.reshape(table, (base**width, *shape))
