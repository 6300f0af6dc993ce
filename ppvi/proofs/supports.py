"""Supports: where values are drawn, and where densities that are asked about them have mass.

A value whose density is taken has to lie in the support, wherever it comes from: another distribution's draw, the program that
changed it, or an observation that depends on a draw. Outside of it the log density is -inf, or a number without meaning where a
library does not look. And a density whose support moves with a parameter, or with a draw that carries a gradient, jumps as its
bounds pass the value.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ppvi._ops import as_numpy
from ppvi.analysis.inlined import Flat, Step
from ppvi.analysis.poles import Range
from ppvi.analysis.ranges import Ranges
from ppvi.ir import POINT, UNKNOWN, Atom, Density, Literal, Support, Var, is_float, is_real, straight

SINGLE = 1e-6
"""Relative precision of the bounds of a support, which a value may reach."""
INDEXED = frozenset("gather dynamic_slice".split())
"""Operations that pick entries of their first operand, by the others."""
PICKS = INDEXED | frozenset(
    "copy stop_gradient convert_element_type reduce_precision slice split rev sort concatenate stack squeeze".split()
)
"""Operations whose entries are entries of what they are given."""
WHOLE = frozenset("add sub mul neg max min abs square sum cumsum dot_general clamp".split())
"""Operations that make whole numbers of whole numbers."""
ROUNDING = frozenset("floor ceil round sign trunc".split())


class Ends(NamedTuple):
    """A support, and between which bounds each of its ends lies."""

    name: str
    kind: str
    lower: Range
    upper: Range

    @property
    def is_known(self) -> bool:
        return self.kind != "other" and self.lower[0] == self.lower[1] and self.upper[0] == self.upper[1]


def ends(support: Support, bounds: Sequence[Atom], ranges: Ranges) -> Ends:
    """A support with what is known of the arrays among its ends."""
    return Ends(support.name, support.kind, *ranges.ends(support, bounds))


def within(inner: Ends, outer: Ends) -> bool | None:
    """Whether one support lies in another, as far as is known without numbers."""
    if inner.kind == "other" or outer.kind == "other":
        return True if inner.name == outer.name != UNKNOWN else None
    if outer.kind == "integer" and inner.kind == "real":
        return False
    below = _reaches((-inner.lower[1], -inner.lower[0]), (-outer.lower[1], -outer.lower[0]))
    sides = [below, _reaches(inner.upper, outer.upper)]
    return False if False in sides else None if None in sides else True


def _reaches(inner: Range, outer: Range) -> bool | None:
    """Whether the upper end of the outer support is as far out as that of the inner, but for rounding."""
    (least, most), (shortest, longest) = inner, outer
    if shortest >= most - _slack(most):
        return True
    return False if longest < least - _slack(least) else None


def _slack(end: float) -> float:
    return SINGLE * abs(end) if math.isfinite(end) else 0.0


def beyond(inner: np.ndarray, outer: np.ndarray) -> tuple[int, ...]:
    """The values that are possible under one distribution and not under the other, in some lane: of `(*lanes, K)` each."""
    try:
        outside = inner & ~outer
    except ValueError:  # not of the same lanes, or not of as many values: nothing is said
        return ()
    return tuple(int(v) for v in np.flatnonzero(outside.reshape(-1, outside.shape[-1]).any(0)))


def holds(support: Ends, atom: Atom, ranges: Ranges, analytic: bool) -> bool:
    """Whether a value is always in the support, but for a null set where it is an analytic function of what it varies with.

    Elsewhere it may stay at an end, and upper ends are open: as `clip(z, 0, 1)` is 1 where a Uniform has no mass.
    """
    (low, high), (_, lower), (upper, _) = ranges.of(atom), support.lower, support.upper
    if support.kind == "other":
        return False
    if support.kind == "integer":
        return is_whole(atom, ranges.makers) and lower <= low and high <= upper
    lower, upper = lower - _slack(lower), upper + _slack(upper)
    return lower <= low and (high <= upper if analytic or math.isinf(upper) else high < upper)


def is_whole(atom: Atom, makers: Mapping[Var, Step]) -> bool:
    """Whether all that a value may be is whole numbers."""
    if atom.dtype.startswith(("int", "uint", "bool")):
        return True
    if isinstance(atom, Literal):
        return is_real(atom) and bool((as_numpy(atom.value) % 1 == 0).all())
    step = makers.get(atom)
    if step is None or step.equation.is_site:
        return step is not None and step.equation.role.info.support.kind == "integer"
    name = step.meaning.name
    if name in ROUNDING:
        return True
    closed = name in WHOLE or name in PICKS or step.meaning.moves
    return closed and all(is_whole(x, makers) for x in step.inputs)


def is_asked(step: Step) -> bool:
    """Whether it is a density that is taken at a value from elsewhere."""
    density = step.equation.role
    return isinstance(density, Density) and density.at in ("choice", "data")


def draw_of(step: Step, makers: Mapping[Var, Step]) -> Step | None:
    """The site at whose draw, unchanged, a density is taken."""
    atom = step.inputs[1]
    while isinstance(atom, Var) and (maker := makers.get(atom)) is not None:
        if maker.equation.is_site:
            return maker
        if not maker.inputs:
            return None
        source = maker.inputs[0]
        axes = maker.equation.flow()[0][0] if _returns_entries(maker) and atom.shape == source.shape else None
        if axes is None or straight(axes) != tuple(range(len(atom.shape))):
            return None
        atom = source
    return None


def assessed(flat: Flat) -> Iterator[tuple[Step, Step]]:
    """Pairs of a draw and a log_prob of another distribution that is taken at it."""
    for step in filter(is_asked, flat.steps):
        if (draw := draw_of(step, flat.makers)) is not None:
            yield draw, step


class Piece(NamedTuple):
    """Something of which entries of a value are entries."""

    atom: Atom
    sure: bool
    """Whether some are in every run, as not where a selection may leave them out."""
    passed: bool
    """Whether a site passes it on as its only possible value."""


def pieces(atom: Atom, makers: Mapping[Var, Step], through: Container[Var]) -> Iterator[Piece]:
    """What the entries of a value are entries of: draws, or results of operations that change entries."""
    waiting, seen = [Piece(atom, True, False)], set[Piece]()
    while waiting:
        atom, sure, passed = piece = waiting.pop()
        step = makers.get(atom) if isinstance(atom, Var) else None
        if piece in seen:
            continue
        seen.add(piece)
        if step is not None and _is_point(step) and step.outputs[0] in through:
            waiting.append(Piece(step.inputs[0], sure, True))
        elif step is not None and _returns_entries(step):
            count = 1 if step.meaning.name in INDEXED else len(step.inputs)
            waiting += [Piece(x, sure, passed) for x in step.inputs[:count]]
        elif step is not None and step.meaning.name == "select_n":
            waiting += [Piece(x, False, passed) for x in step.inputs[1:]]
        else:
            yield piece


def is_drawn(atom: Atom, makers: Mapping[Var, Step]) -> bool:
    """Whether a draw has a part in a value."""
    waiting, seen = [atom], set()
    while waiting:
        current = waiting.pop()
        step = makers.get(current) if isinstance(current, Var) and current not in seen else None
        seen.add(current)
        if step is not None and step.equation.is_site and not _is_point(step):
            return True
        waiting += step.inputs[: step.equation.arity] if step is not None else ()
    return False


def _returns_entries(step: Step) -> bool:
    """Whether what an operation returns are entries of its operands."""
    cut = step.meaning.name == "convert_element_type" and is_float(step.inputs[0]) and not is_float(step.outputs[0])
    return not cut and (step.meaning.moves or step.meaning.name in PICKS)


def _is_point(step: Step) -> bool:
    return step.equation.is_site and step.equation.role.info.support.name == POINT
