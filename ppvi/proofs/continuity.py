"""Whether entrywise code with comparisons in it is continuous after all: `where(x > 0, x, expm1(x))` is.

A value that looks as if it jumped is followed back through entrywise operations to the variables where those begin: it is
a formula in single numbers, and `formula` looks for jumps in it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ppvi._ops import as_numpy
from ppvi.analysis.inlined import Flat, Step
from ppvi.analysis.ranges import Ranges, pole_of
from ppvi.ir import Atom, AxisMap, Literal, Origin, Smoothness, Var, is_float, straight
from ppvi.proofs.formula import LINES, Formula, Knots, Leaf, Operation, Table, jumps_in

MOST = 300
"""Operations that are followed back at most."""

Axes = tuple[int | None, ...]

Answers = frozenset[tuple[Hashable, int]]
"""Tests whose answer is known, and the number of the case that they choose."""


class OpenError(Exception):
    """The question cannot be settled."""


class Known(Protocol):
    """What is known of a program's values: on which of them it depends how, and their bounds."""

    flat: Flat
    ranges: Ranges
    large: dict[Atom, float]

    def of(self, atom: Atom) -> Any:
        """How a value varies; nothing where it does not."""

    def fixed(self, atom: Atom) -> np.ndarray | None:
        """The numbers of what depends on nothing."""

    def ignored(self, step: Step) -> set[int]:
        """Operands of a selection that play no part."""
        ...

    def switches(self, step: Step, operand: int) -> bool:
        """Whether an operation on single numbers jumps in an operand, or has a pole there."""
        ...


