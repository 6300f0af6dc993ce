"""Ranges: between which bounds the values of a program lie, and what tests of them that decides.

It decides comparisons that look as if they could go either way and cannot, such as whether a probability is positive, whether
an operation meets a pole, and whether a number may be NaN.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ppvi._ops import as_numpy
from ppvi.analysis.inlined import Step
from ppvi.analysis.intervals import EVERYTHING, POSITIVE, RANGES, integer_power, interval, inward, square
from ppvi.analysis.poles import BENDS, POLES, Pole, Range, of_exponent
from ppvi.ir import POINT, Atom, Literal, Origin, Support, Var, is_float

DEPTH = 60
"""Operations that are followed back at most, one behind the other; what is beyond may be anything."""
HULLS = frozenset("concatenate stack pad dynamic_update_slice".split())
"""Operations whose entries are entries of their operands, places aside."""
TESTS = {"gt": (1, True), "ge": (1, False), "lt": (-1, True), "le": (-1, False)}
"""Comparisons: which operand is the greater where they hold, and whether strictly."""
VISIBLE = frozenset("div log log1p sqrt rsqrt erf_inv ndtri xlogy".split())
"""Operations beyond whose poles a density is NaN, which nobody overlooks."""
SPECIAL = frozenset(
    "erf_inv expi expn ndtri lgamma digamma polygamma zeta igamma igammac regularized_incomplete_beta".split()
)
"""Special functions that are operations."""
ROUNDINGS = frozenset("sign floor ceil round trunc".split())
"""Operations whose values are whole numbers."""
UNSURE = frozenset(
    "cholesky eigh _linalg_eigh svd _linalg_svd lu qr slogdet solve triangular_solve custom_linear_solve".split()
)
"""Operations that return NaN where they fail."""

EXACT = frozenset("clamp neg max min abs select_n convert_element_type".split())
"""Operations whose result is one of their operands' numbers, or its opposite, if in single precision."""


def _rounded_up(bound: float, exact: bool) -> float:
    """A bound from above, or 1 where a number of single precision within it may be 1."""
    near = 0 < bound < 1 and (float(np.float32(bound)) == 1 or (not exact and bound > 1 - 1e-6))
    return 1.0 if near else bound


