"""Strategies that learn: their states go down a gradient of their own after each use, by torch.optim's rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ppvi.compiler.plan import Plan, initial_states
from ppvi.pyro._ops import OPS
from ppvi.pyro._trees import gradients, tree_leaves, tree_map
from ppvi.strategies import Strategy


class States(NamedTuple):
    """What strategies have learned: leaves, which an update changes in place."""

    values: dict[str, Any]
    """Site -> the strategy's state."""
    rules: dict[str, torch.optim.Optimizer]
    """Site -> the optimiser that moves it."""
    learners: Mapping[str, Strategy]
    """Site -> the strategy."""


NOTHING_LEARNS = States({}, {}, {})


def first_states(plan: Plan | None) -> States:
    """The states before the first gradient; none for an objective that has no plan."""
    if plan is None:
        return NOTHING_LEARNS
    learners = {name: plan.choices[site].strategy for name, site in plan.stateful.items()}
    values = tree_map(lambda x: torch.as_tensor(x).clone().requires_grad_(), initial_states(plan, OPS))
    return States(values, {name: _rule(s, tree_leaves(values[name])) for name, s in learners.items()}, learners)


def value_and_grads(
    surrogate: Callable[[dict[str, Any]], torch.Tensor], params: Sequence[torch.Tensor], states: States
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The estimate and its gradient with the states as they are, which then learn from it.

    **Arguments**

    - `surrogate`: a function of the states' values, and through them of the parameters.
    """
    by_variance = {name for name, strategy in states.learners.items() if strategy.learns_from == "variance"}
    spread = [x for name in by_variance for x in tree_leaves(states.values[name])]
    down = [x for name in states.learners.keys() - by_variance for x in tree_leaves(states.values[name])]
    value = surrogate(states.values)
    grads = gradients(value, [*params, *down], again=bool(spread))
    for x, slope in zip(down, grads[len(params) :], strict=True):
        x.grad = slope.detach()
    grads = grads[: len(params)]
    if spread:
        half_square = torch.stack([(g**2).sum() for g in grads]).sum() / 2
        for x, slope in zip(spread, gradients(half_square, spread), strict=True):
            x.grad = slope
    for rule in states.rules.values():
        rule.step()
    return value.detach(), [g.detach() for g in grads]


def _rule(strategy: Strategy, leaves: list[torch.Tensor]) -> torch.optim.Optimizer:
    kind, step_size = strategy.learning
    return {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[kind](leaves, lr=step_size)
