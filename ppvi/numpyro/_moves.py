"""What one objective does in a step of a fit on JAX, and how its optimiser moves its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import jax
import optax

from ppvi.engine.protocol import Params
from ppvi.numpyro._engine import Estimator
from ppvi.numpyro._learning import Learners, States, value_grad_and_states

Constrain = Callable[[Params], Params]


class Surroundings(NamedTuple):
    """Of a step, beside the gradient."""

    key: jax.Array
    step: jax.Array
    """How many were taken before."""
    params: Params
    """All unconstrained parameters."""
    constrain: Constrain
    modules: dict[str, Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Rule(Protocol):
    """An optimiser as a step asks for it. Parameters are the unconstrained ones that it moves."""

    @property
    def explained(self) -> tuple[str, ...]:
        """How each parameter is moved and why, where it is not by its gradient alone."""
        ...

    @property
    def alone(self) -> Rule:
        """It, with something else in place of what its updates run of the user's programs."""
        ...

    def init(self, mine: Params) -> Any:
        """What it remembers before the first step."""
        ...

    def coordinates(self, mine: Params) -> Params:
        """In which the gradient is taken."""
        ...

    def constrained(self, at: Params, others: Params, constrain: Constrain) -> Params:
        """Constrained values of all parameters, of which these coordinates are its own."""
        ...

    def update(self, slope: Params, memory: Any, mine: Params, around: Surroundings) -> tuple[Params, Any]:
        """The parameters after a step up these slopes, and what is remembered."""
        ...


@dataclass(frozen=True)
class Plain:
    """An optimiser of numbers, in unconstrained space."""

    rule: optax.GradientTransformation
    explained: tuple[str, ...] = ()

    @property
    def alone(self) -> Plain:
        return self

    def init(self, mine: Params) -> Any:
        return self.rule.init(mine)

    def coordinates(self, mine: Params) -> Params:
        return mine

    def constrained(self, at: Params, others: Params, constrain: Constrain) -> Params:
        return constrain(others | at)

    def update(self, slope: Params, memory: Any, mine: Params, around: Surroundings) -> tuple[Params, Any]:
        updates, memory = self.rule.update(jax.tree.map(lambda g: -g, slope), memory, mine)
        return cast(Params, optax.apply_updates(mine, updates)), memory


@dataclass(frozen=True)
class Move:
    """What one objective does in a step: a gradient step of its own parameters."""

    bound: Estimator
    names: tuple[str, ...]
    rule: Rule
    learners: Learners

    def mine(self, params: Params) -> Params:
        return {name: params[name] for name in self.names}

    def updated(self, memory: Any, around: Surroundings) -> Any:
        """What a step does beside programs of the user's: coordinates stand for the gradient, which has their shapes."""
        mine, rule = self.mine(around.params), self.rule.alone
        at = rule.coordinates(mine)
        return at, rule.update(at, memory, mine, around)

    def step(
        self, around: Surroundings, memory: Any, states: States
    ) -> tuple[jax.Array, Params, Any, States, dict[str, Any]]:
        """The loss; the parameters, the optimiser's memory, the strategies' states and those of modules after the step."""
        key, _, params, constrain, modules, args, kwargs = around

        def surrogate(at: Params, values: dict[str, Any]) -> jax.Array:
            at = self.rule.constrained(at, params, constrain)
            return self.bound.surrogate_in(values, key, at | modules, args, kwargs)

        mine, sign = self.mine(params), 1 if self.bound.formula.maximize else -1
        value, grads, states = value_grad_and_states(surrogate, self.learners, self.rule.coordinates(mine), states)
        mine, memory = self.rule.update(jax.tree.map(lambda g: sign * g, grads), memory, mine, around)
        after = self.bound.moved(key, constrain(params) | modules, args, kwargs) if modules else {}
        return -sign * value, params | mine, memory, states, modules | after
