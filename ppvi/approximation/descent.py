"""Minima of smooth functions by L-BFGS, from several starts side by side.

A descent is a generator: it yields the point whose loss it wants to know and is sent the value and the gradient there, so that
one evaluation, which is vectorised, serves all descents. Arrays stay small, and libraries of linear algebra that start threads
for them take longer than they do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

Losses = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Takes points, `(point, dimension)`, to the loss at each, infinite where it is lost, and its gradient."""

FALLS, FLATTER = 1e-4, 0.9
"""Of a step along a line: the part of the expected fall that is enough, and the slope in parts of that before (Wolfe)."""

TRIALS = 30
"""Points of one line."""


@dataclass(frozen=True)
class Bottom:
    """Where a descent ends.

    **Attributes**

    - `point`, `slope`: `(dimension,)`.
    - `losses`: at the start, and after each step.
    - `settled`: whether it is flat there, or the last step has changed nothing; else the steps were not enough.
    """

    point: np.ndarray
    slope: np.ndarray
    losses: np.ndarray
    settled: bool


Descent = Generator[np.ndarray, tuple[float, np.ndarray], Bottom]
Line = Generator[np.ndarray, tuple[float, np.ndarray], tuple[np.ndarray, float, np.ndarray] | None]


def together(descents: Sequence[Descent], losses: Losses) -> list[Bottom]:
    """Where descents end that go on side by side, one evaluation for a point of each."""
    wanted, ended = {i: next(descent) for i, descent in enumerate(descents)}, dict[int, Bottom]()
    while wanted:
        found = losses(np.stack(list(wanted.values())))
        for i, value, slope in zip(list(wanted), *found, strict=True):
            try:
                wanted[i] = descents[i].send((float(value), slope))
            except StopIteration as end:
                ended[i] = end.value
                del wanted[i]
    return [ended[i] for i in range(len(descents))]


def descending(
    start: np.ndarray,
    *,
    steps: int = 2000,
    memory: int = 20,
    flat: float = 1e-5,
    least: float = 1e-9,
    reach: np.ndarray | float = np.inf,
) -> Descent:
    """Down from a start by L-BFGS: Nocedal and Wright 2006, algorithms 7.4 and 7.5.

    **Arguments**

    - `memory`: pairs of steps and changes of the gradient that are kept.
    - `flat`: the greatest entry of a gradient that is taken for none.
    - `least`: the fall, in parts of the loss where that is above 1, that is taken for none.
    - `reach`: by how much an entry changes in one step, at most.
    """
    at = start
    value, slope = yield at
    losses, settled = [value], False
    pairs: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=memory)
    while len(losses) <= steps and math.isfinite(value):
        settled = bool(np.abs(slope).max() <= flat)
        if settled:
            break
        way = _way(slope, pairs)
        limit = float(np.min(reach / np.maximum(np.abs(way), np.finfo(float).tiny)))
        first = 1.0 if pairs else min(1.0, 1 / float(np.abs(slope).sum()))
        found = yield from _along(at, value, slope, way, first, limit)
        if found is None and not pairs:  # rounding: the steepest way down leads up
            break
        if found is None:
            pairs.clear()
            continue
        there, below, slope_there = found
        if float((there - at) @ (slope_there - slope)) > 0:  # which a step to the limit need not have
            pairs.append((there - at, slope_there - slope))
        settled = value - below <= least * max(abs(value), abs(below), 1.0)
        at, value, slope = there, below, slope_there
        losses.append(value)
        if settled:
            break
    return Bottom(at, slope, np.array(losses), settled)


def _way(slope: np.ndarray, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Minus the inverse curvature that the pairs (s, y) tell, times the slope: two loops over the pairs."""
    way, sizes = -slope, list[float]()
    for s, y in reversed(pairs):
        sizes.append(float(s @ way) / float(s @ y))
        way = way - sizes[-1] * y
    if pairs:
        s, y = pairs[-1]
        way = way * float(s @ y) / float(y @ y)
    for (s, y), size in zip(pairs, reversed(sizes), strict=True):
        way = way + (size - float(y @ way) / float(s @ y)) * s
    return way


def _along(at: np.ndarray, value: float, slope: np.ndarray, way: np.ndarray, first: float, limit: float) -> Line:
    """A point that is lower and flatter along a way, from which curvature is learned: between a step that is too short and one
    that is too long (Lewis and Overton 2013, algorithm 2.6), the parabola through both where there is one; None if there is
    none."""
    falls = float(slope @ way)
    if not falls < 0:  # rounding
        return None
    short, long, step = 0.0, math.inf, min(first, limit)
    for _ in range(TRIALS):
        there = at + step * way
        below, slope_there = yield there
        if not below <= value + FALLS * step * falls:
            long = step
            bent = below - value - step * falls  # of the parabola
            best = -falls * step**2 / (2 * bent) if short == 0 and math.isfinite(bent) and bent > 0 else math.nan
            step = min(max(best, 0.1 * long), 0.5 * long) if math.isfinite(best) else (short + long) / 2
        elif step < limit and float(slope_there @ way) < FLATTER * falls:
            short = step
            step = min(4 * step, limit) if math.isinf(long) else (short + long) / 2
        else:
            return None if np.array_equal(there, at) else (there, below, slope_there)
    return None
