"""Where a function of one number jumps, by section search in a hundred digits.

A function is given with the states of its switches: the side of a pole, the outcome of a comparison, a number that was rounded.
Where a state changes between two points of a grid, the place is found by halving, to `FINE`, and so is the place of a peak
of the value, which a pole may be. A jump is a change of the value over ever smaller distances around it that does not shrink.
What is not a number on one side only is a jump too, and so is what has no limit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence

import mpmath
from mpmath import mp, mpf

WIDTHS = tuple(mpf(10) ** -n for n in (9, 16, 23, 30))
"""Distances from a switch, at which the value on either side of it is looked at."""
DIGITS = 100
MANY = 1000
"""Digits in which a hyperbolic tangent of hundreds is not 1."""
DOUBLE = 15
FINE = mpf(10) ** -60
"""Between ends that are no further apart a switch turns. It is so much less than the distances that a steep root, which is
looked at from ends that are not as far from its place, differs on its sides by less than `NONE`."""
SHRINKS = 0.95
"""A change that is more than so much of what it was over a ten millionth of the distance does not shrink."""
NONE = 1e-20
"""A relative change that counts as none."""

MOST = 3
"""Changes that are looked at between two points of a grid."""

PEAKS, WIDE, NEARLY = 4, 1e-4, 1e-3
"""Peaks that are looked at, unless two values so near to one are as nearly the same."""

Function = Callable[[mpf], tuple[mpf, Hashable]]
"""From a number to the value there and the states of all switches."""


class EndlessError(Exception):
    """There are more switches that turn than can be looked at."""


def places(function: Function, grid: Sequence[float]) -> Iterator[tuple[mpf, mpf]]:
    """Ends of the tiny intervals, between points of the grid, in which switches turn or the value has a peak."""
    points = [mpf(x) for x in grid]
    with mp.workdps(20):
        values, states = zip(*map(function, points), strict=True)
    turns = [i for i, (before, after) in enumerate(itertools.pairwise(states)) if before != after]
    with mp.workdps(DIGITS):
        for i in sorted(turns, key=lambda i: abs(points[i])):
            yield from _between(function, points[i], points[i + 1], *states[i : i + 2])
        for i in _sharpest(values):
            if i in turns or i - 1 in turns:
                continue
            yield from _peak(function, points[i - 1], points[i + 1], sign=1 if values[i] > values[i - 1] else -1)


def _sharpest(values: Sequence[mpf]) -> list[int]:
    """Of the points at which the value is greater or less than at both of its neighbours, those where it turns most."""
    triples = enumerate(zip(values, values[1:], values[2:], strict=False), 1)
    bends = {i: min(abs(y - x), abs(y - z)) for i, (x, y, z) in triples if (y - x) * (y - z) > 0}
    return sorted(bends, key=lambda i: -bends[i])[:PEAKS]


def _peak(function: Function, low: mpf, high: mpf, sign: int) -> Iterator[tuple[mpf, mpf]]:
    """Where the value is greatest, or least, unless it hardly changes any more as that is approached."""
    golden = (mpmath.sqrt(5) - 1) / 2
    ends = [sign * function(x)[0] for x in (low, high)]
    while high - low > FINE * (1 + abs(low)):
        first, second = high - golden * (high - low), low + golden * (high - low)
        one, other = (sign * function(x)[0] for x in (first, second))
        low, high, ends = (low, second, [ends[0], other]) if one > other else (first, high, [one, ends[1]])
        if high - low < WIDE and not max(one, other) - min(ends) > NEARLY * abs(one):
            return
    yield low, high


def _between(function: Function, low: mpf, high: mpf, before: Hashable, after: Hashable) -> Iterator[tuple[mpf, mpf]]:
    """The first changes between two points."""
    for _ in range(MOST):
        if before == after:
            return
        left, right, beyond = low, high, after
        while right - left > FINE * (1 + abs(left)):
            middle = (left + right) / 2
            state = function(middle)[1]
            left, right, beyond = (middle, right, beyond) if state == before else (left, middle, state)
        yield left, right
        low, before = right, beyond


def jumps_at(function: Function, left: mpf, right: mpf) -> bool:
    """Whether the value jumps between two points that are very near to each other, or has no limit there."""
    scale = 1 + abs(left)
    sides = [[function(end + sign * width * scale)[0] for width in WIDTHS] for end, sign in ((left, -1), (right, 1))]
    nearest = [side[-1] for side in sides]
    if any(map(mpmath.isnan, nearest)):
        return not all(map(mpmath.isnan, nearest))
    if not all(map(mpmath.isfinite, nearest)):
        return nearest[0] != nearest[1]
    changes = [[abs(y - x) for x, y in itertools.pairwise(side)] for side in sides]
    gaps = [abs(x - y) for x, y in zip(*sides, strict=True)]
    return any(_stays(each, 1 + abs(nearest[0])) for each in (*changes, gaps))


def _stays(changes: Sequence[mpf], scale: mpf) -> bool:
    """Whether changes do not shrink with the distance."""
    return changes[-1] > NONE * scale and changes[-1] > SHRINKS * changes[-2]


def jumps(function: Function, grid: Sequence[float], most: int = 60) -> Iterator[mpf]:
    """Where it jumps, nearest to zero first."""
    for count, (left, right) in enumerate(places(function, grid)):
        if count == most:
            raise EndlessError
        with mp.workdps(DIGITS):
            jump = jumps_at(function, left, right)
        if jump:
            yield left


def saturates(function: Function, grid: Sequence[float], digits: int = DIGITS) -> bool:
    """Whether double precision has other states of switches, as where it takes what is nearly 1 for 1."""

    def states(digits: int) -> list[Hashable]:
        with mp.workdps(digits):
            return [function(mpf(x))[1] for x in grid]

    return states(DOUBLE) != states(digits)


def shows(function: Function, place: mpf) -> bool:
    """Whether double precision has another number on the two sides of a place, and not the same of what has saturated."""
    with mp.workdps(DOUBLE):
        left, right = (function(place + sign * WIDTHS[0] * (1 + abs(place)))[0] for sign in (-1, 1))
    return left != right


def derivative(function: Function, x: float) -> mpf:
    """By a difference so small that its error is far below double precision."""
    with mp.workdps(DIGITS):
        step = mpf(10) ** -20
        return (function(mpf(x) + step)[0] - function(mpf(x) - step)[0]) / (2 * step)
