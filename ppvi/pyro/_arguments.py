"""The parameters of a call, which are tensors."""

from __future__ import annotations

import torch

from ppvi._doors import described
from ppvi.engine.arguments import named
from ppvi.errors import ProgramError

Params = dict[str, torch.Tensor]
"""Name -> constrained value. Where it belongs to a module it is the module's own `torch.nn.Parameter`."""


def checked(params: Params) -> Params:
    """Parameters, if they are."""
    for name, value in named(params).items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise ProgramError(
                f"parameter {name!r} is {described(value)}, and a gradient is of floating-point tensors: make it one."
            )
    return dict(params)


def is_frozen(x: torch.Tensor) -> bool:
    """Whether it is a module's parameter that is not to be trained."""
    return type(x) is not torch.Tensor and not x.requires_grad and isinstance(x, torch.nn.Parameter)
