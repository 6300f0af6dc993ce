"""Operations in place of ATen's, which have no derivative, or NaN for one; and functions in place of the libraries', which
write past autograd, where no graph can follow, or where a mask says, which `torch.vmap` cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import hmm
from pyro.ops import gaussian, tensor_utils
from torch.distributions import Geometric, Multinomial
from torch.distributions.utils import broadcast_all

from ppvi.pyro._compat import is_functorch_wrapped_tensor, validate


def _xlogy(x: Any, y: Any) -> torch.Tensor:
    """x log y, without the 0 / 0 that PyTorch has for a derivative where both are 0, as at a count of 0 of a rate of 0."""
    none = (torch.as_tensor(x) == 0) & (torch.as_tensor(y) == 0)
    inside = (torch.where(none, 1, torch.as_tensor(value)) for value in (x, y))
    return torch.where(none, 0, torch.xlogy(*inside))


def _hypot(x: Any, y: Any) -> torch.Tensor:
    """The hypotenuse, without the 0 / 0 that PyTorch has for a derivative where both sides are 0."""
    none = (torch.as_tensor(x) == 0) & (torch.as_tensor(y) == 0)
    return torch.where(none, 0, torch.hypot(torch.where(none, 1, x), torch.as_tensor(y)))


def _copy(x: torch.Tensor, other: torch.Tensor, *options: Any) -> torch.Tensor:
    """What a filling of memory in place becomes, for which PyTorch has no derivative."""
    return other.to(x.dtype).expand(x.shape).clone()


def _heaviside(x: Any, at_zero: Any) -> torch.Tensor:
    """A step, whose derivative is zero, and which PyTorch has none for."""
    return torch.where(torch.as_tensor(x) == 0, at_zero, (torch.as_tensor(x) > 0).to(torch.result_type(x, at_zero)))


def _floor_divide(x: Any, y: Any) -> torch.Tensor:
    """Steps, whose derivative is zero, and which PyTorch has none for."""
    return torch.div(x, y, rounding_mode="floor")


INSTEAD: dict[str, Callable[..., torch.Tensor]] = {
    "copy": _copy,
    "xlogy": _xlogy,
    "hypot": _hypot,
    "heaviside": _heaviside,
    "floor_divide": _floor_divide,
}
"""By ATen's name."""


def _safe_cholesky(x: torch.Tensor) -> torch.Tensor:
    """The Cholesky factor of a matrix with a jitter on its diagonal, which is a constant."""
    relative = tensor_utils.CHOLESKY_RELATIVE_JITTER
    if x.size(-1) == 1 or not relative:
        return _native(x)
    jitter = relative * torch.finfo(x.dtype).eps * x.detach().abs().max(-1).values
    return torch.linalg.cholesky(x + torch.diag_embed(jitter))


_native = tensor_utils.safe_cholesky

for module in (tensor_utils, gaussian, hmm):
    module.safe_cholesky = _safe_cholesky  # pyright: ignore[reportAttributeAccessIssue]


def _log_prob_of_counts(self: Multinomial, value: torch.Tensor) -> torch.Tensor:
    """That of `Multinomial`, in which a count of 0 of what has probability 0 is possible."""
    validate(self, value)
    logits, value = broadcast_all(self.logits, value)
    logits = torch.where((value == 0) & (logits == -math.inf), 0.0, logits)
    ways = torch.lgamma(value.sum(-1) + 1) - torch.lgamma(value + 1).sum(-1)
    return ways + (logits * value).sum(-1)


def _log_prob_of_tries(self: Geometric, value: torch.Tensor) -> torch.Tensor:
    """That of `Geometric`, in which no failure is possible of what has probability 1."""
    validate(self, value)
    value, probs = broadcast_all(value, self.probs)
    failing = torch.where((probs == 1) & (value == 0), 0.0, probs)
    return value * (-failing).log1p() + probs.log()


Multinomial.log_prob = _log_prob_of_counts
Geometric.log_prob = _log_prob_of_tries


def put(table: torch.Tensor, index: Any, value: Any) -> None:
    """`table[index] = value`, which `torch.vmap` can where a mask says where one number is put."""
    is_mask = isinstance(index, torch.Tensor) and index.dtype is torch.bool
    is_number = not isinstance(value, torch.Tensor) or value.ndim == 0
    if is_mask and is_number and any(map(is_functorch_wrapped_tensor, (table, index))):
        table.masked_fill_(index.reshape(*index.shape, *[1] * (table.ndim - index.ndim)), value)
    else:
        table[index] = value
