"""Smoothness: how every value varies with each parameter and each reparameterised draw.

A pathwise derivative of an expectation is right where the integrand is locally Lipschitz; where it jumps, the boundary's
contribution is lost (Lee, Yu and Yang 2018; Lew et al. 2023 keep such values apart by type). Forward dataflow over

    independent < smooth < Lipschitz < jump

by one rule per operation. Comparisons, roundings and the like jump, a selection jumps in what selects, and what is
computed from a jump jumps. Before such a value leaves entrywise code, it is asked whether it jumps after all
(`continuity`). An operation without a rule is taken to jump, and the doubt is kept with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppvi._ops import as_numpy
from ppvi.analysis.inlined import Flat, Step, flatten
from ppvi.analysis.intervals import interval
from ppvi.analysis.ranges import Ranges, pole_of
from ppvi.ir import POINT, Atom, Equation, Literal, Loop, Origin, Smoothness, Support, Var, is_float
from ppvi.proofs.constants import Constants
from ppvi.proofs.continuity import differ, is_entrywise, jumps
from ppvi.proofs.formula import SATURATING, STEEPEST
from ppvi.proofs.matrices import Matrices
from ppvi.proofs.picked import is_in_order
from ppvi.proofs.supports import assessed

INDEPENDENT, SMOOTH, LIPSCHITZ, JUMP = Smoothness

MAGNIFYING = {"mul": "factor", "div": "factor", "add": "summand", "sub": "summand", "max": "summand"}
INVERTING = frozenset({"triangular_solve", "solve", "slogdet"})
"""Operations that are continuous in their first operand where it has an inverse."""
LARGE, SMALL = 1e3, 1e-6
"""A factor of at least, or a summand of at most, is asked about."""
BENDING = SATURATING | {"clamp", "max", "min", "div", "select_n"}
"""Operations that make steps of large multiples."""

Source = Hashable
"""A parameter, or the equation of a site whose draw carries a gradient."""

Classes = Mapping[Source, Smoothness]


@dataclass(frozen=True)
class Jump:
    """Where a value first jumps: the operation, and whether that is certain of the value that it enters."""

    step: Step
    certain: bool


@dataclass
class Analysis:
    """Smoothness of the values of a program, found as its steps are visited."""

    flat: Flat
    classes: dict[Var, Classes]
    through: frozenset[Var]
    """Values of sites that are looked at as functions of what is behind them too."""
    ranges: Ranges
    held: bool = False
    """Whether what is held constant varies with nothing."""
    causes: dict[Var, Jump] = field(default_factory=dict)
    settled: set[Var] = field(default_factory=set)
    large: dict[Atom, float] = field(default_factory=dict)
    """Values that are multiples of others by large numbers, and how large, or have small ones added."""
    exits: dict[Var, Jump] = field(default_factory=dict)
    """Values that leave entrywise code in which they begin to jump."""
    constants: dict[Atom, float | None] = field(default_factory=dict)
    picks: dict[Step, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.matrices = Matrices(self.ranges, Constants(self.flat.makers).of)
        self.ranges.is_factor, self.ranges.is_regular = self.matrices.is_factor, self.matrices.is_regular

    def of(self, atom: Atom) -> Classes:
        return self.classes.get(atom, {}) if isinstance(atom, Var) else {}

    def fixed(self, atom: Atom) -> np.ndarray | None:
        """The numbers of what depends on nothing."""
        return self.matrices.constant(atom)

    def run(self) -> None:
        for step in self.flat.steps:
            if step.equation.is_site:
                self._site(step)
            elif any(self.of(atom) for atom in step.inputs):
                self._step(step)

    def settle(self, atom: Atom) -> Classes:
        """The classes of a value that leaves entrywise code."""
        if not isinstance(atom, Var) or atom in self.settled or JUMP not in self.of(atom).values():
            return self.of(atom)
        self.settled.add(atom)
        maker = self.flat.makers.get(atom)
        if maker is None or not is_entrywise(maker, self) or not is_float(atom):
            return self.of(atom)
        verdict = jumps(atom, self)
        inherited = self._inherited(atom)
        if verdict is False and inherited is None:
            self.classes[atom] = {source: min(c, LIPSCHITZ) for source, c in self.of(atom).items()}
            self.causes.pop(atom, None)
        else:
            cause = self.causes[atom] if inherited is None else inherited
            self.causes[atom] = Jump(cause.step, bool(verdict) if inherited is None else inherited.certain)
            if inherited is None:
                self.exits[atom] = self.causes[atom]
        return self.of(atom)

    def all_causes(self, atom: Var) -> list[Jump]:
        """Every place where a value that jumps gets a jump from."""

        def before(value: Var) -> list[Atom]:
            maker = None if value in self.exits else self.flat.makers.get(value)
            return [operand for operand in maker.inputs if JUMP in self.of(operand).values()] if maker else []

        found: dict[Step, Jump] = {}
        for value in self._jumping(atom, before):
            if not before(value):
                cause = self.exits.get(value, self.causes[value])
                if cause.step not in found or cause.certain:
                    found[cause.step] = cause
        return list(found.values())

    def _inherited(self, atom: Var) -> Jump | None:
        """The jump of a value before entrywise code, if one comes from there."""
        for value in self._jumping(atom, lambda value: self.flat.makers[value].inputs):
            maker = self.flat.makers[value]
            if not is_entrywise(maker, self) or (value is not atom and value in self.settled):
                return self.causes.get(value, Jump(maker, certain=False))
        return None

    def _jumping(self, atom: Var, before: Callable[[Var], Iterable[Atom]]) -> Iterator[Var]:
        """A value and those behind it that jump, as far as `before` leads."""
        seen: set[Atom] = set()
        waiting: list[Atom] = [atom]
        while waiting:
            current = waiting.pop()
            if current not in seen and isinstance(current, Var) and JUMP in self.of(current).values():
                seen.add(current)
                yield current
                waiting.extend(before(current))

    def _site(self, step: Step) -> None:
        [var] = step.outputs
        known = self.classes.get(var)
        value = step.inputs[0]
        if known is not None and var in self.through:
            # What is behind a draw that carries a gradient, and the draw itself.
            self.classes[var] = _joined([self.settle(value), known])
            if isinstance(value, Var) and value in self.causes:
                self.causes[var] = self.causes[value]

    def _step(self, step: Step) -> None:
        if step.meaning.loop is not None:
            self._loop(step, step.meaning.loop())
            return
        entry = is_entrywise(step, self)
        operands = [self.of(atom) if entry else self.settle(atom) for atom in step.inputs]
        ignored = self.ignored(step)
        name, magnified = step.meaning.name, self._magnified(step)
        if name not in SATURATING and magnified is not None:
            self.large |= dict.fromkeys(step.outputs, magnified)
        for number, var in enumerate(step.outputs):
            found: list[Classes] = []
            for i, (atom, classes) in enumerate(zip(step.inputs, operands, strict=True)):
                own = self._rule(step, number, i)
                if not classes or i in ignored or own is INDEPENDENT:
                    continue
                bends = (
                    name in BENDING if entry else name == "softmax" and magnified is not None and magnified > STEEPEST
                )
                if bends and magnified is not None and JUMP not in (own, *classes.values()) and self.ranges.moves(atom):
                    own = JUMP
                    self.causes.setdefault(var, Jump(step, certain=False))
                found.append({source: max(own, c) for source, c in classes.items()})
                cause = self.causes.get(atom) if isinstance(atom, Var) and JUMP in classes.values() else None
                if cause is None and own is JUMP:
                    cause = Jump(step, certain=entry)
                if cause is not None:
                    self.causes.setdefault(var, cause)
            self.classes[var] = _joined(found)

    def _rule(self, step: Step, output: int, operand: int) -> Smoothness:
        rule = step.meaning.smoothness
        if self._null(step):
            return INDEPENDENT
        own = JUMP if rule is None else rule(output, operand)
        if step.meaning.name == "stop_gradient" and (self.held or Origin.SUM in step.meaning.origin()):
            return INDEPENDENT
        if own is not INDEPENDENT and self._is_in_order(step):
            return INDEPENDENT if operand else LIPSCHITZ
        if step.meaning.name in INVERTING and operand == 0:
            if not self._is_regular(step):
                return JUMP
            if step.meaning.name == "slogdet" and output == 0:
                return INDEPENDENT  # the sign of what is never zero
        if step.meaning.name == "interp" and operand == 0 and not self._has_knots(step.inputs[1]):
            return JUMP
        pole = None if own in (INDEPENDENT, JUMP) else pole_of(step)
        if pole is not None and operand in pole.operands and self.ranges.has_pole(step):
            return JUMP
        bends = None if own in (INDEPENDENT, JUMP) else self.ranges.bends(step)
        return own if bends is None else LIPSCHITZ if bends else SMOOTH

    def _has_knots(self, atom: Atom) -> bool:
        """Whether numbers are known, and each is greater than the one before."""
        value = self.fixed(atom)
        return value is not None and value.ndim == 1 and bool((np.diff(value) > 0).all())

    def _is_in_order(self, step: Step) -> bool:
        if step not in self.picks:
            self.picks[step] = is_in_order(step, self.flat, self.matrices.constant)
        return self.picks[step]

    def _is_regular(self, step: Step) -> bool:
        """Whether a matrix is known to have an inverse, or is a library's own. One of parameters has it where they stand."""
        vouched = step.meaning.origin() & (Origin.DENSITY | Origin.SAMPLER)
        return bool(vouched) or not self.ranges.moves(step.inputs[0]) or self.matrices.is_regular(step.inputs[0])

    def _magnified(self, step: Step) -> float | None:
        """How large a multiple it makes, with those behind it, where it may go by steps but for slopes that no draw meets."""
        before = [self.large[atom] for atom in step.inputs if atom in self.large]
        kind, factor, is_small = MAGNIFYING.get(step.meaning.name), 1.0, False
        if kind is not None:
            numbers = [np.abs(x[np.isfinite(x) & (x != 0)]) for x in map(self._numbers, step.inputs)]
            if kind == "summand":
                is_small = any(x.min(initial=1) <= SMALL for x in numbers)
            else:
                factor = max(x.max(initial=0) for x in numbers) or 1.0
                if step.meaning.name == "div" and numbers[1].size:
                    factor = 1 / numbers[1].min()
            if (is_small or before or factor >= LARGE) and step.meaning.origin():
                factor, is_small = 1.0, False  # what a library multiplies by
        before += [1.0] if is_small else []
        return factor * max(before, default=1.0) if before or factor >= LARGE else None

    def _numbers(self, atom: Atom) -> np.ndarray:
        atom = self.ranges.moved(atom)
        return np.ravel(as_numpy(atom.value, float)) if isinstance(atom, Literal) and is_float(atom) else np.zeros(0)

    def switches(self, step: Step, operand: int) -> bool:
        """Whether an operation on single numbers jumps in an operand, or has a pole there."""
        return step.meaning.smoothness is not None and self._rule(step, 0, operand) is JUMP

    def ignored(self, step: Step) -> set[int]:
        """Operands of a selection that play no part: cases that are never taken, or that a library takes outside of a support
        only, and what chooses between them."""
        if step.meaning.name == "log" and self._is_truth(step.inputs[0]):
            return {0} if Origin.DENSITY in step.meaning.origin() else set()  # which selects 0 or -inf
        if step.meaning.name != "select_n":
            return set()
        which = self.constant(step.inputs[0])
        if which is not None:
            return {i for i in range(len(step.inputs)) if i != int(which) + 1}
        cases = [self.flat.constant(case) for case in step.inputs[1:]]
        if any(case is not None and math.isnan(case) for case in cases):
            return {0}  # what should never be
        return {0} if -math.inf in cases and Origin.DENSITY in step.meaning.origin() else set()

    def _is_truth(self, atom: Atom) -> bool:
        """Whether it is a truth value, or a product of some, as a number."""
        step = self.flat.makers.get(atom) if isinstance(atom, Var) else None
        if step is None:
            return False
        if step.meaning.name == "mul":
            return all(map(self._is_truth, step.inputs))
        return step.meaning.name == "convert_element_type" and step.inputs[0].dtype == "bool"

    def _null(self, step: Step) -> bool:
        """Whether a test finds the same almost surely: it is decided, or asks if two analytic functions are equal.

        These differ by an analytic function, which is zero everywhere or on a null set. So does a comparison of numbers of
        which one is never beyond the other. Whether a number is NaN is the same everywhere if it never may be.
        """
        name = step.meaning.name
        if self.ranges.asks_for_number(step):
            return all(map(self.ranges.is_sure, step.inputs))
        if self.ranges.decided(step):
            return True
        asks = name in ("eq", "ne") or self.ranges.touches(step)
        return asks and {c for atom in step.inputs for c in self.of(atom).values()} == {SMOOTH}

    def constant(self, atom: Atom) -> float | None:
        """The value that an atom has almost surely, if it is known."""
        if atom not in self.constants:
            self.constants[atom] = self._constant(atom)
        return self.constants[atom]

    def _constant(self, atom: Atom) -> float | None:
        step = self.flat.makers.get(atom) if isinstance(atom, Var) else None
        if step is None:
            return self.flat.constant(atom)
        name, run = step.meaning.name, step.meaning.entrywise
        if step.meaning.moves or name == "convert_element_type":
            return self.constant(step.inputs[0])
        if self._null(step):
            return self._found(step)
        if name not in ("and", "or", "xor", "not", "eq", "ne") or run is None:
            return None
        known = [self.constant(x) for x in step.inputs]
        if name in ("and", "or") and float(name == "or") in known:
            return float(name == "or")
        return None if None in known else float(run(*known))

    def _found(self, step: Step) -> float | None:
        """What a test finds that finds the same almost surely."""
        name, known = step.meaning.name, self.ranges.truth(step.outputs[0])
        if known is not None or name in ("sign", "is_finite") or not differ(step.inputs[0], step.inputs[1], self):
            return None if known is None else float(known)
        return float(
            name == "ne" if name in ("eq", "ne") else self.ranges.first_is_greater(step) == (name in ("gt", "ge"))
        )

    def _loop(self, step: Step, loop: Loop) -> None:
        """What goes round a loop, round until nothing changes. The body is analysed once, in its own inputs."""
        matrix = body_classes(loop)
        operands = [dict(self.settle(atom)) for atom in step.inputs]
        results: list[Classes] = [{} for _ in step.outputs]
        for _ in range(len(operands) + 3):
            results = [
                _joined(
                    [
                        {source: max(own, c) for source, c in classes.items()}
                        for own, classes in zip(row, operands, strict=True)
                        if own is not INDEPENDENT
                    ]
                )
                for row in matrix
            ]
            for output, operand in loop.carried:
                operands[operand] = dict(_joined([operands[operand], results[output]]))
        tested = {source: JUMP for i in loop.test for source in operands[i]}
        for var, classes in zip(step.outputs, results, strict=True):
            self.classes[var] = _joined([classes, tested])
            if JUMP in self.of(var).values():
                self.causes[var] = Jump(step, certain=False)


