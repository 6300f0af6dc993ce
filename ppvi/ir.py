"""The intermediate representation: a staged objective as straight-line code.

An engine stages an objective into a `Program`: a list of equations over variables, each carrying what the passes need to
know of its operation: how to run it, where each axis of its operands goes (`flow`), in which operands it is linear, and the
user's file and line. Sample sites are equations too: identities on the drawn value. What they are beside says their `role`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Flag, IntEnum, auto
from typing import Any, Generic, Literal as Choice, TypeVar

from ppvi._axes import (
    Along as Along,
    AxisMap as AxisMap,
    Flow as Flow,
    along as along,
    further as further,
    straight as straight,
)
from ppvi._ops import Array
from ppvi.strategies import Draw, Strategy
from ppvi.strategies.base import STACKS


@dataclass(eq=False, repr=False, slots=True)
class Var:
    """A variable: assigned once, compared by identity."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(eq=False, repr=False, slots=True)
class Literal:
    """A constant of the program."""

    value: Any
    shape: tuple[int, ...]
    dtype: str


Atom = Var | Literal


def is_float(atom: Atom) -> bool:
    """Whether an atom holds real numbers."""
    return atom.dtype.startswith(("float", "bfloat"))


def is_real(atom: Atom) -> bool:
    """Whether an atom holds real numbers, integers or truth values."""
    return is_float(atom) or atom.dtype.startswith(("int", "uint", "bool"))


class Smoothness(IntEnum):
    """How a value varies with a source, a parameter or a reparameterised draw, the other sources held."""

    INDEPENDENT = 0
    SMOOTH = 1
    LIPSCHITZ = 2
    """Continuous with bounded slope, differentiable almost everywhere: enough for a pathwise gradient."""
    JUMP = 3


@dataclass(frozen=True)
class Loop:
    """A loop as the check of smoothness sees it: which operand feeds which input of its body, and each round the next."""

    inputs: tuple[Var, ...]
    equations: tuple[Equation, ...]
    outputs: tuple[Atom, ...]
    carried: tuple[tuple[int, int], ...]
    """Pairs of an output of the body and the input that it becomes in the next round."""
    test: tuple[int, ...] = ()
    """Operands that decide how often it runs."""


class Origin(Flag):
    """Whose code an operation is, as far as that vouches for something."""

    OTHER = 0
    DENSITY = auto()
    """A library's density of a site: what it selects outside of the support, or where a value is NaN, plays no part."""
    SAMPLER = auto()
    """A library's sampler for a site: its draws are continuous in the distribution's parameters."""
    STRATEGY = auto()
    """A strategy's, as it draws: what it holds constant has mean zero, or is zero in value."""
    SPECIAL = auto()
    """A special function: its pieces meet as nearly as they approximate it."""
    SUM = auto()
    """The log of a sum, as the compiler takes it: what it holds constant cancels."""


@dataclass(frozen=True)
class Meaning:
    """What a check needs to know of an operation, found only when it asks."""

    name: str
    """The operation by its name in the algebra that the checks know, which is the same for every engine."""
    smoothness: Callable[[int, int], Smoothness] | None = None
    """Of the output in the operand; None where no rule is known."""
    entrywise: Callable[..., Any] | None = None
    """The operation on double-precision entries, where each entry of the output is a function of one entry each."""
    moves: bool = False
    """Entries are moved or repeated, and not changed."""
    table: Choice["clips", "wraps"] | None = None
    """Of an operation that looks up entries of its first operand one by one, at places that the second holds: what it does with
    negative places. Beyond the ends it has what is there, or NaN."""
    inline: Callable[[Sequence[Atom]], tuple[Sequence[Equation], Sequence[Atom]] | None] | None = None
    """The equations of its body on these operands, and what it returns; None where it is better left whole."""
    loop: Callable[[], Loop] | None = None
    keyed: bool | None = None
    """Whether a random operation is a function of its key, so that equal operands give equal numbers; None if not random."""
    own_rule: Callable[[Sequence[tuple[float, float]], Sequence[int]], tuple[str, bool] | None] | None = None
    """What is wrong with the derivative rule that a user gave it, and whether that is certain, if anything is, given bounds of
    its operands and for each the first that is the same value; None for an operation without one."""
    origin: Callable[[], Origin] = lambda: Origin.OTHER
    """Whose code it is."""
    key: Hashable = None
    """Two operations of one key return the same of the same operands; None where that is not known."""


