"""The parameters of a call, which are tensors."""

from __future__ import annotations

from collections.abc import Mapping

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
    return type(x) is not torch.Tensor and not x.requires_grad and isinstance(x, torch.nn.Parameter)
