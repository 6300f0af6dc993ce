"""Whether a formula with comparisons in it jumps, by numbers.

The formula is evaluated along random lines, in double precision; wherever a comparison, a rounding, a cast or the side of a
pole changes on a line, the place is found by section, and the values on either side are compared. For operations that are
analytic between their switches, two branches that agree at random points of the surface where they meet agree on all of it,
except with probability zero. A switch that no line has met leaves the question open.

Two values agree as nearly as the formula is known, whatever its scale: up to what the last digits of its constants and of
every operation do to them, which is found by changing these at random (Vignes 1993), and to what they change by nearby.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

LINES, POINTS, CROSSINGS, PARTS, ROUNDS = 96, 33, 40, 16, 9
DIGITS = 1e-6
"""Relative change of every number in a formula that counts as none: constants of a program have single precision."""
APPROXIMATE = 1e-4
"""The same for the pieces of a special function, of which the asymptotic ones have as many terms as single precision needs."""
CHANGES, MARGIN = 3, 10
TINY = 1e-200
NEARBY = 16
"""So many widths of the last section are near to it, and each distance is so many times the one before."""
LEAST = 1e-9
"""A relative change that is more than the rounding of double precision."""
STEEPEST = 1e6
"""A slope that no more than a draw in so many meets is none that an estimate can have."""
SATURATING = frozenset("exp exp2 expm1 logistic tanh erf erfc atan sin cos erf_inv".split())
"""Operations whose whole change is within a few units of their operand."""


class Leaf(NamedTuple):
    """A number that a formula begins with."""

    place: int
    values: tuple[float, ...]
    """Of a constant: one, or one for each line."""
    kind: Literal["constant", "real", "integer", "truth"]
    low: float = -math.inf
    high: float = math.inf
    moves: bool = False
    """Whether it varies along a line."""


@dataclass(frozen=True)
class Table:
    """Numbers that are looked up by their places."""

    entries: tuple[float, ...]
    wraps: bool
    """Whether negative places count from the end."""

    def __call__(self, place: Any) -> Any:
        size, place = len(self.entries), np.nan_to_num(place)
        place = np.where(self.wraps & (place < 0), place + size, place)
        return np.asarray(self.entries)[np.clip(place, 0, size - 1).astype(int)]


@dataclass(frozen=True)
class Knots:
    """Numbers in order, of which it is counted how many are below."""

    entries: tuple[float, ...]

    def __call__(self, x: Any) -> Any:
        return np.searchsorted(np.asarray(self.entries), x) * 1.0


class Operation(NamedTuple):
    """A step of a formula: what it does to the numbers at its operands' places."""

    place: int
    function: Callable[..., Any]
    operands: tuple[int, ...]
    name: str
    turns: bool
    """Whether it is a switch: it jumps in something that moves."""
    special: bool
    """Whether it is part of a special function."""
    decided: bool
    """Whether it does not matter that no line meets it."""
    side: Callable[..., Any] | None = None
    """On which side of a pole its operands are, if it may meet one."""
    poles: tuple[int, ...] = ()
    """Places of the operands that meet it."""

    def state(self, values: Mapping[int, Any]) -> Any:
        """What changes where a switch turns."""
        operands = [values[operand] for operand in self.operands]
        with np.errstate(all="ignore"):
            if self.side is not None:
                return self.side(*operands)
            return np.trunc(operands[0] / operands[1]) if self.name == "rem" else values[self.place]

    @property
    def steps(self) -> bool:
        """Whether what it returns goes by steps."""
        return self.turns and self.side is None


