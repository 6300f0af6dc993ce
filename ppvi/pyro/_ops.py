"""`ppvi._ops.Ops` on PyTorch."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from ppvi.ir import Origin
from ppvi.pyro._compat import level
from ppvi.pyro._located import noting, within
from ppvi.pyro._trees import stacked, tree_leaves, tree_map, vmap
from ppvi.strategies.zero import NEGLIGIBLE

HIGHEST = 80.0
"""The logarithm of about the largest number of single precision."""


class TorchOps:
    """PyTorch's side of the protocol."""

    def exp(self, x: torch.Tensor) -> torch.Tensor:
        return torch.exp(x)

    def log(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x)

    def sum(self, x: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
        return torch.sum(x, dim=tuple(axes)) if len(axes) else x

    def mean(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        return torch.mean(x, dim=axis)

    def logsumexp(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        return torch.logsumexp(x, dim=axis)

    def log_sum(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        held = self.cancelling(x)
        w = None if weights is None else self.cancelling(weights)
        counts = held if w is None else torch.where((w > NEGLIGIBLE) | ((w > 0) & (held < math.inf)), held, -math.inf)
        top = torch.amax(counts, dim=0)
        top = torch.where(top == -math.inf, 0.0, top)
        if weights is None or w is None:
            total = torch.exp(x - top).sum(0)
        else:
            # A value of weight zero may be likelier than all others by more than an exponential can hold, or be no number.
            ahead = held - top
            usual = (w > NEGLIGIBLE) | (ahead <= HIGHEST)
            total = (
                weights * torch.exp(torch.where(usual, x - top, torch.where(ahead > HIGHEST, HIGHEST, -math.inf)))
            ).sum(0)
        possible = self.cancelling(total) != 0
        return torch.where(possible, torch.log(torch.where(possible, total, 1.0)) + top, -math.inf)

    def logaddexp(self, x: Any, y: Any) -> torch.Tensor:
        return torch.logaddexp(torch.as_tensor(x), torch.as_tensor(y))

    def max(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        return torch.amax(x, dim=axis)

    def cumsum(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        return torch.cumsum(x, dim=axis)

    def argsort(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        return torch.argsort(x, dim=axis, stable=True)

    def reshape(self, x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        return torch.reshape(x, tuple(shape))

    def transpose(self, x: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
        return torch.permute(x, tuple(axes))

    def broadcast(self, x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        return x.expand(tuple(shape))

    def concatenate(self, xs: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat(list(xs))

    def stack(self, xs: Sequence[Any]) -> torch.Tensor:
        return torch.stack(torch.broadcast_tensors(*(torch.as_tensor(x) for x in xs)))

    def tree_map(self, function: Callable[..., torch.Tensor], *trees: Any) -> Any:
        return tree_map(function, *trees)

    def moveaxis(self, x: torch.Tensor, source: int, target: int) -> torch.Tensor:
        return torch.movedim(x, source, target)

    def choose(self, values: torch.Tensor, index: Any) -> torch.Tensor:
        index = torch.as_tensor(index, device=values.device)
        index = index.reshape(index.shape + (1,) * (values.ndim - index.ndim))
        return torch.take_along_dim(values, index.expand(index.shape[0], *values.shape[1:]), 0)

    def zeros(self, shape: Sequence[int], like: torch.Tensor | None = None) -> torch.Tensor:
        return torch.zeros(tuple(shape)) if like is None else like.new_zeros(tuple(shape))

    def scan(
        self,
        step: Callable[[torch.Tensor, Sequence[torch.Tensor]], torch.Tensor],
        start: torch.Tensor,
        xs: Sequence[torch.Tensor],
        n: int,
        backward: bool,
    ) -> torch.Tensor:
        for i in reversed(range(n)) if backward else range(n):
            start = step(start, [x[i] for x in xs])
        return start

    def constant(self, x: np.ndarray, dtype: str) -> torch.Tensor:
        return torch.as_tensor(x).to(getattr(torch, dtype))

    def array(self, x: Any) -> torch.Tensor:
        return torch.as_tensor(x, dtype=torch.get_default_dtype())

    def stop_gradient(self, x: Any) -> torch.Tensor:
        return x.detach() if isinstance(x, torch.Tensor) else torch.tensor(x)

    def cancelling(self, x: torch.Tensor) -> torch.Tensor:
        with within(Origin.SUM), noting(origin=Origin.SUM):
            return x.detach()

    def linear_coefficients(
        self, function: Callable[..., torch.Tensor], arguments: Sequence[tuple[Sequence[int], str]]
    ) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        types = [getattr(torch, name.removeprefix("torch.")) for _, name in arguments]
        reals = [t if t.is_floating_point else torch.get_default_dtype() for t in types]
        zeros = [torch.zeros(tuple(shape), dtype=t) for (shape, _), t in zip(arguments, reals, strict=True)]
        if not zeros:
            return torch.as_tensor(function()), ()
        if level():
            constant, pull, *_ = torch.func.vjp(function, *zeros)
            return constant, pull(torch.ones_like(constant))
        with torch.enable_grad():  # a transformation of functions refuses to be within a checkpoint
            constant = function(*(x.requires_grad_() for x in zeros))
            options: dict[str, Any] = {"create_graph": True, "materialize_grads": True}
            return constant, torch.autograd.grad(constant, zeros, torch.ones_like(constant), **options)

    def where(self, condition: torch.Tensor, x: Any, y: Any) -> torch.Tensor:
        return torch.where(torch.as_tensor(condition), x, y)

    def vmap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return vmap(function)

    def one_by_one(self, function: Callable[..., Any]) -> Callable[..., Any]:
        # A transformation of functions cannot forget what was saved for a gradient.
        plain = bool(level())

        def run(*entry: Any) -> Any:
            return function(*entry) if plain else checkpoint(function, *entry, use_reentrant=False)

        def looped(*args: Any) -> Any:
            n = len(tree_leaves(args)[0])
            return stacked(*(run(*tree_map(operator.itemgetter(i), args)) for i in range(n)))

        return looped


OPS = TorchOps()
