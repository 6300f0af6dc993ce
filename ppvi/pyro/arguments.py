"""The parameters and arguments of a call: tensors, which are inputs of what is staged, and the rest, which is constant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ppvi.errors import ProgramError

Params = dict[str, torch.Tensor]
"""Name -> constrained value. Where it belongs to a module it is the module's own `torch.nn.Parameter`."""


def checked(params: Params) -> Params:
    """Parameters, if they are."""
    if not isinstance(params, Mapping):
        raise ProgramError(f"params must be a dict from parameter name to value, not {type(params).__name__}.")
    for name, value in params.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            found = value.dtype if isinstance(value, torch.Tensor) else f"type {type(value).__name__}"
            raise ProgramError(
                f"parameter {name!r} has {found}, which has no gradient: make it a floating-point tensor."
            )
    return dict(params)


def is_frozen(x: torch.Tensor) -> bool:
    """Whether it is a module's parameter that is not to be trained."""
    return isinstance(x, torch.nn.Parameter) and not x.requires_grad


def tensors_in(leaves: list[Any]) -> list[torch.Tensor]:
    """The tensors among the leaves of arguments."""
    return [x for x in leaves if isinstance(x, torch.Tensor)]


def hashable(leaf: Any) -> Any:
    """A leaf that is no tensor, if calls can be told apart by it."""
    try:
        hash(leaf)
    except TypeError:
        raise ProgramError(
            f"an argument holds {leaf!r}, of type {type(leaf).__name__}, which is neither a tensor nor hashable: pass tensors, "
            f"trees of tensors, or hashable constants."
        ) from None
    return leaf