@dataclass(frozen=True)
class Formula:
    """A function of single numbers. Two sites of one distribution have the same."""

    leaves: tuple[Leaf, ...]
    operations: tuple[Operation, ...]
    out: int
    large: bool = False
    """Whether it has large factors or small summands, which may make steps of finite slope."""

    def evaluate(self, leaves: Mapping[int, Any]) -> dict[int, Any]:
        values = dict(leaves)
        with np.errstate(all="ignore"):
            for place, function, operands, *_ in self.operations:
                values[place] = function(*(values[operand] for operand in operands))
        return values

    def changed(self, values: Mapping[int, Any], special: bool, seed: int) -> Any:
        """The value where the last digits of all numbers but those that move are others, and its switches stay as they are; or
        those of the pieces of special functions."""
        by = APPROXIMATE if special else DIGITS
        rng = np.random.default_rng(seed)
        new: dict[int, Any] = {}

        def other(x: Any) -> Any:
            x = np.asarray(x)
            if x.dtype.kind != "f":
                return x
            # A whole number is exact, and may be the index of a selection.
            return np.where(x == np.trunc(x), x, x * (1 + by * rng.choice([-1, 1], x.shape)))

        for leaf in self.leaves:
            x = values[leaf.place]
            new[leaf.place] = x if special or leaf.moves or leaf.kind in ("integer", "truth") else other(x)
        with np.errstate(all="ignore"):
            for operation in self.operations:
                before = values[operation.place]
                if operation.steps or np.asarray(before).dtype.kind != "f":
                    new[operation.place] = before
                else:
                    operands = (new[operand] for operand in operation.operands)
                    after = before if operation.turns else operation.function(*operands)
                    new[operation.place] = other(after) if operation.special or not special else after
        return new[self.out]

    def lines(self) -> tuple[dict[int, Any], dict[int, Any]]:
        """Random values of all leaves, and for those that move the other end of the line."""
        rng = np.random.default_rng(0)
        scale = np.resize([1.0, 3.0, 3.0 * self._largest()], LINES)

        def anywhere(leaf: Leaf) -> Any:
            if leaf.kind == "constant":
                return np.resize(leaf.values, LINES)
            if leaf.kind == "truth":
                return rng.random(LINES) < 0.5
            if leaf.kind == "integer":
                return rng.integers(0, 4, LINES)
            low, high = leaf.low, leaf.high
            if math.isfinite(low) and math.isfinite(high):
                return low + (high - low) * rng.random(LINES)
            draws = rng.normal(size=LINES) * scale
            return low + abs(draws) if math.isfinite(low) else high - abs(draws) if math.isfinite(high) else draws

        start = {leaf.place: anywhere(leaf) for leaf in self.leaves}
        return start, {leaf.place: anywhere(leaf) for leaf in self.leaves if leaf.moves}

    def _largest(self) -> float:
        """The largest constant, but for the coefficients of special functions, and for what stands for infinity; at least 1."""
        used = {place for operation in self.operations if not operation.special for place in operation.operands}
        single = [abs(leaf.values[0]) for leaf in self.leaves if len(leaf.values) == 1 and leaf.place in used]
        for operation in self.operations:
            if isinstance(operation.function, Table):
                single.append(len(operation.function.entries))
            elif isinstance(operation.function, Knots):
                single += [abs(operation.function.entries[end]) for end in (0, -1)]
        return max((x for x in single if 1.0 < x < 1e6), default=1.0)

    def reaches_ends(self, values: Mapping[int, Any]) -> bool:
        """Whether the first and the last entry of every table are among what is looked up in it."""
        least: dict[Table, float] = {}
        most: dict[Table, float] = {}
        for operation in self.operations:
            table = operation.function
            if isinstance(table, Table):
                places = values[operation.operands[0]]
                least[table] = min(least.get(table, math.inf), np.nanmin(places))
                most[table] = max(most.get(table, -math.inf), np.nanmax(places))
        return all(least[table] <= 0 and most[table] >= len(table.entries) - 1 for table in least)


@functools.lru_cache(maxsize=1024)
def jumps_in(formula: Formula) -> tuple[int, ...] | None:
    """The places of the switches at which it jumps in what moves; None where that stays open."""
    start, end = formula.lines()

    def along(rows: Any, t: Any) -> dict[int, Any]:
        with np.errstate(all="ignore"):
            moved = {p: x[rows] + t * (end[p] - x)[rows] if p in end else x[rows] for p, x in start.items()}
        return formula.evaluate(moved)

    grid = along(np.arange(LINES)[:, None], np.linspace(0.0, 1.0, POINTS)[None])
    crossings, unmet = [], False
    flowing = {leaf.place for leaf in formula.leaves if leaf.moves}
    for switch in formula.operations:
        if not flowing.isdisjoint(switch.operands) and (not switch.steps or switch.name == "rem"):
            flowing.add(switch.place)
        if switch.turns:
            state = np.broadcast_to(switch.state(grid), (LINES, POINTS))
            rows, columns = np.nonzero(state[:, 1:] != state[:, :-1])
            chosen = np.random.default_rng(0).permutation(len(rows))[:CROSSINGS]
            if len(rows):
                crossings.append((switch, rows[chosen], columns[chosen] / (POINTS - 1)))
            # What goes by steps has been at its values, and keeps clear of a pole as it goes over to the next.
            unmet = unmet or not (len(rows) or switch.decided or (switch.poles and flowing.isdisjoint(switch.poles)))
    gaps = _gaps(along, crossings, formula)
    found = [
        switch.place for (switch, _, _), gap in zip(crossings, gaps, strict=True) if (gap[np.isfinite(gap)] > 1).any()
    ]
    endless = any(not np.isfinite(gap).any() or np.isposinf(gap).any() for gap in gaps)
    unmet = unmet or not formula.reaches_ends(grid)
    if not found and (unmet or endless or (formula.large and _is_steep(formula, start, end, along, grid))):
        return None
    return tuple(found)


