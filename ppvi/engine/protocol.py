"""What an engine provides, on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from ppvi.checks.paths import Paths
from ppvi.checks.unbiased import Draws
from ppvi.compiler.explain import Explanation
from ppvi.compiler.findings import StaticReport
from ppvi.compiler.plan import Plan
from ppvi.engine.formula import Formula
from ppvi.engine.outcomes import Outcomes
from ppvi.engine.runs import Handle
from ppvi.ops import Array

Params = dict[str, Any]
"""Name -> constrained value: an array, or a tree of arrays for a module."""

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


class Estimator(Protocol):
    """What an engine makes of an objective: stagings, plans and compiled functions, by the kind of call.

    Verbs that `ppvi.objective.Objective` has too are documented there.
    """

    formula: Formula

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
        self, key: Any, params: Params, args: Args, kwargs: Kwargs, n: int, function: Callable[[Handle, Handle], Any]
    ) -> Any:
        """`n` plain runs of a function of the two handles, as NumPy arrays with a leading axis."""
        ...

    def in_format(self, x: Any, dtype: str) -> Array:
        """Numbers from NumPy in the framework's format of this name."""
        ...

    def another(self, key: Any) -> Any:
        """A key that is not used by what was done with this one."""
        ...

    # The check ----------------------------------------------------------------------------------------------------------

    def untouched(self) -> AbstractContextManager[None]:
        """Around what is to leave the programs' modules as they are."""
        ...

    def begun(self, key: Any, params: Params, args: Args, kwargs: Kwargs) -> Start:
        """The parameters that are declared with a value; the others are given."""
        ...

    def gradients(self, key: Any, params: Params, args: Args, kwargs: Kwargs, start: Start) -> Gradients: ...

    def outcomes(self, params: Params, args: Args, kwargs: Kwargs, limit: int, seconds: float) -> Outcomes:
        """Every outcome of the estimator.

        **Raises** `EndlessError` where they are infinitely many, or more than the limit or the seconds allow.
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
