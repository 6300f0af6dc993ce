"""Parameters in unconstrained space, where a fit moves them: their constrained values, and slopes in these as slopes in those.

A step is taken thousands of times, and autograd's tape for three exponentials takes as long as fifty operations: the
derivatives of the bijections that guides have most are written out, as autograd has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch.distributions.transforms import AffineTransform, ComposeTransform, ExpTransform, SoftplusTransform

from ppvi.pyro._arguments import Params


class Step(NamedTuple):
    """A bijection, what it was given, and what it gave."""

    bijection: Any
    x: torch.Tensor
    y: torch.Tensor


Steps = dict[str, list[Step]]
"""By parameter, the bijections that have made its value, the first of all first."""


class Unconstrained:
    """The leaves that a fit moves in place, and the bijections that take them into their constraints."""

    def __init__(self, leaves: Mapping[str, torch.Tensor], transforms: Mapping[str, Callable[[Any], Any]]):
        self.leaves, self.transforms = leaves, transforms

    def differentiable(self) -> Params:
        """Constrained values as functions of the leaves."""
        return {name: self.transforms[name](x) for name, x in self.leaves.items()}

    def values(self) -> tuple[Params, Steps]:
        """Constrained values, and how they came about."""
        found = {name: x.detach() for name, x in self.leaves.items()}
        steps: Steps = {name: [] for name in self._parts}
        for name, parts in self._parts.items():
            for part in parts:
                x, found[name] = found[name], part(found[name])
                steps[name].append(Step(part, x, found[name]))
        return found, steps

    @cached_property
    def _parts(self) -> dict[str, Sequence[Any]]:
        """The bijections of parameters that have a constraint."""
        found = {name: list(_parts_of(self.transforms[name])) for name in self.leaves}
        return {name: parts for name, parts in found.items() if parts}


def pulled(slopes: Params, steps: Steps) -> Params:
    """Slopes in the leaves, from those in the constrained values."""
    found = dict(slopes)
    for name, each in steps.items():
        for step in reversed(each):
            found[name] = SLOPES.get(type(step.bijection), _by_autograd)(step, found[name])
    return found


def _parts_of(bijection: Any) -> Iterator[Any]:
    """The bijections that one is made of, one after the other; none of what changes nothing."""
    if type(bijection) is ComposeTransform:
        for part in bijection.parts:
            yield from _parts_of(part)
    else:
        yield bijection


def _by_autograd(step: Step, slope: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        leaf = step.x.detach().requires_grad_()
        return torch.autograd.grad(step.bijection(leaf), leaf, slope)[0]


def _affine(step: Step, slope: torch.Tensor) -> torch.Tensor:
    scale = step.bijection.scale
    if isinstance(scale, torch.Tensor) or (step.x.shape, step.x.dtype) != (step.y.shape, step.y.dtype):
        return _by_autograd(step, slope)
    return slope if scale == 1 else slope * scale


SLOPES: dict[type, Callable[[Step, torch.Tensor], torch.Tensor]] = {
    AffineTransform: _affine,
    ExpTransform: lambda step, slope: slope * step.y,
    SoftplusTransform: lambda step, slope: torch.ops.aten.softplus_backward.default(slope, step.x, 1, 20),
}
"""By the bijection: from the slope in what it gave to that in what it was given."""