def analyse(
    equations: Iterable[Equation],
    sinks: Sequence[Atom],
    sources: Mapping[Var, Source],
    constants: Mapping[Var, Any],
    through: frozenset[Var] = frozenset(),
    supports: Mapping[Var, Support] | None = None,
    held: bool = False,
) -> Analysis:
    """Smoothness of everything behind the sinks, in variables that are sources: parameters, and the values of sites.

    **Arguments**

    - `through`: values of sites that are looked at as functions of what is behind them too.
    - `supports`: of inputs that are constrained.
    - `held`: whether values that are held constant count as such.
    """
    flat = flatten(equations, sinks, lambda site: site.outputs[0] not in through, constants)
    ranges = Ranges(flat.makers, {var: interval(support) for var, support in (supports or {}).items()})
    analysis = Analysis(flat, {var: {source: SMOOTH} for var, source in sources.items()}, through, ranges, held)
    for draw, log_prob in assessed(flat):
        # A point outside of the support would show at once, in a log density of -inf.
        if draw.equation.role.info.support.name == POINT:
            ranges.known[draw.outputs[0]] = interval(log_prob.equation.role.support)
    ranges.moves = lambda atom: any(not isinstance(source, Var) for source in analysis.of(atom))
    analysis.run()
    return analysis


def body_classes(loop: Loop) -> list[list[Smoothness]]:
    """For each output of a body its smoothness in each input."""
    sources: dict[Var, Source] = {var: i for i, var in enumerate(loop.inputs)}
    inner = analyse(loop.equations, loop.outputs, sources, {})
    rows = []
    for atom in loop.outputs:
        classes = inner.settle(inner.flat.atom(atom))
        rows.append([classes.get(i, INDEPENDENT) for i in range(len(loop.inputs))])
    return rows


def _joined(classes: Sequence[Classes]) -> Classes:
    out: dict[Source, Smoothness] = {}
    for each in classes:
        for source, c in each.items():
            out[source] = max(out.get(source, INDEPENDENT), c)
    return out