@dataclass
class Region:
    """Entrywise operations behind one value: leaves, and operations in order with the places of their operands."""

    known: Known
    places: dict[tuple[Any, Axes, Answers], int] = field(default_factory=dict)
    leaves: list[tuple[int, Atom, Axes]] = field(default_factory=list)
    operations: list[tuple[int, Step, list[int]]] = field(default_factory=list)
    tables: dict[Hashable, tuple[float, ...]] = field(default_factory=dict)
    moving: set[int] = field(default_factory=set)
    """Places that vary along a line."""

    def add(self, atom: Atom, axes: Axes, known: Answers = frozenset()) -> int:
        """The place of an atom whose axes lie along these axes of the value in question.

        The same variable along other axes is another number, and so it is where other tests are known to hold.
        """
        step = self.known.flat.makers.get(atom) if isinstance(atom, Var) else None
        known = known if step is not None and step.meaning.entrywise is not None else frozenset()
        key = (atom, tuple(a if size > 1 else None for a, size in zip(axes, atom.shape, strict=True)), known)
        if key in self.places:
            return self.places[key]
        if step is not None and (only := self._only_case(step, axes, known)) is not None:
            left, known = only
            place = self.places[key] = self.add(left, axes if left.shape else (), known)
            return place
        operands = None if step is None or not is_entrywise(step, self.known) else self._operands(step, axes)
        children = [] if operands is None else [self.add(*operand, known) for operand in operands]
        place = self.places[key] = len(self.places)
        if operands is None or step is None:
            self.leaves.append((place, atom, axes))
            if self.known.of(atom):
                self.moving.add(place)
        else:
            self.operations.append((place, step, children))
            if self.moving.intersection(children):
                self.moving.add(place)
        if len(self.operations) > MOST:
            raise OpenError
        return place

    def _only_case(self, step: Step, axes: Axes, known: Answers) -> tuple[Atom, Answers] | None:
        """The case of a selection that counts, where one alone does, and the tests that hold there.

        Elsewhere it is -inf outside of a support, or NaN. What asks the same test behind that case gets the same answer, as in
        where(p > 0, log(where(p > 0, p, 1)), -inf).
        """
        if step.meaning.name != "select_n":
            return None
        asked, answers = self._test(step.inputs[0], axes if step.inputs[0].shape else ()), dict(known)
        if asked in answers:
            return step.inputs[1 + answers[asked]], known
        skipped = self.known.ignored(step)
        if not skipped:
            return None
        left = {i: self.known.flat.constant(atom) for i, atom in enumerate(step.inputs) if i and i not in skipped}
        cases = [i for i, value in left.items() if value is None or math.isfinite(value)]
        return (step.inputs[cases[0]], known | {(asked, cases[0] - 1)}) if len(cases) == 1 else None

    def _test(self, atom: Atom, axes: Axes) -> Hashable:
        """What chooses, as the comparison that it is, so that the same one is known again."""
        step = self.known.flat.makers.get(atom) if isinstance(atom, Var) else None
        operands = None if step is None or step.meaning.entrywise is None else self._operands(step, axes)
        if step is None or operands is None:
            return atom, axes
        if step.meaning.moves:
            return self._test(*operands[0])
        numbers = [self.known.flat.constant(operand) for operand, _ in operands]
        return step.meaning.name, *(
            operand if number is None else number for number, operand in zip(numbers, operands, strict=True)
        )

    def _operands(self, step: Step, axes: Axes) -> list[tuple[Atom, Axes]] | None:
        """The operands and where their axes lie, or None where entries are mixed."""
        if step.meaning.entrywise is None:
            return [(step.inputs[1], _through(step.equation.flow()[0][1], axes))]
        if not step.meaning.moves:
            return [(atom, _along(step, i, axes)) for i, atom in enumerate(step.inputs[: step.equation.arity])]
        operand, flow = step.inputs[0], step.equation.flow()[0][0]
        places = () if flow is None else straight(flow)
        if flow is None or any(a is None and size > 1 for a, size in zip(places, operand.shape, strict=True)):
            return None
        return [(operand, _through(flow, axes))]

    def formula(self, out: int) -> Formula:
        """Everything about it that its jumps depend on."""
        leaves = tuple(self._leaf(*leaf) for leaf in self.leaves)
        large = any(
            atom in self.known.large for _, step, _ in self.operations for atom in (*step.inputs, *step.outputs)
        )
        return Formula(leaves, tuple(self._operation(*operation) for operation in self.operations), out, large)

    def _leaf(self, place: int, atom: Atom, axes: Axes) -> Leaf:
        value = None if self.known.of(atom) else self.known.fixed(atom)
        if isinstance(atom, Literal) or value is not None:
            values = np.ones(()) if value is None else as_numpy(value) * 1.0
            if values.size > 1:  # of one entry of the value in question on each line, in all constants
                values = values[tuple(_entries(axis) % size for axis, size in zip(axes, values.shape, strict=True))]
            return Leaf(place, tuple(np.ravel(values).tolist()), "constant")
        if not is_float(atom):
            return Leaf(place, (), "truth" if atom.dtype == "bool" else "integer")
        low, high = self.known.ranges.of(atom)
        return Leaf(place, (), "real", low, high, place in self.moving)

    def _operation(self, place: int, step: Step, operands: list[int]) -> Operation:
        name, origin, pole = step.meaning.name, step.meaning.origin(), pole_of(step)
        function = step.meaning.entrywise or self._table(step)
        turns = name != "select_n" and Origin.SAMPLER not in origin
        turns = turns and any(p in self.moving and self.known.switches(step, i) for i, p in enumerate(operands))
        special = Origin.SPECIAL in origin
        ranges = self.known.ranges
        never = (
            name in ("eq", "ne") and not ranges.asks_for_nan(step) and (self.is_free(place) or self.is_analytic(place))
        )
        known = turns and ((special and pole is None) or never or ranges.decided(step))
        side = pole.side if turns and pole is not None else None
        if name == "pow" and operands[-1] in self.moving:
            function = _power  # whose derivative has a logarithm of the base in it
        poles = tuple(operands[i] for i in pole.operands) if turns and pole is not None else ()
        return Operation(place, function, tuple(operands), name, turns, special, known, side, poles)

    def _table(self, step: Step) -> Table | Knots:
        """Any numbers in the place of a table's, so that no two pieces meet by chance; those that are searched are in order."""
        table, key = step.inputs[0], self._numbers(step.inputs[0])
        if key not in self.tables:
            rng = np.random.default_rng(len(self.tables))
            size = next(
                n for n, axis in zip(table.shape, step.equation.flow()[0][0] or (), strict=True) if axis is None
            )
            entries = rng.normal(size=size)
            if any(s.meaning.name == SEARCH and self._numbers(s.inputs[0]) == key for _, s, _ in self.operations):
                ends = np.asarray(self.known.fixed(table))[[0, -1]]
                entries = np.sort([*ends, *rng.uniform(*ends, size=size - 2)])
            self.tables[key] = tuple(entries.tolist())
        entries = self.tables[key]
        return Knots(entries) if step.meaning.name == SEARCH else Table(entries, step.meaning.table == "wraps")

    def _numbers(self, table: Atom) -> Hashable:
        """What a table is known by: its numbers, or else itself."""
        value = self.known.fixed(table)
        return self.known.flat.same(table) if value is None else (value.shape, value.tobytes())

    def behind(self, place: int) -> list[Atom]:
        """The leaves that move behind a place."""
        needed = {place}
        for out, _, operands in reversed(self.operations):
            if out in needed:
                needed.update(operands)
        return [atom for leaf, atom, _ in self.leaves if leaf in needed and leaf in self.moving]

    def may_meet_corner(self, formula: Formula) -> bool:
        """Whether draws may meet what no line meets: a pole of several operands where it ends, as that of atan2 at the origin.

        They do not where these are made of one number, which lines are of, or of draws of different sites.
        """
        corners = (op for op in formula.operations if len(self.moving.intersection(op.poles)) > 1)
        return not all(self._is_apart(op.place) for op in corners)

    def _is_apart(self, place: int) -> bool:
        sites = [{x for x in self.known.of(atom) if not isinstance(x, Var)} for atom in self.behind(place)]
        return sum(map(len, sites)) == len(set().union(*sites))

    def is_free(self, place: int) -> bool:
        """Whether what moves behind a place takes all values within its bounds, each number whatever the others are."""
        moving = self.behind(place)
        return all(self._is_free(atom, alone=len(moving) == 1) for atom in moving)

    def is_analytic(self, place: int) -> bool:
        """Whether one analytic function of draws alone moves behind a place, which has each value on a null set."""
        moving = self.behind(place)
        return len(moving) == 1 and set(self.known.of(moving[0]).values()) == {Smoothness.SMOOTH}

    def _is_free(self, atom: Atom, alone: bool) -> bool:
        step = self.known.flat.makers.get(atom) if isinstance(atom, Var) else None
        if step is None or not self.known.of(atom):
            return True
        name = step.meaning.name
        if step.equation.is_site:
            support = step.equation.role.info.support
            return alone or support.kind != "other" or support.name == "real_vector"
        if name in PICKS or step.meaning.moves:
            return all(self._is_free(x, alone) for x in step.inputs)
        unbounded = all(
            map(math.isinf, (end for x in step.inputs if self.known.of(x) for end in self.known.ranges.of(x)))
        )
        return name in SUMS and alone and unbounded and all(self._is_free(x, alone) for x in step.inputs)


