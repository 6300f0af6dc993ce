"""Where NumPyro's distributions have mass: what `ppvi.engine.regions` asks of them, of their constraints and transforms."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.distribution import ExpandedDistribution, Independent, MaskedDistribution
from numpyro.distributions.transforms import AbsTransform, ComposeTransform

from ppvi.engine.regions import Region
from ppvi.ir import Support
from ppvi.numpyro._ops import OPS

_BOOLEAN = type(constraints.boolean)
_REALS = (type(constraints.real), constraints.interval, constraints.greater_than, constraints.less_than)
_INTEGERS = (_BOOLEAN, constraints.integer_interval, constraints.integer_greater_than)


def base(fn: dist.Distribution) -> dist.Distribution:
    """The distribution that a person would name."""
    while isinstance(fn, MaskedDistribution | Independent | ExpandedDistribution):
        fn = fn.base_dist
    return fn


def support_of(constraint: Any) -> Support:
    """What a constraint allows."""
    return LIBRARY.declared(constraint).support


def onto(fn: Any) -> Any:
    """A transform of the reals onto the support of a distribution."""
    fn = base(fn)
    if LIBRARY.is_image(fn):
        return ComposeTransform([onto(fn.base_dist), *fn.transforms])
    return biject_to(LIBRARY.constraint(fn))


class Library:
    """`ppvi.engine.regions.Library` on NumPyro."""

    ops = OPS

    def unwrapped(self, fn: Any) -> Any:
        return base(fn)

    def constraint(self, fn: Any) -> Any:
        return fn.support

    def number(self, x: Any) -> Any:
        if isinstance(x, jax.Array):
            return x
        return float(np.reshape(x, ())) if np.size(x) == 1 else jnp.asarray(x)

    def declared(self, constraint: Any) -> Region:
        while isinstance(constraint, constraints.independent):
            constraint = constraint.base_constraint
        name = type(constraint).__name__.strip("_")
        if not isinstance(constraint, _REALS + _INTEGERS):
            return Region(name, others=tuple(self.arrays(constraint)))
        lower, upper = (0.0, 1.0) if isinstance(constraint, _BOOLEAN) else (-math.inf, math.inf)
        ends = (getattr(constraint, f"{side}_bound", x) for side, x in (("lower", lower), ("upper", upper)))
        return Region(name, "real" if isinstance(constraint, _REALS) else "integer", *map(self.number, ends))

    def is_image(self, fn: Any) -> bool:
        if not isinstance(fn, dist.TransformedDistribution):
            return False
        return type(fn).support is dist.TransformedDistribution.support or isinstance(fn.transforms[-1], AbsTransform)

    def applied(self, transform: Any, x: Any) -> Any:
        if self.arrays((transform, x)):
            return transform(x)
        with jax.ensure_compile_time_eval():
            return float(transform(x))

    def arrays(self, transform: Any) -> list[jax.Array]:
        return [x for x in jax.tree.leaves(transform) if isinstance(x, jax.Array)]

    def sign(self, transform: Any) -> Any:
        try:
            if self.arrays(transform):
                return transform.sign
            with jax.ensure_compile_time_eval():
                return float(transform.sign)
        except NotImplementedError:
            return None


LIBRARY = Library()
