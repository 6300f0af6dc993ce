"""Where Pyro's distributions have mass: what `ppvi.engine.regions` asks of them, of their constraints and transforms."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch.distributions import AbsTransform, ComposeTransform, TransformedDistribution, constraints
from torch.distributions.independent import Independent

from ppvi.engine.regions import Region
from ppvi.ir import Support
from ppvi.pyro._compat import is_masked, tree_leaves
from ppvi.pyro._ops import OPS

_BOOLEAN = type(constraints.boolean)
_REALS = (
    type(constraints.real),
    constraints.interval,
    constraints.half_open_interval,
    constraints.greater_than,
    constraints.greater_than_eq,
    constraints.less_than,
)
_COUNTS = (_BOOLEAN, constraints.integer_interval, type(constraints.nonnegative_integer))


def peel(fn: Any) -> Any:
    """The distribution without masks, and with every axis of independence in its batch shape."""
    while isinstance(fn, Independent) or is_masked(fn):
        fn = fn.base_dist
    return fn


@functools.lru_cache(256)
def has_fixed_support(cls: type) -> bool:
    """Whether all distributions of a class have one support, of which no end is an array. That of those that transform others
    is an image, whatever the class declares."""
    support = getattr(cls, "support", None)
    is_one = isinstance(support, constraints.Constraint) and not isinstance(support, property)
    return is_one and not issubclass(cls, TransformedDistribution) and not LIBRARY.declared(support).bounds


def support_of(constraint: Any) -> Support:
    """What a constraint allows."""
    return LIBRARY.declared(constraint).support


def onto(fn: Any, how: Callable[[Any], Any]) -> Any:
    """A transform of the reals onto the support of a distribution, given how those of constraints are made."""
    fn = LIBRARY.unwrapped(fn)
    if LIBRARY.is_image(fn):
        return ComposeTransform([onto(fn.base_dist, how), *fn.transforms])
    return how(fn.support)


class Library:
    """`ppvi.engine.regions.Library` on Pyro."""

    ops = OPS

    def unwrapped(self, fn: Any) -> Any:
        while peel(fn) is not fn or type(fn).__name__ == "ExpandedDistribution":
            fn = fn.base_dist
        return fn

    def constraint(self, fn: Any) -> Any:
        try:
            return fn.support
        except NotImplementedError:
            return None

    def number(self, x: Any) -> Any:
        return x if isinstance(x, torch.Tensor) else float(x)

    def declared(self, constraint: Any) -> Region:
        while isinstance(constraint, constraints.independent):
            constraint = constraint.base_constraint
        name = type(constraint).__name__.strip("_").lower()
        if not isinstance(constraint, _REALS + _COUNTS):
            return Region(name, others=tuple(self.arrays(constraint)))
        lower, upper = (0.0, 1.0) if isinstance(constraint, _BOOLEAN) else (-math.inf, math.inf)
        ends = (getattr(constraint, f"{side}_bound", x) for side, x in (("lower", lower), ("upper", upper)))
        return Region(name, "real" if isinstance(constraint, _REALS) else "integer", *map(self.number, ends))

    def is_image(self, fn: Any) -> bool:
        if not isinstance(fn, TransformedDistribution):
            return False
        return type(fn).support is TransformedDistribution.support or isinstance(fn.transforms[-1], AbsTransform)

    def applied(self, transform: Any, x: Any) -> Any:
        return transform(torch.as_tensor(x, dtype=torch.get_default_dtype()))

    def arrays(self, transform: Any) -> list[torch.Tensor]:
        own = {name: x for name, x in vars(transform).items() if not name.startswith("_cached")}
        learnt = list(transform.parameters()) if isinstance(transform, torch.nn.Module) else []
        return [x for x in (*tree_leaves(own), *learnt) if isinstance(x, torch.Tensor)]

    def sign(self, transform: Any) -> Any:
        try:
            return self.number(transform.sign)
        except NotImplementedError:
            return None


LIBRARY = Library()
