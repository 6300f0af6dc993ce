"""What one objective does in a step of a fit on JAX, and how its optimiser moves its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import jax
import optax

from ppvi.engine.protocol import Params
from ppvi.numpyro._engine import Estimator
from ppvi.numpyro._learning import Learners, States, value_grad_and_states

Constrain = Callable[[Params], Params]


class Rule(Protocol):
    """An optimiser as a step asks for it. Parameters are the unconstrained ones that it moves."""

    def init(self, mine: Params) -> Any:
        """What it remembers before the first step."""
        ...

    def coordinates(self, mine: Params) -> Params:
        """In which the gradient is taken."""
        ...

    def constrained(self, at: Params, others: Params, constrain: Constrain) -> Params:
        """Constrained values of all parameters, of which these coordinates are its own."""
        ...

    def update(self, slope: Params, memory: Any, mine: Params, step: jax.Array) -> tuple[Params, Any]:
        """The parameters after a step up these slopes, and what is remembered."""
        ...


@dataclass(frozen=True)
class Plain:
    """An optimiser of numbers, in unconstrained space."""

    rule: optax.GradientTransformation

    def init(self, mine: Params) -> Any:
        return self.rule.init(mine)

    def coordinates(self, mine: Params) -> Params:
        return mine

    def constrained(self, at: Params, others: Params, constrain: Constrain) -> Params:
        return constrain(others | at)

    def update(self, slope: Params, memory: Any, mine: Params, step: jax.Array) -> tuple[Params, Any]:
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

    def updated(self, params: Params, memory: Any, step: jax.Array) -> Any:
        """What a step does beside the gradient, for which coordinates stand that have its shapes."""
        mine = self.mine(params)
        at = self.rule.coordinates(mine)
        return at, self.rule.update(at, memory, mine, step)

    def step(
        self,
        key: jax.Array,
        step: jax.Array,
        params: Params,
        memory: Any,
        states: States,
        constrain: Constrain,
        modules: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[jax.Array, Params, Any, States, dict[str, Any]]:
        """The loss; the parameters, the optimiser's memory, the strategies' states and those of modules after the step."""

        def surrogate(at: Params, values: dict[str, Any]) -> jax.Array:
            at = self.rule.constrained(at, params, constrain)
            return self.bound.surrogate_in(values, key, at | modules, args, kwargs)

        mine, sign = self.mine(params), 1 if self.bound.formula.maximize else -1
        value, grads, states = value_grad_and_states(surrogate, self.learners, self.rule.coordinates(mine), states)
        slope = jax.tree.map(lambda g: sign * g, grads)
        mine, memory = self.rule.update(slope, memory, mine, step)
        after = self.bound.moved(key, constrain(params) | modules, args, kwargs) if modules else {}
        return -sign * value, params | mine, memory, states, modules | after
