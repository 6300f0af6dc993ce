"""What an engine provides, on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from ppvi._ops import Array, Ops
from ppvi.checks.paths import Paths
from ppvi.checks.unbiased import Draws
from ppvi.compiler.plan import Plan
from ppvi.engine.distributions import SiteDistribution
from ppvi.engine.formula import Formula
from ppvi.engine.outcomes import Outcomes
from ppvi.engine.pieces import Finish, Piece, Told, Wanted
from ppvi.engine.sites import Arrays, Site, SiteRecord
from ppvi.engine.statements import Library
from ppvi.ir import Note, SiteInfo, Support
from ppvi.proofs.explain import Explanation
from ppvi.proofs.findings import StaticReport

S = TypeVar("S", contravariant=True)
"""A `ppvi.engine.sessions.Session`."""
R = TypeVar("R", contravariant=True)
"""A `ppvi.engine.runs.Run`."""

Params = dict[str, Any]
"""Name -> constrained value: an array, or a tree of arrays for a module."""

Context = AbstractContextManager[Any]

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


@dataclass(frozen=True)
class Start:
    """Parameters before a fit."""

    params: Params
    constraints: dict[str, Any]
    """Name -> the framework's constraint."""
    owners: dict[str, set[str]]
    """Name -> the programs that declare it: `model`, `guide`, `objective`, or `program` and its name."""
    learning: bool
    """Whether a strategy has a state."""
    modules: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """What modules keep beside parameters, where that is no part of them: how it begins."""


Pick = Callable[[Any, np.random.Generator], Any]
"""From runs `(n * particles, ...)` to one for each of the n, `(n, ...)`."""


class Estimator(Protocol):
    """What an engine makes of an objective: stagings, plans and compiled functions, by the kind of call.

    Verbs that `ppvi.objective.Objective` has too are documented there.
    """

    formula: Formula
    learned: type
    """Of the states that strategies have."""

    def of(self, formula: Formula) -> Self:
        """That of another formula."""
        ...

    # Parameters and gradients -------------------------------------------------------------------------------------------

    def initialise(self, key: Any, /, *args: Any, **kwargs: Any) -> Start:
        """`init`, with what is known of each parameter."""
        ...

    def value_and_grad(self, key: Any, params: Params, /, *args: Any, **kwargs: Any) -> tuple[Array, Params]: ...

    def estimate(self, key: Any, params: Params, /, *args: Any, **kwargs: Any) -> Array: ...

    def surrogate(self, key: Any, params: Params, /, *args: Any, **kwargs: Any) -> Array: ...

    def states(self, params: Params, /, *args: Any, **kwargs: Any) -> Any: ...

    def update(
        self, key: Any, params: Params, states: Any, /, *args: Any, **kwargs: Any
    ) -> tuple[Array, Params, Any]: ...

    # What the compiler sees ---------------------------------------------------------------------------------------------

    def staged(self, params: Params, /, *args: Any, **kwargs: Any) -> Plan:
        """The compiler's plan for arguments of these shapes.

        **Raises** `EngineError` where the objective cannot be staged.
        """
        ...

    def seen(self, params: Params, /, *args: Any, **kwargs: Any) -> Seen:
        """What is known of the objective at these parameters and arguments."""
        ...

    # Draws --------------------------------------------------------------------------------------------------------------

    def many(
        self,
        key: Any,
        params: Params | list[Params],
        args: Args,
        kwargs: Kwargs,
        n: int,
        of: Callable[..., Any],
        given: Any = None,
        particles: int = 1,
        pick: Pick | None = None,
    ) -> Any:
        """`n` plain runs of a function of the two handles, and each of an entry of what is given: NumPy arrays with a leading
        axis. Of several parameters a list of these, compiled once and with the same random numbers. Runs of so many particles
        each go side by side as far as there is memory for them. With `pick` a particle is a run of the function, of which one
        is picked for each of the `n`."""
        ...

    def completed(
        self, key: Any, params: Params, args: Args, kwargs: Kwargs, n: int, choices: Mapping[str, Any], wanted: Wanted
    ) -> Any:
        """Of `n` choices of the model's other sites, the finite sites that are summed out: a `ppvi.engine.summed.Completed`."""
        ...

    def known(self, x: Any, /) -> np.ndarray | None:
        """An array as NumPy's; None where its numbers are not at hand."""
        ...

    def culprits(self, key: Any, params: Params, args: Args, kwargs: Kwargs) -> list[str]:
        """The sites whose values or densities are not finite in one evaluation, as clauses of a sentence."""
        ...

    def in_format(self, x: Any, dtype: str) -> Array:
        """Numbers from NumPy in the framework's format of this name."""
        ...

    def another(self, key: Any) -> Any:
        """A key that is not used by what was done with this one."""
        ...

    def key_text(self, key: Any) -> str:
        """A key in words, by which it can be made again."""
        ...

    # The check ----------------------------------------------------------------------------------------------------------

    def untouched(self) -> Context:
        """Around what is to leave the programs' modules as they are."""
        ...

    def begun(self, key: Any, params: Params, args: Args, kwargs: Kwargs) -> Start:
        """The parameters that are declared with a value; the others are given."""
        ...

    def gradients(self, key: Any, params: Params, args: Args, kwargs: Kwargs, start: Start) -> Gradients: ...

    def outcomes(self, params: Params, args: Args, kwargs: Kwargs, limit: int, seconds: float) -> Outcomes:
        """Every outcome of the estimator.

        **Raises** `EndlessError` where a site is not finite, where there are more outcomes than the limit or the seconds allow,
        or where noise beside the sites' draws makes a difference.
        """
        ...