@dataclass(frozen=True)
class Support:
    """Where a distribution has mass: an interval of reals or integers, or something that only its name describes."""

    name: str
    kind: Choice["real", "integer", "other"] = "other"
    lower: float | None = None
    """None where it is an array, which is then among the bounds that the equation has as inputs."""
    upper: float | None = None
    jumps: bool = False
    """Whether the density is known to jump at an end."""


POINT, UNKNOWN = "point", "unknown"
"""The names of the support of a point mass, and of one that is not known to be another, be it of that name."""


@dataclass(frozen=True)
class Candidate:
    """A strategy that a site may get, with the positions of its draw among the site's inputs."""

    strategy: Strategy
    fields: tuple[int | None, ...]
    """For each field of `Draw` the input that holds it."""

    def place(self, field: str) -> int | None:
        """The input that holds a field of the draw."""
        return self.fields[Draw._fields.index(field)]

    def draw(self, inputs: Mapping[int, Array], mapped: int, moveaxis: Callable[[Array, int, int], Array]) -> Draw:
        """The draw, with the stacks that vectorisation has moved inwards by so many axes in front."""
        draw = Draw(*[None if i is None else inputs[i] for i in self.fields])
        if not mapped:
            return draw
        stacks = {name: moveaxis(x, mapped, 0) for name in STACKS if (x := getattr(draw, name)) is not None}
        if draw.transitions is not None:
            stacks["transitions"] = moveaxis(moveaxis(draw.transitions, mapped, 0), 1 + mapped, 1)
        return draw._replace(**stacks)


@dataclass(frozen=True, eq=False)
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
    support: Support
    masses: Masses | None = None
    """What the last input says of the probability of each value; None where there is no such input."""


Masses = Choice["probs", "logits", "coin probs", "coin logits", "count probs"]
"""What a finite distribution is given by: an array `(*lanes, K)`, or `(*lanes)` of the second of two values; of the number of
such values in several trials `(*lanes, 2)`, with their number last."""

At = Choice["draw", "credited draw", "choice", "data"]


@dataclass(frozen=True)
class Density:
    """The identity on the log_prob of a site; further inputs hold the value that it is taken at and bounds of the support."""

    site: str
    distribution: str
    where: str
    support: Support
    tails: int | None
    """How heavy the distribution's tails are: 0 none, 1 Gaussian, 2 exponential, 3 heavier; None where it is not known."""
    at: At
    """What it is taken at: the site's own draw, one that carries no gradient, a value drawn elsewhere, or data."""
    masses: Masses | None = None
    """What the last input says of the probability of each value; None where there is no such input."""
    masked: bool = False
    """Whether a mask may leave the value out."""


@dataclass(frozen=True)
class Estimate:
    """The identity on an unbiased estimate of an expectation, of which a nonlinear function is biased."""

    of: str


@dataclass(frozen=True)
class Constant:
    """The identity on a value held constant, and why no gradient through it is missed."""

    because: str


@dataclass(frozen=True)
class Marginalised:
    """The identity on the log of a sum over all values of some sites, and how it was taken."""

    order: tuple[str, ...]
    """The sites in the order in which they were summed out."""
    largest: float
    """Entries of the largest table."""
    of: tuple[str, ...]
    """The sites whose values that is over."""


Note = Density | Estimate | Constant | Marginalised
"""What is said of a value, whose further inputs are for the checks."""


@dataclass(frozen=True, eq=False)
class Sited:
    """The identity on the draw of a site."""

    info: SiteInfo
    mapped: int = 0
    """The number of leading axes that vectorisation and loops have added."""
    past: Mapping[SiteInfo, tuple[Along | None, ...]] = field(default_factory=dict)
    """In a loop: the sites whose earlier draws it is drawn given, itself among them, and along which lanes."""