@functools.cache
def _along(step: Step, i: int, axes: Axes) -> Axes:
    """Where the axes of an operand of an entrywise operation lie, which of a function that was vectorised may be fewer."""
    ndim = len(step.inputs[i].shape)
    return axes[:ndim] if ndim in (0, len(axes)) else _through(step.equation.flow()[0][i], axes)


def _through(flow: AxisMap | None, axes: Axes) -> Axes:
    """Where the axes of an operand lie that go to its output's like this, which lie along these."""
    return tuple(None if a is None else axes[a] for a in straight(flow or ()))


def _entries(axis: int | None) -> np.ndarray:
    """Places along an axis, one for each line."""
    return np.random.default_rng(0 if axis is None else axis + 1).integers(0, 2**31, LINES)


SEARCH = "searchsorted"


def is_entrywise(step: Step, known: Known) -> bool:
    """Whether each entry of its output is a function of one number of each operand that varies.

    Looking up is one of the place, in a table that does not vary, and so is searching among constants all of which differ.
    """
    if step.meaning.entrywise is not None:
        return True
    if not (step.meaning.table or step.meaning.name == SEARCH) or len(step.inputs) != 2 or known.of(step.inputs[0]):
        return False
    table, out = step.inputs[0], step.outputs[0]
    kept, along = (straight(axes or ()) for axes in step.equation.flow()[0][:2])
    reached = {a for a in (*kept, *along) if a is not None}
    if kept.count(None) != 1 or any(size > 1 and a not in reached for a, size in enumerate(out.shape)):
        return False
    if any(a is None and size > 1 for a, size in zip(along, step.inputs[1].shape, strict=True)):
        return False
    if step.meaning.table:
        return True
    knots = known.fixed(table)
    return knots is not None and knots.ndim == 1 and len(knots) > 1 and bool((np.diff(knots) > 0).all())


def _power(x: Any, y: Any) -> Any:
    return np.where(np.asarray(x) < 0, np.nan, np.power(x, y))


PICKS = frozenset(
    "slice gather dynamic_slice split concatenate stack rev convert_element_type copy pad squeeze".split()
)
"""Operations that return entries of what they are given."""
SUMS = frozenset("sum cumsum dot_general conv_general_dilated".split())


def jumps(atom: Var, known: Known) -> bool | None:
    """Whether a value jumps as a function of what varies behind it; None where that stays open."""
    region = Region(known)
    try:
        out = region.add(atom, tuple(range(len(atom.shape))))
    except (OpenError, RecursionError):
        return None
    if any(isinstance(leaf, Var) and known.of(leaf) and not is_float(leaf) for _, leaf, _ in region.leaves):
        return None
    formula = region.formula(out)
    found = jumps_in(formula)
    if not found:
        return None if found is None or region.may_meet_corner(formula) else False
    # With the numbers that a table has its pieces may meet all the same.
    return True if any(map(region.is_free, found)) and not region.tables else None


def differ(first: Atom, second: Atom, known: Known) -> bool:
    """Whether two values are not the same function."""
    region, axes = Region(known), tuple(range(max(len(first.shape), len(second.shape))))
    try:
        places = [region.add(atom, axes if atom.shape else ()) for atom in (first, second)]
    except (OpenError, RecursionError):
        return False
    formula = region.formula(places[0])
    values = formula.evaluate(formula.lines()[0])
    return bool(np.any(values[places[0]] != values[places[1]]))