class Seen(Protocol):
    """What the compiler, or a few runs, have seen of an objective."""

    @property
    def plan(self) -> Plan | None:
        """None of what cannot be staged."""
        ...

    def prove(self) -> StaticReport: ...

    def explain(self) -> Explanation: ...


class Gradients(Protocol):
    """An estimator's values and gradients, many at once, in the space of unconstrained parameters: vectors of all entries."""

    names: list[str]
    """Of the leaves of parameters."""
    roots: list[str]
    """The parameters that they belong to."""
    owner: np.ndarray
    """For each entry of a vector, the number of its leaf."""
    eps: float
    """The last digit of 1."""
    seed: Any
    """Numbers that paths are laid by."""
    few: Mapping[str, Any]
    """How the paths are fewer, of an estimator whose draws are expensive; see `ppvi.checks.paths.lay`."""

    keys: tuple[Any, Any]
    """Two that differ."""

    def vector(self, params: Any) -> np.ndarray: ...

    def flat(self, gradient: Any) -> np.ndarray:
        """A gradient in the parameters as one vector."""
        ...

    def through(self, point: np.ndarray, direction: np.ndarray) -> tuple[Any, np.ndarray]:
        """The parameters at a point, and their velocity there for unit speed, as one vector."""
        ...

    def sanity(self) -> Sanity:
        """What calls with equal and with different keys tell."""
        ...

    def agree(self, one: Any, other: Any) -> bool:
        """Whether two values and their gradients are the same but for rounding."""
        ...

    def drawer(self, paths: Paths, oracles: Mapping[str, Any], along: bool) -> Callable[[int, int], Draws]:
        """A function from the number of a batch, and the most draws, to its draws: those along each path, and of each oracle
        those along each path at the given point, and of the value.

        **Arguments**

        - `oracles`: other estimators of the same gradient, which are asked at the given point.
        - `along`: whether paths are gone along.
        """
        ...


@dataclass(frozen=True)
class Sanity:
    """What calls with equal and with different keys tell of an estimator."""

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stuck: bool = False
    """Whether what should be random is not, so that draws tell nothing."""


@dataclass(frozen=True)
class Scope:
    """What holds for a part of a run. What the first three are is the engine's matter."""

    evaluation: Any
    """What minibatches depend on, the same throughout one evaluation."""
    keys: Any
    """Where fresh keys come from."""
    lanes: Any
    """The vectorisations that the session has put around."""
    distribution: Callable[..., SiteDistribution]
    """What strategies see of the framework's distributions."""
    plain: bool = False
    """Whether sites are simply drawn, and nothing is marked or credited."""
    constant_params: bool | str = False
    """Whether parameters are constants for every gradient; or the reason why they are."""
    constant_draws: bool = False
    """Whether what is drawn is a constant to the program."""
    bodies: Bodies | None = None
    """What answers for sites where a program is traced whole, of which two may be told of that must say the same of one."""


class Repeats(Protocol[S]):
    """How a session runs a function many times."""

    def each(self, session: S, function: Callable[..., Any], stacks: Sequence[Any], n: int) -> Any: ...
    def fold(self, session: S, count: Array, body: Callable[[Array, Any], Any], carry: Any) -> Any: ...