@dataclass(frozen=True, eq=False)
class Summed:
    """A sum over axes; and the same in two steps, the given axes of the operand in the second, None if one is empty."""

    split: Callable[[frozenset[int]], tuple[Equation, Equation] | None]


@dataclass(frozen=True, eq=False)
class Looped:
    """A loop of so many rounds; and it, with another function for its body."""

    with_body: Callable[[Callable[..., Sequence[Array]]], Callable[..., Sequence[Array]]]


@dataclass(frozen=True, eq=False)
class Lifted:
    """An operation whose sites have been lifted out of it, which at their draws is what it was."""

    anew: Callable[[], tuple[Sequence[Equation], Sequence[Atom]]]
    """Its equations as a function of any values of them, and what these return."""


Role = Sited | Note | Summed | Looped | Lifted | None
"""What an equation is to the passes, beside an operation."""

R = TypeVar("R", bound=Role, covariant=True)


@dataclass(frozen=True, eq=False)
class Equation(Generic[R]):
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
    effect: bool = False
    """Run for its side effect."""
    differentiable: bool = True
    """Whether a gradient passes through."""
    role: R = None  # pyright: ignore[reportAssignmentType]
    meaning: Callable[[], Meaning] | None = None
    """For the checks; markers have none."""
    numbers: Callable[[Collection[int] | None], Callable[..., Sequence[Array | None]]] | None = None
    """For the checks, which run it once or twice: what it returns of NumPy's arrays, where that takes less time than `run`, and
    None perhaps for outputs that are not wanted."""
    resized: Callable[[tuple[int, ...]], Callable[..., Sequence[Array]] | None] | None = None
    """How it is run where operands and output have one entry along some axes, from the output's shape; None where it cannot."""
    without_rows: Callable[[Sequence[int]], Callable[..., Sequence[Array]] | None] | None = None
    """How a lookup is run in a table that has some axes no more, along which its rows are looked up one by one; None where it
    cannot."""
    broadcasts: bool = False
    """Whether `run` applies a function of entries to arrays of any shapes, which it broadcasts against each other."""

    @property
    def is_site(self) -> bool:
        return isinstance(self.role, Sited)

    @property
    def arity(self) -> int:
        """How many operands its value depends on, the first of all."""
        return 1 if isinstance(self.role, Note) else len(self.inputs)

    @functools.cached_property
    def needs(self) -> tuple[Atom, ...]:
        """What its value is made of; a site has operands of strategies besides."""
        if isinstance(self.role, Sited):
            return self.inputs[:1] if self.role.info.masses is None else (self.inputs[0], self.inputs[-1])
        return self.inputs[: self.arity]

    def at(self, *values: Array) -> Sequence[Array]:
        """What it returns of numbers."""
        return self.some_at(None, *values)  # type: ignore[return-value]

    def some_at(self, wanted: frozenset[int] | None, *values: Array) -> Sequence[Array | None]:
        """Those of its outputs that are wanted, None for others perhaps."""
        if self.numbers is None:
            return self.run(*values)
        if wanted not in self._some:
            self._some[wanted] = self.numbers(wanted)
        return self._some[wanted](*values)

    @functools.cached_property
    def _some(self) -> dict[frozenset[int] | None, Callable[..., Sequence[Array | None]]]:
        return {}

    def without_notes(self) -> Equation:
        """The same with no more operands than its value depends on."""
        if (n := self.arity) == len(self.inputs):
            return self
        return replace(self, inputs=self.inputs[:n], flow=lambda: [x[:n] for x in self.flow()])


@dataclass(frozen=True)
class Program:
    """A staged objective."""

    inputs: tuple[Var, ...]
    params: frozenset[Var]
    constants: dict[Var, Any]
    equations: tuple[Equation, ...]
    output: Atom
    supports: Mapping[Var, Support] = field(default_factory=dict)
    """Of inputs that are constrained."""

    def live(self) -> Program:
        """The program without the equations that neither its output nor a side effect needs."""
        behind = equations_behind(self.equations)
        wanted = behind.get(self.output, 0) | union(behind[e] for e in self.equations if e.effect)
        return replace(self, equations=tuple(e for i, e in enumerate(self.equations) if wanted >> i & 1))


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
