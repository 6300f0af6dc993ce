"""Whether a formula with comparisons in it jumps, by numbers.

The formula is evaluated along random lines, in double precision; wherever a comparison, a rounding or a cast changes on a
line, the place is found by section, and the values on either side are compared. For operations that are analytic between
their switches, two branches that agree at random points of the surface where they meet agree on all of it, except with
probability zero. A switch that no line has met leaves the question open.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

LINES, POINTS, CROSSINGS, PARTS, ROUNDS = 96, 33, 40, 16, 9
TOLERANCE = 1e-5
"""Difference of two sides, relative to their size, that counts as none: constants of a program have single precision."""
APPROXIMATE = 1e-3
"""The same for the pieces of a special function, of which the asymptotic ones have as many terms as single precision needs."""


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

    def state(self, values: Mapping[int, Any]) -> Any:
        """What changes where a switch turns."""
        if self.name == "rem":
            with np.errstate(all="ignore"):
                return np.trunc(values[self.operands[0]] / values[self.operands[1]])
        return values[self.place]


@dataclass(frozen=True)
class Formula:
    """A function of single numbers. Two sites of one distribution have the same."""

    leaves: tuple[Leaf, ...]
    operations: tuple[Operation, ...]
    out: int

    def evaluate(self, leaves: Mapping[int, Any]) -> dict[int, Any]:
        values = dict(leaves)
        with np.errstate(all="ignore"):
            for place, function, operands, *_ in self.operations:
                values[place] = function(*(values[operand] for operand in operands))
        return values

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
        single = (abs(leaf.values[0]) for leaf in self.leaves if len(leaf.values) == 1 and leaf.place in used)
        return max((x for x in single if 1.0 < x < 1e6), default=1.0)


@functools.lru_cache(maxsize=1024)
def jumps_in(formula: Formula) -> bool | None:
    """Whether it jumps in what moves; None where that stays open."""
    start, end = formula.lines()

    def along(rows: Any, t: Any) -> dict[int, Any]:
        moved = {p: x[rows] + t * (end[p] - x)[rows] if p in end else x[rows] for p, x in start.items()}
        return formula.evaluate(moved)

    grid = along(np.arange(LINES)[:, None], np.linspace(0.0, 1.0, POINTS)[None])
    crossings, unmet = [], False
    for switch in formula.operations:
        if switch.turns:
            state = np.broadcast_to(switch.state(grid), (LINES, POINTS))
            rows, columns = np.nonzero(state[:, 1:] != state[:, :-1])
            chosen = np.random.default_rng(0).permutation(len(rows))[:CROSSINGS]
            if len(rows):
                crossings.append((switch, rows[chosen], columns[chosen] / (POINTS - 1)))
            unmet = unmet or not (len(rows) or switch.decided)
    gaps = _gaps(along, crossings, formula.out)
    for (switch, _, _), gap in zip(crossings, gaps, strict=True):
        if (gap[np.isfinite(gap)] > (APPROXIMATE if switch.special else TOLERANCE)).any():
            return True
    return None if unmet or any(not np.isfinite(gap).any() for gap in gaps) else False


def _gaps(
    along: Callable[..., dict[int, Any]], crossings: Sequence[tuple[Operation, Any, Any]], out: int
) -> Sequence[Any]:
    """For each switch how much the value jumps where it turns, between these points and the next of the grid."""
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
    left, right = (np.broadcast_to(along(rows, t)[out], rows.shape) * 1.0 for t in (low, high))
    infinite = np.isneginf(left) ^ np.isneginf(right)
    with np.errstate(all="ignore"):  # a density that ends at zero is a log density that ends at -inf
        left, right = np.where(infinite, np.exp(left), left), np.where(infinite, np.exp(right), right)
        gap = abs(left - right) / (1 + np.maximum(abs(left), abs(right)))
    return np.split(gap, ends[:-1])