class Programs(Repeats[S], Protocol[S, R]):
    """How an engine runs programs in a `ppvi.engine.sessions.Session`; one object serves one session."""

    @property
    def ops(self) -> Ops: ...
    @property
    def marks(self) -> Marks | None: ...  # None where nothing is marked
    @property
    def library(self) -> Library: ...

    # The file and line of the user's code that is running; what is around all that a session runs, and around the objective
    # program itself, which must not sample; a run of a program, which is told of its sites; and whether an error is the
    # framework's way to say that it needs numbers where it traces.
    def here(self) -> str: ...
    def surroundings(self, session: S, /) -> Context: ...
    def direct(self, session: S, /) -> Context: ...
    def execute(self, session: S, run: R, program: Callable[[], Any]) -> Any: ...
    def is_signal(self, error: Exception) -> bool: ...

    # The arrays of an initial value, None where they are traced; and those that stand for them inside of its constraint, None
    # where they are inside.
    def started(
        self, value: Any, constraint: Any
    ) -> tuple[Sequence[np.ndarray] | None, Sequence[np.ndarray] | None]: ...

    # Arrays. Rows are the same where they are known to be. The shape of an initial value is None where it would have to be
    # made, which it is if asked for.
    def array(self, value: Any, /) -> Array: ...
    def same_rows(self, rows: Any, others: Any, /) -> bool: ...
    def shape_of(self, initial: Any, make: bool) -> Any: ...
    def support_of(self, constraint: Any, /) -> Support: ...

    # Random numbers: a fresh key, or what stands for one, within an `each` one for every run; and draws of no site, of which a
    # subset is of different numbers below the total, and n >= 0 is geometric with probability (1 - decay) decay^n.
    def key(self, scope: Scope) -> Any: ...
    def poisson(self, scope: Scope, rate: float) -> Array: ...
    def geometric(self, scope: Scope, decay: float) -> Array: ...
    def subset(self, scope: Scope, total: int, size: int) -> Array: ...

    # Sites. A draw is refused where the framework's own vectorisation would share it, or the program has seeded it; strategies
    # draw within `drawing`. A choice is along the leading axis of its weights, with these lanes. Of data, masks may leave out
    # what is not there, and a density looks at the rest. An array is known as NumPy's, or None where it is traced. A divergence
    # is KL, by lane, None where no closed form is known.
    def refuse_draw(self, scope: Scope, name: str, where: str) -> None: ...
    def drawing(self) -> Context: ...
    def choosing(self, log_weights: Array, lanes: tuple[int, ...]) -> Any: ...
    def looked_at(self, fn: Any, value: Array, /) -> Array: ...
    def known(self, x: Any, /) -> np.ndarray | None: ...
    def check(self, constraint: Any, value: Any, /) -> Any: ...  # where it holds
    def divergence(self, q: Any, p: Any) -> Array | None: ...

    def evaluate(
        self, fn: Any, value: Array, intermediates: Sequence[Any], relaxed: bool
    ) -> tuple[Array | None, Exception | None]:
        """log_prob of a value, which if relaxed may lie outside of the support; None where it does not fit, and why."""
        ...

    # A run with finite sites is staged by itself or as a part of all, and what the compiler makes of it, of these sizes, is the
    # sum over them. The values of a finite distribution are None where their number is traced.
    def summed(
        self, session: S, run: Callable[[], Told], sizes: Callable[[Sequence[Piece]], Sequence[int]], finish: Finish
    ) -> Array: ...
    def values_of(self, peeled: Any, /) -> np.ndarray | None: ...

    # Many runs of a function are vectorised; or they come one by one, and each changes the scope by its number. A fold is
    # without a gradient, and each of its runs a separate evaluation: sites are simply drawn, and minibatches are others.
    def in_turn(self, scope: Scope, n: int) -> Callable[[int], Mapping[str, Any]]: ...
    def separate_evaluation(self, session: S, key: Any, i: Any) -> Context: ...
    def stacked(self, trees: Sequence[Any]) -> Any: ...
    def repeated(self, tree: Any, n: int) -> Any: ...


class Marks(Protocol):
    """An engine's markers: identities on their first array that the compiler or the checks look for.

    Of a site the other inputs are what `info` says they are. Of a density they are its value, the bounds of the support that
    are arrays, and last what its `masses` say.
    """

    def mark_site(self, info: SiteInfo, key: Any, inputs: Sequence[Array]) -> Array: ...
    def mark_note(self, value: Array, note: Note, *others: Array) -> Array: ...


class Bodies(Protocol):
    """What answers for sites while a program is traced whole, whose bodies' values cannot leave them: what stands for the
    value that a site is given from outside, and the value that the program goes on with once a site is recorded."""

    def place(self, site: Site, value: Array, role: str, where: str) -> Array: ...
    def record(self, record: SiteRecord, arrays: Arrays) -> Array: ...
