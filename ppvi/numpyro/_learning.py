"""Strategies that learn: their states go down a gradient of their own after each use, by optax's rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ppvi.compiler.plan import Plan, initial_states
from ppvi.numpyro._ops import OPS
from ppvi.strategies import Strategy

Learners = Mapping[str, Strategy]
"""The strategies that learn, by site."""


class States(NamedTuple):
    """What strategies have learned: arrays, to be carried from one gradient to the next."""

    values: dict[str, Any]
    """Site -> the strategy's state."""
    memories: dict[str, Any]
    """Site -> that of its optimiser."""
    modules: dict[str, Any] = {}  # noqa: RUF012  (never changed in place)
    """Mutable site -> what its module keeps beside parameters."""


def learners_of(plan: Plan) -> dict[str, Strategy]:
    """The strategies of a plan that learn."""
    return {name: plan.choices[site].strategy for name, site in plan.stateful.items()}


def first_states(plan: Plan) -> States:
    """The states before the first gradient."""
    values = jax.tree.map(jnp.asarray, initial_states(plan, OPS))
    rules = learners_of(plan)
    return States(values, {name: _rule(rules[name]).init(value) for name, value in values.items()})


def value_grad_and_states(
    surrogate: Callable[[Any, dict[str, Any]], jax.Array], learners: Learners, params: Any, states: States
) -> tuple[jax.Array, Any, States]:
    """The estimate and its gradient with the states as they are, and the states after they have learned from it.

    **Arguments**

    - `surrogate`: a function of the parameters and of the states' values.
    """
    if not learners:
        value, grads = jax.value_and_grad(surrogate)(params, states.values)
        return value, grads, states
    by_variance = {name for name, strategy in learners.items() if strategy.learns_from == "variance"}
    value, (grads, slopes) = jax.value_and_grad(surrogate, argnums=(0, 1))(params, states.values)
    if by_variance:

        def half_square(values: dict[str, Any]) -> jax.Array:
            gradient = jax.grad(surrogate)(params, values)
            return sum((jnp.sum(g**2) for g in jax.tree.leaves(gradient)), start=jnp.zeros(())) / 2

        spreads = jax.grad(half_square)(states.values)
        slopes = {name: spreads[name] if name in by_variance else slope for name, slope in slopes.items()}
    values, memories = {}, {}
    for name, slope in slopes.items():
        step, memories[name] = _rule(learners[name]).update(slope, states.memories[name])
        values[name] = optax.apply_updates(states.values[name], step)
    return value, grads, states._replace(values=values, memories=memories)


def _rule(strategy: Strategy) -> optax.GradientTransformation:
    kind, step_size = strategy.learning
    return {"sgd": optax.sgd, "adam": optax.adam}[kind](step_size)
