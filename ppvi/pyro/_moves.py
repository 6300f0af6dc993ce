"""What one objective does in a step of a fit on PyTorch, and what moves its parameters."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ppvi.engine import training
from ppvi.engine.geometry import refuse_misused
from ppvi.engine.protocol import Args, Kwargs, Start
from ppvi.optimizers.base import Geometric
from ppvi.pyro._engine import Estimator
from ppvi.pyro._geometry import Blockwise, parts_of
from ppvi.pyro._keys import seeded
from ppvi.pyro._learning import States, value_and_grads
from ppvi.pyro._memories import Memory, memory_of
from ppvi.pyro._unconstrained import Unconstrained, pulled


@dataclass(frozen=True)
class Move:
    """What one objective does in a step: a gradient step of its own parameters."""

    bound: Estimator
    space: Unconstrained
    """All parameters."""
    leaves: Mapping[str, torch.Tensor]
    """Its own parameters, unconstrained."""
    memory: Memory | Blockwise
    """The optimiser's."""
    states: States
    learned: Memory
    """That of the strategies' own optimisers."""

    def gradient(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The objective's estimate, and its gradient in its own parameters, unconstrained."""
        if self.states.values:
            params = self.space.differentiable()
            return value_and_grads(
                lambda values: self.bound.surrogate_in(values, None, params, args, kwargs),
                list(self.leaves.values()),
                self.states,
            )
        values, steps = self.space.values()
        value, slopes = self.bound.value_and_grad(None, values, *args, **kwargs)
        slopes = pulled(slopes, {name: each for name, each in steps.items() if name in self.leaves})
        return value, [slopes[name] for name in self.leaves]

    def move(self, grads: Sequence[torch.Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for leaf, grad in zip(self.leaves.values(), grads, strict=True):
            leaf.grad = -grad if self.bound.formula.maximize else grad
        self.memory.step(args, kwargs)
        for leaf in self.leaves.values():
            leaf.grad = None


def moving(
    optimizer: Any,
    begun: training.Beginning,
    bound: Estimator,
    start: Start,
    names: Sequence[str],
    leaves: Mapping[str, torch.Tensor],
    args: Args,
    kwargs: Kwargs,
    shared: bool,
) -> Memory | Blockwise:
    """What moves the parameters of these names, by an optimiser as a user gives it.

    **Arguments**

    - `leaves`: all parameters, unconstrained.
    - `shared`: whether processes share the fit.
    """
    refuse_misused(optimizer)
    if not isinstance(optimizer, Geometric):
        return memory_of(_maker(optimizer), [leaves[name] for name in names])
    with seeded(0):
        parts = parts_of(optimizer, bound, start, names, leaves, begun.constrained, args, kwargs, shared)
    rest = memory_of(_maker(optimizer.rest), [leaves[name] for name in parts.rest]) if parts.rest else None
    return Blockwise(optimizer, parts, bound, leaves, begun.constrained, begun.transforms, rest)


def _maker(optimizer: Any) -> Any:
    step_size = training.step_size_of(optimizer)
    return optimizer if step_size is None else functools.partial(torch.optim.Adam, lr=step_size)
