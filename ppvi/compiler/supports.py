"""Supports: where values are drawn, and where densities that are asked about them have mass.

What is drawn from one distribution and assessed under another has to lie in the support of the other: outside of it the
log density is -inf, or a number without meaning where a library does not look. And a density whose support moves with a
parameter, or with a draw that carries a gradient, jumps as its bounds pass the value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ppvi.compiler.flat import Flat, Step
from ppvi.compiler.ir import Atom, Support
from ppvi.compiler.poles import Range


def within(inner: Support, outer: Support) -> bool | None:
    """Whether one support lies in another, as far as is known while staging."""
    if inner.kind == "other" or outer.kind == "other":
        return True if inner.name == outer.name else None
    if outer.kind == "integer" and inner.kind == "real":
        return False
    sides = [_reaches(inner.lower, outer.lower, -1), _reaches(inner.upper, outer.upper, 1)]
    return False if False in sides else None if None in sides else True


def resolved(support: Support, bounds: Sequence[Atom], flat: Flat) -> Support:
    """The support with bounds that are constants of the program put in."""
    rest = iter(bounds)
    ends = [flat.constant(next(rest)) if end is None and bounds else end for end in (support.lower, support.upper)]
    return support if support.kind == "other" else replace(support, lower=ends[0], upper=ends[1])


def beyond(inner: np.ndarray, outer: np.ndarray) -> tuple[int, ...]:
    """The values that are possible under one distribution and not under the other, in some lane: of `(*lanes, K)` each."""
    try:
        outside = inner & ~outer
    except ValueError:  # not of the same lanes, or not of as many values: nothing is said
        return ()
    return tuple(int(v) for v in np.flatnonzero(outside.reshape(-1, outside.shape[-1]).any(0)))


def holds(support: Support, values: Range) -> bool:
    """Whether values within these bounds are in the support."""
    if support.kind != "real" or support.lower is None or support.upper is None:
        return False
    return support.lower <= values[0] and values[1] <= support.upper


def _reaches(inner: float | None, outer: float | None, sign: int) -> bool | None:
    """Whether the bound of the outer support is as far out as that of the inner."""
    if outer is not None and math.isinf(outer):
        return True
    if inner is not None and math.isinf(inner):
        return False if outer is not None else None
    return None if inner is None or outer is None else sign * outer >= sign * inner


def assessed(steps: tuple[Step, ...]) -> Iterator[tuple[Step, Step]]:
    """Pairs of a draw and a log_prob of another distribution that is taken at it, by the name of their site."""
    draws: dict[str, Step] = {}
    for step in steps:
        if step.equation.site is not None:
            draws[step.equation.site.name] = step
        density = step.equation.density
        if density is not None and density.at == "choice" and density.site in draws:
            yield draws[density.site], step
