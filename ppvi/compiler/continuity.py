"""Whether entrywise code with comparisons in it is continuous after all: `where(x > 0, x, expm1(x))` is.

A value that looks as if it jumped is followed back through entrywise operations to the variables where those begin. As a
function of single numbers it is then evaluated along random lines, in double precision; wherever a comparison, a
rounding or a cast changes on a line, the place is found by section, and the values on either side are compared. For
operations that are analytic between their switches, two branches that agree at random points of the surface where they
meet agree on all of it, except with probability zero. A switch that no line has met leaves the question open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppvi.compiler.flat import Flat, Step
from ppvi.compiler.ir import Atom, Literal, Smoothness, Var, is_float, is_real
from ppvi.compiler.ranges import Range, decided, range_of

LINES, POINTS, CROSSINGS, PARTS, ROUNDS = 96, 33, 40, 16, 9
TOLERANCE = 1e-5
"""Difference of two sides, relative to their size, that counts as none: constants of a program have single precision."""
APPROXIMATE = 1e-3
"""The same for the pieces of a special function, of which the asymptotic ones have as many terms as single precision needs."""
MOST = 300
"""Operations that are followed back at most."""

Axes = tuple[int | None, ...]


class OpenError(Exception):
    """The question cannot be settled."""


@dataclass
class Region:
    """Entrywise operations behind one value: leaves, and operations in order with the places of their operands."""

    flat: Flat
    varies: Callable[[Var], bool]
    ignored: Callable[[Step], set[int]]
    """Operands of a selection that play no part."""
    places: dict[tuple[Any, Axes], int] = field(default_factory=dict)
    leaves: list[tuple[int, Atom]] = field(default_factory=list)
    operations: list[tuple[int, Step, list[int]]] = field(default_factory=list)
    moving: set[int] = field(default_factory=set)
    """Places that vary along a line."""

    def add(self, atom: Atom, axes: Axes) -> int:
        """The place of an atom whose axes lie along these axes of the value in question.

        The same variable along other axes is another number.
        """
        key = (atom, tuple(a if size > 1 else None for a, size in zip(axes, atom.shape, strict=True)))
        if key in self.places:
            return self.places[key]
        step = self.flat.makers.get(atom) if isinstance(atom, Var) else None
        if step is not None and (left := self._only_case(step)) is not None:
            place = self.places[key] = self.add(left, axes if left.shape else ())
            return place
        operands = None if step is None or step.meaning.entrywise is None else self._operands(step, axes)
        children = [] if operands is None else [self.add(*operand) for operand in operands]
        place = self.places[key] = len(self.places)
        if operands is None or step is None:
            self.leaves.append((place, atom))
            if isinstance(atom, Var) and self.varies(atom):
                self.moving.add(place)
        else:
            self.operations.append((place, step, children))
            if self.moving.intersection(children):
                self.moving.add(place)
        if len(self.operations) > MOST:
            raise OpenError
        return place

    def _only_case(self, step: Step) -> Atom | None:
        """The case of a selection that counts, where one alone does: elsewhere it is -inf outside a support, or NaN."""
        skipped = self.ignored(step)
        if not skipped:
            return None
        known = {i: self.flat.constant(atom) for i, atom in enumerate(step.inputs) if i and i not in skipped}
        cases = [i for i, value in known.items() if value is None or math.isfinite(value)]
        return step.inputs[cases[0]] if len(cases) == 1 else None

    def _operands(self, step: Step, axes: Axes) -> list[tuple[Atom, Axes]] | None:
        """The operands and where their axes lie, or None where entries are mixed."""
        if not step.meaning.moves:
            return [(atom, axes if atom.shape else ()) for atom in step.inputs[: _arity(step)]]
        operand, flow = step.inputs[0], step.equation.flow()[0][0]
        if flow is None or any(a is None and size > 1 for a, size in zip(flow, operand.shape, strict=True)):
            return None
        return [(operand, tuple(None if a is None else axes[a] for a in flow))]

    def evaluate(self, leaves: Mapping[int, Any]) -> dict[int, Any]:
        values = dict(leaves)
        with np.errstate(all="ignore"):
            for place, step, children in self.operations:
                assert step.meaning.entrywise is not None
                values[place] = step.meaning.entrywise(*(values[child] for child in children))
        return values

    def numbers(self) -> list[float]:
        """Sizes of the constants in it, but for the coefficients of special functions."""
        places = {c for _, step, children in self.operations if not step.meaning.approximates() for c in children}
        atoms = [atom for place, atom in self.leaves if place in places and isinstance(atom, Literal)]
        return [abs(float(atom.value)) for atom in atoms if atom.shape == () and is_real(atom)]

    def switches(self) -> list[tuple[int, Step, list[int]]]:
        """Operations that jump in something that moves."""
        return [
            (place, step, children)
            for place, step, children in self.operations
            if step.meaning.name != "select_n"
            and not step.meaning.trusted()
            and any(c in self.moving and _jumps(step, i) for i, c in enumerate(children))
        ]


def _arity(step: Step) -> int:
    return 1 if step.equation.density is not None else len(step.inputs)


def _jumps(step: Step, operand: int) -> bool:
    return step.meaning.smoothness is not None and step.meaning.smoothness(0, operand) is Smoothness.JUMP


def jumps(
    atom: Var,
    flat: Flat,
    varies: Callable[[Var], bool],
    ignored: Callable[[Step], set[int]],
    ranges: dict[Atom, Range],
) -> bool | None:
    """Whether a value jumps as a function of what varies behind it; None where that stays open."""
    region = Region(flat, varies, ignored)
    try:
        out = region.add(atom, tuple(range(len(atom.shape))))
    except (OpenError, RecursionError):
        return None
    if any(isinstance(leaf, Var) and varies(leaf) and not is_float(leaf) for _, leaf in region.leaves):
        return None
    start, end = _lines(region, ranges)

    def along(rows: Any, t: Any) -> dict[int, Any]:
        return region.evaluate({p: x[rows] + t * (end[p] - x)[rows] if p in end else x[rows] for p, x in start.items()})

    grid = along(np.arange(LINES)[:, None], np.linspace(0.0, 1.0, POINTS)[None])
    crossings, unmet = [], False
    for switch in region.switches():
        state = np.broadcast_to(_state(switch, grid), (LINES, POINTS))
        rows, columns = np.nonzero(state[:, 1:] != state[:, :-1])
        chosen = np.random.default_rng(0).permutation(len(rows))[:CROSSINGS]
        crossings.append((switch, rows[chosen], columns[chosen] / (POINTS - 1)))
        known = switch[1].meaning.name in ("eq", "ne") or switch[1].meaning.approximates()
        unmet = unmet or not (len(rows) or known or decided(switch[1], flat.makers, ranges))
    met = [crossing for crossing in crossings if len(crossing[1])]
    gaps = _gaps(along, met, out)
    for (switch, _, _), gap in zip(met, gaps, strict=True):
        if (gap[np.isfinite(gap)] > (APPROXIMATE if switch[1].meaning.approximates() else TOLERANCE)).any():
            return True
    return None if unmet or any(not np.isfinite(gap).any() for gap in gaps) else False


def _gaps(along: Callable[..., dict[int, Any]], crossings: list[tuple[Any, Any, Any]], out: int) -> list[Any]:
    """For each switch how much the value jumps where it turns, between these points and the next of the grid."""
    if not crossings:
        return []
    rows, low = (np.concatenate([crossing[i] for crossing in crossings]) for i in (1, 2))
    ends = np.cumsum([len(crossing[1]) for crossing in crossings])
    high = low + 1 / (POINTS - 1)

    def states(t: Any) -> Any:
        values = along(rows[:, None], t)
        out = np.empty(t.shape)
        for (switch, _, _), stop, number in zip(crossings, ends, map(len, (c[1] for c in crossings)), strict=True):
            out[stop - number : stop] = np.broadcast_to(_state(switch, values), t.shape)[stop - number : stop]
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


def _state(switch: Any, values: Mapping[int, Any]) -> Any:
    place, step, children = switch
    if step.meaning.name == "rem":
        with np.errstate(all="ignore"):
            return np.trunc(values[children[0]] / values[children[1]])
    return values[place]


def _lines(region: Region, ranges: dict[Atom, Range]) -> tuple[dict[int, Any], dict[int, Any]]:
    """Random values of all leaves, and for those that move the other end of the line."""
    rng = np.random.default_rng(0)
    largest = max((x for x in region.numbers() if x < 1e6), default=1.0)
    scale = np.resize([1.0, 3.0, 3.0 * max(largest, 1.0)], LINES)

    def anywhere(atom: Var) -> Any:
        low, high = range_of(atom, region.flat.makers, ranges)
        if math.isfinite(low) and math.isfinite(high):
            return low + (high - low) * rng.random(LINES)
        draws = rng.normal(size=LINES) * scale
        return low + abs(draws) if math.isfinite(low) else high - abs(draws) if math.isfinite(high) else draws

    start: dict[int, Any] = {}
    end: dict[int, Any] = {}
    for place, atom in region.leaves:
        if isinstance(atom, Literal):
            start[place] = rng.choice(np.ravel(np.asarray(atom.value)), LINES) if is_real(atom) else np.ones(LINES)
        elif atom.dtype == "bool":
            start[place] = rng.random(LINES) < 0.5
        elif not is_float(atom):
            start[place] = rng.integers(0, 4, LINES)
        else:
            start[place] = anywhere(atom)
            if place in region.moving:
                end[place] = anywhere(atom)
    return start, end
