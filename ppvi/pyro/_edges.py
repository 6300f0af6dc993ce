"""Draws and densities near the ends of supports, where PyTorch's own are not finite.

The slope of a power y = x^e overflows where y / x does, though its logarithm, log|e| + (1 - 1/e) log y, does not. A draw is
moved inside of its support before; what is 0 inside of a transform is 1 less a number that has been rounded to 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import PowerTransform

from ppvi.engine.exchanged import Exchanged


def _power(self: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.exp(self.exponent * torch.log(torch.clamp(x, min=torch.finfo(x.dtype).tiny)))


def _log_slope(self: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    inside = torch.where(y == 0, torch.finfo(y.dtype).eps / 2, y)
    return torch.log(torch.abs(torch.as_tensor(self.exponent))) + (1 - 1 / self.exponent) * torch.log(inside)


_CAREFUL = Exchanged((PowerTransform, "_call", _power), (PowerTransform, "log_abs_det_jacobian", _log_slope))


def careful() -> Exchanged:
    """Distributions draw, and compute their densities, with care for the ends of their supports."""
    return _CAREFUL