@dataclass
class Ranges:
    """What is known of the values of a program."""

    makers: Mapping[Var, Step]
    known: dict[Atom, Range] = field(default_factory=dict)
    """Bounds that were found, and those of inputs."""
    rounded: bool = False
    """Whether numbers are as a computer has them, among which what is below 1 may be 1."""
    moves: Callable[[Atom], bool] = lambda atom: True
    """Whether a value varies with draws."""
    is_factor: Callable[[Atom], bool] = lambda atom: False
    """Whether a matrix is triangular, and positive on the diagonal."""
    is_regular: Callable[[Atom], bool] = lambda atom: False
    """Whether a matrix is known to be positive definite, or such a factor, and its determinant positive."""
    sure: set[Atom] = field(default_factory=set)
    """Values that are never NaN."""

    def of(self, atom: Atom, depth: int = DEPTH) -> Range:
        """Bounds of a value."""
        if isinstance(atom, Literal):
            return _of_literal(atom)
        if atom not in self.known:
            step = self.makers.get(atom)
            if not depth:
                return EVERYTHING
            found = EVERYTHING if step is None else self._made(atom, step, depth - 1)
            low, high = EVERYTHING if any(map(math.isnan, found)) else found
            if self.rounded and step is not None:
                exact = step.meaning.name in EXACT
                low, high = -_rounded_up(-low, exact), _rounded_up(high, exact)
            self.known[atom] = low, high
        return self.known[atom]

    def _made(self, atom: Var, step: Step, depth: int) -> Range:
        name, inputs = step.meaning.name, step.inputs
        if step.equation.is_site:
            site = step.equation.role.info
            if site.support.name == POINT:
                return self.of(inputs[0], depth)
            (lower, _), (_, upper) = self.ends(site.support, [inputs[i] for i in site.bounds], depth)
            return interval(replace(site.support, lower=lower, upper=upper), self.rounded)
        if step.meaning.moves:
            return self.of(inputs[0], depth)
        if atom.dtype.startswith("complex"):
            return EVERYTHING
        if name == "iota":
            return 0.0, max(atom.shape) - 1.0
        if name == "diagonal" and self._is_of_matrices(step) and self.is_factor(inputs[0]):
            return POSITIVE
        if name == "dot_general" and inputs[0] is inputs[1] and len(inputs[0].shape) == 1:
            return 0.0, math.inf
        if name == "sort":
            return self.of(inputs[step.outputs.index(atom)], depth)
        if atom is not step.outputs[0] and name not in ("split", "slice"):
            return EVERYTHING
        if name == "sum" and self._is_weighed_sum(step, depth):
            return POSITIVE
        if name == "det" and self.is_regular(inputs[0]):
            return POSITIVE
        if name == "convert_element_type":
            x = self.of(inputs[0], depth)
            cut = is_float(inputs[0]) and not is_float(atom)
            return (0.0, 1.0) if atom.dtype == "bool" else (_cut(x[0]), _cut(x[1])) if cut else x
        if name == "select_n":
            return self._selected(step, depth)
        if name == "mul" and inputs[0] is inputs[1]:
            return square(self.of(inputs[0], depth))
        if name in HULLS:
            cases = [self.of(x, depth) for x in inputs if is_float(x) or name not in ("pad", "dynamic_update_slice")]
            return min(low for low, _ in cases), max(high for _, high in cases)
        if name == "integer_pow":
            return integer_power(self.of(inputs[0], depth), exponent(step))
        return RANGES[name](*(self.of(x, depth) for x in inputs)) if name in RANGES else EVERYTHING

    def ends(self, support: Support, bounds: Sequence[Atom], depth: int = DEPTH) -> tuple[Range, Range]:
        """Bounds of the lower end of a support and of the upper, of which those that are not known are among these."""
        if support.kind == "other":
            return EVERYTHING, EVERYTHING
        rest = iter(bounds)
        lower, upper = (self.of(next(rest), depth) if x is None else (x, x) for x in (support.lower, support.upper))
        return lower, upper

    def is_number(self, atom: Atom) -> bool:
        """Whether a value is the same number always."""
        low, high = self.of(atom)
        return low == high

    def _is_of_matrices(self, step: Step) -> bool:
        """Whether an operation keeps the axes of its operand but the last two, and as many of the last as there are rows."""
        axes, shape = step.equation.flow()[0][0] or (), step.inputs[0].shape
        kept = list(axes[-2:]) == [None, None] and None not in axes[:-2]
        return kept and shape[-2] == shape[-1] == step.outputs[0].shape[-1]

    def _is_weighed_sum(self, step: Step, depth: int) -> bool:
        """Whether all sums are of positive numbers, times weights of the program's text that are not negative nor all zero.

        As a computer has them they may be zero: where the greatest term has weight zero, the others may be too small to tell.
        """
        if self.rounded:
            return False
        product = self.makers.get(step.inputs[0]) if isinstance(step.inputs[0], Var) else None
        if product is None or product.meaning.name != "mul":
            return False
        summed = tuple(axis for axis, place in enumerate(step.equation.flow()[0][0] or ()) if place is None)
        for atom, other in itertools.permutations(product.inputs):
            if isinstance(atom, Literal) and atom.shape == step.inputs[0].shape and self.of(other, depth)[0] > 0:
                weights = as_numpy(atom.value, float)
                return bool((weights >= 0).all() and (weights.sum(summed) > 0).all())
        return False

    def _selected(self, step: Step, depth: int) -> Range:
        """The hull of the cases that may be taken, each where its test holds."""
        cases = []
        for i in self.cases(step, depth):
            low, high = self.of(step.inputs[i], depth)
            if step.inputs[0].dtype == "bool":
                least, most = self._where(step.inputs[0], step.inputs[i], i == 2, depth)
                low, high = max(low, least), min(high, most)
            if low <= high:
                cases.append((low, high))
        return (min(low for low, _ in cases), max(high for _, high in cases)) if cases else EVERYTHING

    def cases(self, step: Step, depth: int = DEPTH) -> list[int]:
        """The cases of a selection that may be taken, but for what is NaN always."""
        places, which = list(range(1, len(step.inputs))), self.truth(step.inputs[0], depth)
        if which is not None and step.inputs[0].dtype == "bool":
            return [1 + which]
        return [i for i in places if not _is_nan(step.inputs[i], self.makers)] or places

    def _where(self, test: Atom, atom: Atom, truth: bool, depth: int) -> Range:
        """Bounds of a value where a test of it is true, or where it is not."""
        step = self.test(test)
        if step is None or not depth:
            return EVERYTHING
        name, atom = step.meaning.name, self.moved(atom)
        if name in ("and", "or") and truth == (name == "and"):
            parts = [self._where(x, atom, truth, depth - 1) for x in step.inputs]
            return max(low for low, _ in parts), min(high for _, high in parts)
        if name == "not":
            return self._where(step.inputs[0], atom, not truth, depth - 1)
        differs = name in ("eq", "ne") and truth == (name == "ne")
        if name not in TESTS and not differs:
            return EVERYTHING
        first, second = map(self.moved, step.inputs[:2])
        if atom not in (first, second):
            return EVERYTHING
        low, high = self.of(first if atom is second else second, depth)
        if differs:
            least, most = self.of(atom, depth)
            return inward(low, 1) if least == high else -math.inf, inward(high, -1) if most == low else math.inf
        greater, strict = TESTS[name]
        if not truth:
            greater, strict = -greater, not strict
        if atom is second:
            greater = -greater
        if greater > 0:
            return (inward(low, 1) if strict else low), math.inf
        return -math.inf, (inward(high, -1) if strict else high)

    def moved(self, atom: Atom) -> Atom:
        """What an atom repeats."""
        while isinstance(atom, Var) and (step := self.makers.get(atom)) is not None and step.meaning.moves:
            atom = step.inputs[0]
        return atom

    def test(self, atom: Atom) -> Step | None:
        """The operation that makes a truth value."""
        atom = self.moved(atom)
        return self.makers.get(atom) if isinstance(atom, Var) else None

    def truth(self, atom: Atom, depth: int = DEPTH) -> bool | None:
        """What a test finds, if that is always the same."""
        atom = self.moved(atom)
        if isinstance(atom, Literal):
            values = np.unique(as_numpy(atom.value))
            return bool(values[0]) if values.size == 1 else None
        step = self.makers.get(atom)
        if step is None or atom.dtype != "bool" or not depth:
            return None
        name = step.meaning.name
        if name in ("and", "or"):
            known = [self.truth(x, depth - 1) for x in step.inputs]
            settled = name == "or"
            return settled if settled in known else None if None in known else not settled
        if name == "not":
            known = self.truth(step.inputs[0], depth - 1)
            return None if known is None else not known
        if self.asks_for_number(step):
            sure = all(self.is_sure(x, depth - 1) for x in step.inputs)
            return (name == "ne") != (name == "is_finite" or self.asks_for_nan(step)) if sure else None
        return self.holds(step, depth)

    def holds(self, step: Step, depth: int = DEPTH) -> bool | None:
        """What a comparison finds, if that is always the same, be it of NaN, of which only `!=` is true."""
        found = self.compared(step, depth)
        for_nan = step.meaning.name == "ne"
        if found is None or found == for_nan or all(self.is_sure(x, depth - 1) for x in step.inputs):
            return found
        return None

    def compared(self, step: Step, depth: int = DEPTH) -> bool | None:
        """Which way a comparison of numbers goes, if there is one only."""
        name = step.meaning.name
        if name not in TESTS and name not in ("eq", "ne"):
            return None
        (a, b), (c, d) = (self.of(x, depth) for x in step.inputs)
        if name not in TESTS:
            return name == "ne" if a > d or b < c else name == "eq" if a == b == c == d else None
        greater, strict = TESTS[name]
        if greater < 0:
            (a, b), (c, d) = (c, d), (a, b)
        if a > d or (a >= d and not strict):
            return True
        return False if b < c or (b <= c and strict) else None

    def touches(self, step: Step) -> bool:
        """Whether a comparison asks no more than if two numbers are equal, since one is never beyond the other."""
        (_, b), (c, _) = map(self.of, step.inputs) if step.meaning.name in TESTS else ((0, 1), (0, 1))
        return b <= c or self.first_is_greater(step)

    def first_is_greater(self, step: Step) -> bool:
        """Whether the first of two numbers that are compared is nowhere below the other."""
        (a, _), (_, d) = map(self.of, step.inputs) if step.meaning.name in TESTS else ((0, 1), (0, 1))
        return a >= d

    def asks_for_nan(self, step: Step) -> bool:
        return step.meaning.name in ("eq", "ne") and self.moved(step.inputs[0]) is self.moved(step.inputs[1])

    def asks_for_number(self, step: Step) -> bool:
        """Whether a test asks if something is finite, if it is infinite, or if it is NaN."""
        infinite = step.meaning.name in ("eq", "ne") and any(_is_infinite(x, self.makers) for x in step.inputs)
        return step.meaning.name == "is_finite" or self.asks_for_nan(step) or infinite

    def decided(self, step: Step) -> bool:
        """Whether a comparison can only go one way, or a sign or a rounding is always the same."""
        if step.meaning.name in ROUNDINGS:
            low, high = self.of(step.outputs[0])
            return low == high
        return self.holds(step) is not None

    def has_pole(self, step: Step, depth: int = DEPTH) -> bool:
        """Whether an operation may meet a pole.

        Parameters stand where they are, beside it. A library's sampler meets none, nor do the pieces of its special functions,
        nor its density of a site where it has a value.
        """
        pole = pole_of(step)
        if pole is None or not any(self.moves(step.inputs[i]) for i in pole.operands):
            return False
        if pole.excluded(*(self.of(x, depth) for x in step.inputs)):
            return False
        name, origin = step.meaning.name, step.meaning.origin()
        pieces = Origin.SPECIAL in origin and name not in SPECIAL and not self._may_end(step, depth)
        return not (pieces or Origin.SAMPLER in origin or (Origin.DENSITY in origin and name in VISIBLE))

    def _may_end(self, step: Step, depth: int) -> bool:
        """Whether a logarithm or a root may be given a negative number, as in a special function beyond its domain."""
        return step.meaning.name in ("log", "sqrt", "rsqrt") and self.of(step.inputs[0], depth)[0] < 0

    def bends(self, step: Step) -> bool | None:
        """Whether an operation may have a value where it has no derivative; None of one that has derivatives everywhere, or of
        which no more is known."""
        excluded = BENDS.get(step.meaning.name)
        return None if excluded is None else not excluded(*map(self.of, step.inputs))

    def is_sure(self, atom: Atom, depth: int = DEPTH) -> bool:
        """Whether nothing behind a value may become NaN, or infinite, as a draw moves."""
        waiting, seen = [atom], set()
        while waiting:
            current = waiting.pop()
            step = self.makers.get(current) if isinstance(current, Var) else None
            known = current in seen or current in self.sure or not self.moves(current)
            if step is None or known or step.equation.is_site:
                continue
            seen.add(current)
            if step.meaning.name in UNSURE or self.has_pole(step, depth) or self._leaves(step, depth):
                return False
            chosen = self.cases(step, depth) if step.meaning.name == "select_n" else range(len(step.inputs))
            waiting += [step.inputs[i] for i in chosen]
        self.sure |= seen
        return True

    def _leaves(self, step: Step, depth: int) -> bool:
        """Whether an operation makes a NaN of finite numbers: by a selection, or by a product of infinity."""
        if step.meaning.name == "select_n":
            return self.truth(step.inputs[0], depth) is None and any(_is_nan(x, self.makers) for x in step.inputs[1:])
        infinite = [_is_infinite(x, self.makers) for x in step.inputs]
        return step.meaning.name in ("mul", "div") and any(infinite)