def _gaps(
    along: Callable[..., dict[int, Any]], crossings: Sequence[tuple[Operation, Any, Any]], formula: Formula
) -> Sequence[Any]:
    """For each switch how much the value jumps where it turns, between these points and the next of the grid, as a multiple of
    what counts as none; infinite where the value has no limit, or is a number on one side alone."""
    if not crossings:
        return []
    _, lines, places = zip(*crossings, strict=True)
    rows, low = np.concatenate(lines), np.concatenate(places)
    ends = np.cumsum([len(mine) for mine in lines])
    high = low + 1 / (POINTS - 1)

    def states(t: Any) -> Any:
        values = along(rows[:, None], t)
        out = np.empty(t.shape)
        for (switch, mine, _), stop in zip(crossings, ends, strict=True):
            here = slice(stop - len(mine), stop)
            out[here] = np.broadcast_to(switch.state(values), t.shape)[here]
        return out

    for _ in range(ROUNDS):
        t = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, PARTS + 1)
        state = states(t)
        turn = np.argmax(state != state[:, :1], axis=1)
        low, high = (np.take_along_axis(t, i[:, None], 1)[:, 0] for i in (turn - 1, turn))
    width = high - low
    special = np.repeat([switch.special for switch, _, _ in crossings], [len(mine) for _, mine, _ in crossings])

    def side(t: Any, outward: int) -> list[Any]:
        """The value, what it is at three distances nearby, and what it is with other last digits."""
        values = along(rows, t)
        others = [
            np.where(special, *(_laid(formula.changed(values, by, seed), rows) for by in (True, False)))
            for seed in range(CHANGES)
        ]
        nearby = (along(rows, t + outward * NEARBY**i * width)[formula.out] for i in (1, 2, 3))
        return [*(_laid(x, rows) for x in (values[formula.out], *nearby)), *others]

    sides = side(low, -1), side(high, 1)
    with np.errstate(all="ignore"):
        # A density that ends at zero is a log density that ends at -inf.
        infinite = np.isneginf(sides[0][0]) ^ np.isneginf(sides[1][0])
        left, right = ([np.where(infinite, np.exp(x), x) for x in side] for side in sides)
        none = sum(abs(x - side[0]) for side in (left, right) for x in (side[1], *side[4:]))
        unlimited = np.logical_or(*(_has_no_limit(*side[:4]) for side in (left, right)))
        gap = abs(left[0] - right[0]) / (MARGIN * none + TINY)
        one_sided = np.isfinite(left[0]) != np.isfinite(right[0])
        gap = np.where(one_sided | (unlimited & (left[0] != right[0]) & ~(gap > 1)), np.inf, gap)
    return np.split(gap, ends[:-1])


def _has_no_limit(at: Any, *nearby: Any) -> Any:
    """Whether a value is infinite at a place, or changes no less as the distance from it shrinks, as a logarithm does."""
    near, far, further = nearby
    change = abs(near - far)
    return (abs(at) > 1.5 * abs(near)) | ((change > 0.9 * abs(far - further)) & (change > LEAST * abs(near)))


def _laid(x: Any, rows: Any) -> Any:
    return np.broadcast_to(x, rows.shape) * 1.0


def _is_steep(
    formula: Formula, start: Mapping[int, Any], end: Mapping[int, Any], along: Callable[..., dict[int, Any]], grid: Any
) -> bool:
    """Whether the value changes so fast that hardly a draw meets the change: by a step of finite slope, or by a bump."""
    with np.errstate(all="ignore"):
        length = np.max([abs(end[place] - start[place]) for place in end], 0)
        for operation in formula.operations:
            if operation.name in SATURATING and not operation.special:
                argument = np.broadcast_to(grid[operation.operands[0]], (LINES, POINTS))
                if np.nanmedian(abs(np.diff(argument, axis=1)) * (POINTS - 1) / length[:, None]) > STEEPEST:
                    return True
        values = np.broadcast_to(grid[formula.out], (LINES, POINTS)) * 1.0
        whole = values.max(1) - values.min(1)
        rows = np.nonzero(np.isfinite(whole) & (whole > 0))[0]
        low = np.nanargmax(abs(np.diff(values[rows], axis=1)), 1) / (POINTS - 1)
        high, change = low + 1 / (POINTS - 1), np.full(rows.shape, np.inf)
        for _ in range(ROUNDS):
            coarse = (high - low) * length[rows] > 1 / STEEPEST
            t = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, PARTS + 1)
            found = abs(np.diff(np.broadcast_to(along(rows[:, None], t)[formula.out], t.shape) * 1.0, axis=1))
            place = np.argmax(np.nan_to_num(found), 1)[:, None]
            change = np.where(coarse, np.take_along_axis(found, place, 1)[:, 0], change)
            low, high = (
                np.where(coarse, np.take_along_axis(t, place + i, 1)[:, 0], x) for i, x in ((0, low), (1, high))
            )
        return bool((change > whole[rows] / 3).any())
