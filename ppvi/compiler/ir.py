"""The intermediate representation: a staged objective as straight-line code.

An engine stages an objective into a `Program`: a list of equations over variables, each carrying what the passes need
to know of its operation and nothing more: how to run it, where each axis of its operands goes (`flow`), in which
operands it is linear, and the user's file and line. Sample sites are equations too: identities on the drawn value that
carry a `SiteInfo`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ppvi.ops import Array
from ppvi.strategies import Strategy

AxisMap = tuple[int | None, ...]
"""For each axis of an operand the axis of the output along which it lies, or None: entries of the output mix that
axis."""

Flow = Sequence[Sequence[AxisMap | None]]
"""`flow[output][operand]`: an axis map, or None where the output does not depend on the operand at all."""


class Var:
    """A variable: assigned once, compared by identity."""

    __slots__ = ("dtype", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: str):
        self.shape = shape
        self.dtype = dtype


class Literal:
    """A constant of the program."""

    __slots__ = ("dtype", "shape", "value")

    def __init__(self, value: Any, shape: tuple[int, ...], dtype: str):
        self.value = value
        self.shape = shape
        self.dtype = dtype


Atom = Var | Literal


@dataclass(frozen=True)
class Candidate:
    """A strategy that a site may get, with the positions of its draw among the site's inputs."""

    strategy: Strategy
    fields: tuple[int | None, ...]
    """For each field of `Draw` the input that holds it."""


@dataclass(frozen=True)
class SiteInfo:
    """What is known of a sample site when it is staged."""

    name: str
    distribution: str
    where: str
    ndim: int
    """Number of the distribution's own lane axes."""
    candidates: tuple[Candidate, ...]
    named: bool
    """Whether the user named the strategy."""
    bounds: tuple[int, ...]
    """Inputs that hold the bounds of the support."""


@dataclass(frozen=True, eq=False)
class Equation:
    """One operation."""

    op: str
    inputs: tuple[Atom, ...]
    outputs: tuple[Var, ...]
    run: Callable[..., Sequence[Array]]
    flow: Callable[[], Flow]
    where: Callable[[], str]
    """The user's file and line."""
    linear: tuple[frozenset[int], ...] = ()
    """Groups of operands in which the operation is jointly linear, whatever the other operands are."""
    additive: bool = False
    """A sum or a difference, so that an operand which depends on no site is a summand and not a coefficient."""
    split: Callable[[frozenset[int]], tuple[Equation, Equation] | None] | None = None
    """For a sum over axes: the same in two steps, the given axes of the operand in the second; None if one is empty."""
    effect: bool = False
    """Run for its side effect."""
    differentiable: bool = True
    """Whether a gradient passes through."""
    site: SiteInfo | None = None
    mapped: int = 0
    """For a site: the number of leading axes that vectorisation has added."""
    log_prob_of: str | None = None
    """The identity on the log_prob of that site."""
    own_draw: bool = False
    """That log_prob is taken at the site's own draw, and the draw carries no gradient."""
    estimate_of: str | None = None
    """The identity on an unbiased estimate of an expectation, of which a nonlinear function is biased: what it is."""


@dataclass(frozen=True)
class Program:
    """A staged objective."""

    inputs: tuple[Var, ...]
    params: frozenset[Var]
    constants: dict[Var, Any]
    equations: tuple[Equation, ...]
    output: Atom


def equations_behind(equations: tuple[Equation, ...]) -> dict[Atom | Equation, int]:
    """For each variable, and each equation run for its effect, the equations that it needs, as a bit set."""
    behind: dict[Atom | Equation, int] = {}
    for i, equation in enumerate(equations):
        needs = union(behind.get(atom, 0) for atom in equation.inputs) | 1 << i
        for key in (*equation.outputs, *([equation] if equation.effect else ())):
            behind[key] = needs
    return behind


def union(sets: Iterable[int]) -> int:
    """The union of bit sets."""
    return functools.reduce(operator.or_, sets, 0)


def site_info(site: Equation) -> SiteInfo:
    """What is known of a site equation."""
    assert site.site is not None
    return site.site