def exponent(step: Step) -> float:
    """Of an integer power."""
    assert step.meaning.entrywise is not None
    return float(np.log2(step.meaning.entrywise(2.0)))


def pole_of(step: Step) -> Pole | None:
    """The pole of an operation, if it has one."""
    return of_exponent(exponent(step)) if step.meaning.name == "integer_pow" else POLES.get(step.meaning.name)


def _of_literal(atom: Literal) -> Range:
    values = as_numpy(atom.value) if atom.dtype.startswith(("float", "int", "uint", "bool")) else np.asarray(math.nan)
    return EVERYTHING if not values.size or np.isnan(values).any() else (float(values.min()), float(values.max()))


def _cut(x: float) -> float:
    return x if math.isinf(x) else float(math.trunc(x))


def _literal(atom: Atom, makers: Mapping[Var, Step]) -> Any:
    while isinstance(atom, Var):
        step = makers.get(atom)
        if step is None or not (step.meaning.moves or step.meaning.name == "convert_element_type"):
            return None
        atom = step.inputs[0]
    return atom.value if is_float(atom) else None


def _is_nan(atom: Atom, makers: Mapping[Var, Step]) -> bool:
    value = _literal(atom, makers)
    return value is not None and bool(np.isnan(as_numpy(value, float)).all())


def _is_infinite(atom: Atom, makers: Mapping[Var, Step]) -> bool:
    value = _literal(atom, makers)
    return value is not None and bool(np.isinf(as_numpy(value, float)).any())
