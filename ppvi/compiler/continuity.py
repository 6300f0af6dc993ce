"""Whether entrywise code with comparisons in it is continuous after all: `where(x > 0, x, expm1(x))` is.

A value that looks as if it jumped is followed back through entrywise operations to the variables where those begin: it is
a formula in single numbers, and `formula` looks for jumps in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppvi.compiler.flat import Flat, Step
from ppvi.compiler.formula import LINES, Formula, Leaf, Operation, jumps_in
from ppvi.compiler.ir import Atom, Literal, Origin, Smoothness, Var, is_float, is_real, straight
from ppvi.compiler.ranges import Range, decided, range_of

MOST = 300
"""Operations that are followed back at most."""

Axes = tuple[int | None, ...]

Answers = frozenset[tuple[Hashable, int]]
"""Tests whose answer is known, and the number of the case that they choose."""


class OpenError(Exception):
    """The question cannot be settled."""


@dataclass
class Region:
    """Entrywise operations behind one value: leaves, and operations in order with the places of their operands."""

    flat: Flat
    varies: Callable[[Var], bool]
    ignored: Callable[[Step], set[int]]
    """Operands of a selection that play no part."""
    places: dict[tuple[Any, Axes, Answers], int] = field(default_factory=dict)
    leaves: list[tuple[int, Atom]] = field(default_factory=list)
    operations: list[tuple[int, Step, list[int]]] = field(default_factory=list)
    moving: set[int] = field(default_factory=set)
    """Places that vary along a line."""

    def add(self, atom: Atom, axes: Axes, known: Answers = frozenset()) -> int:
        """The place of an atom whose axes lie along these axes of the value in question.

        The same variable along other axes is another number, and so it is where other tests are known to hold.
        """
        key = (atom, tuple(a if size > 1 else None for a, size in zip(axes, atom.shape, strict=True)), known)
        if key in self.places:
            return self.places[key]
        step = self.flat.makers.get(atom) if isinstance(atom, Var) else None
        if step is not None and (only := self._only_case(step, axes, known)) is not None:
            left, known = only
            place = self.places[key] = self.add(left, axes if left.shape else (), known)
            return place
        operands = None if step is None or step.meaning.entrywise is None else self._operands(step, axes)
        children = [] if operands is None else [self.add(*operand, known) for operand in operands]
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
        skipped = self.ignored(step)
        if not skipped:
            return None
        left = {i: self.flat.constant(atom) for i, atom in enumerate(step.inputs) if i and i not in skipped}
        cases = [i for i, value in left.items() if value is None or math.isfinite(value)]
        return (step.inputs[cases[0]], known | {(asked, cases[0] - 1)}) if len(cases) == 1 else None

    def _test(self, atom: Atom, axes: Axes) -> Hashable:
        """What chooses, as the comparison that it is, so that the same one is known again."""
        step = self.flat.makers.get(atom) if isinstance(atom, Var) else None
        operands = None if step is None or step.meaning.entrywise is None else self._operands(step, axes)
        if step is None or operands is None:
            return atom, axes
        if step.meaning.moves:
            return self._test(*operands[0])
        numbers = [self.flat.constant(operand) for operand, _ in operands]
        return step.meaning.name, *(
            operand if number is None else number for number, operand in zip(numbers, operands, strict=True)
        )

    def _operands(self, step: Step, axes: Axes) -> list[tuple[Atom, Axes]] | None:
        """The operands and where their axes lie, or None where entries are mixed."""
        if not step.meaning.moves:
            return [(atom, axes if atom.shape else ()) for atom in step.inputs[: _arity(step)]]
        operand, flow = step.inputs[0], step.equation.flow()[0][0]
        places = () if flow is None else straight(flow)
        if flow is None or any(a is None and size > 1 for a, size in zip(places, operand.shape, strict=True)):
            return None
        return [(operand, tuple(None if a is None else axes[a] for a in places))]

    def formula(self, out: int, ranges: dict[Atom, Range]) -> Formula:
        """Everything about it that its jumps depend on."""
        leaves = tuple(self._leaf(place, atom, ranges) for place, atom in self.leaves)
        return Formula(leaves, tuple(self._operation(*operation, ranges) for operation in self.operations), out)

    def _leaf(self, place: int, atom: Atom, ranges: dict[Atom, Range]) -> Leaf:
        if isinstance(atom, Literal):
            values = np.ravel(np.asarray(atom.value)) * 1.0 if is_real(atom) else np.ones(1)
            if values.size > 1:
                values = np.random.default_rng(place).choice(values, LINES)
            return Leaf(place, tuple(values.tolist()), "constant")
        if not is_float(atom):
            return Leaf(place, (), "truth" if atom.dtype == "bool" else "integer")
        low, high = range_of(atom, self.flat.makers, ranges)
        return Leaf(place, (), "real", low, high, place in self.moving)

    def _operation(self, place: int, step: Step, operands: list[int], ranges: dict[Atom, Range]) -> Operation:
        name, origin = step.meaning.name, step.meaning.origin()
        assert step.meaning.entrywise is not None
        turns = name != "select_n" and Origin.SAMPLER not in origin
        turns = turns and any(place in self.moving and _jumps(step, i) for i, place in enumerate(operands))
        special = Origin.SPECIAL in origin
        known = turns and (special or name in ("eq", "ne") or decided(step, self.flat.makers, ranges))
        return Operation(place, step.meaning.entrywise, tuple(operands), name, turns, special, known)


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
    return jumps_in(region.formula(out, ranges))
