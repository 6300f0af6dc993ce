"""Baselines that learn: what is subtracted from a lane's credit before the score multiplies it.

A baseline is used, and only then learns from the credit that it has met, so that it never depends on the draw whose credit
it is subtracted from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from ppvi._doors import function, number
from ppvi._ops import Array, Ops
from ppvi.errors import StrategyError
from ppvi.strategies.base import Site


@runtime_checkable
class Baseline(Protocol):
    """b, in units of the objective. It learns by gradient steps on 1/2 (b - credit)^2, summed over the lanes."""

    @property
    def learning(self) -> tuple[Literal["sgd", "adam"], float]:
        """By which steps, and of which size."""
        ...

    def init(self, lanes: tuple[int, ...], ops: Ops) -> Any:
        """The state before the first gradient: a tree of arrays."""
        ...

    def __call__(self, site: Site) -> Array:
        """b for every lane of a site, by the state and perhaps by `site.inputs`."""
        ...


@dataclass(frozen=True)
class RunningMean:
    """The exponentially weighted mean of a lane's credit in the evaluations before, zero before the first.

        b <- decay b + (1 - decay) credit

    Mnih and Gregor 2014.
    """

    decay: float = 0.9

    def __post_init__(self) -> None:
        number("RunningMean: the decay", self.decay, least=0, below=1, error=StrategyError)

    @property
    def learning(self) -> tuple[Literal["sgd", "adam"], float]:
        return "sgd", 1 - self.decay

    def init(self, lanes: tuple[int, ...], ops: Ops) -> Array:
        return ops.zeros(lanes)

    def __call__(self, site: Site) -> Array:
        return site.state


@dataclass(frozen=True)
class NeuralBaseline:
    """A function of inputs, such as a neural network, fitted to the credit by least squares as the gradients come in.

    The inputs are what the site names by `infer={"baseline_input": x}`, of shape `(*lanes, ...)`: data, or sites drawn before.

    **Arguments**

    - `weights`: a function of nothing that returns the first weights, a tree of arrays.
    - `apply`: a function of weights and inputs that returns b, `(*lanes)`.
    - `step_size`: of Adam.

    Mnih and Gregor 2014.
    """

    weights: Callable[[], Any] = field(repr=False)
    apply: Callable[[Any, Array], Array] = field(repr=False)
    step_size: float = 1e-2

    def __post_init__(self) -> None:
        function("NeuralBaseline: weights", self.weights, error=StrategyError)
        function("NeuralBaseline: apply", self.apply, error=StrategyError)
        number("NeuralBaseline: the step size", self.step_size, above=0, error=StrategyError)

    @property
    def learning(self) -> tuple[Literal["sgd", "adam"], float]:
        return "adam", self.step_size

    def init(self, lanes: tuple[int, ...], ops: Ops) -> Any:
        return self.weights()

    def __call__(self, site: Site) -> Array:
        return self.apply(site.state, site.inputs)
