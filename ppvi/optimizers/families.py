"""Exponential families: how far a step in natural parameters may go, and where it leads.

With natural parameters l and mean parameters m of q, F dl = dm: the natural gradient in l is the ordinary gradient in m
(Khan and Nielsen 2018, section 3), so that no Fisher matrix is inverted where m is at hand. A step l + r * slope_m is taken
in a family's own arguments, as the arguments see it, without differences of large numbers.
"""

from __future__ import annotations

import math
from typing import Protocol

from ppvi._ops import Array
from ppvi.optimizers.algebra import Algebra
from ppvi.optimizers.base import Arguments


class Family(Protocol):
    """One parametrisation of an exponential family. Lanes are the leading axes of everything."""

    @property
    def arguments(self) -> tuple[str, ...]: ...

    @property
    def event(self) -> int:
        """How many axes of the argument that has most are an event's."""
        ...

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        """slope' F^-1 slope, by lane: the squared length of the natural gradient, twice the divergence of a small unit step."""
        ...

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        """The step sizes below which natural parameters stay inside their space, by lane."""
        ...

    def moved(self, at: Arguments, slope: Arguments, rate: Array, algebra: Algebra) -> Arguments:
        """The arguments after a step of these sizes, by lane."""
        ...


class Normal:
    """l = (loc / scale^2, -1 / (2 scale^2)); the precision times 1 - r * scale * slope, and Bonnet and Price's rule for loc."""

    arguments = ("loc", "scale")
    event = 0

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        return (at["scale"] * slope["loc"]) ** 2 + (at["scale"] * slope["scale"]) ** 2 / 2

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        return _below(at["scale"] * slope["scale"], algebra)

    def moved(self, at: Arguments, slope: Arguments, rate: Array, algebra: Algebra) -> Arguments:
        loc, scale = at["loc"], at["scale"]
        new = scale / algebra.sqrt(1 - rate * scale * slope["scale"])
        return {"loc": loc + rate * new**2 * slope["loc"], "scale": new}


class MultivariateNormal:
    """The same with matrices, in the coordinates in which q is standard.

    With L = scale_tril and the slope in the covariance L^-T S L^-1 / 2, where S = P + P' and P is the lower triangle of
    L' slope_L with half its diagonal (Murray 2016), the precision becomes L^-T (I - r S) L^-1.
    """

    arguments = ("loc", "scale_tril")
    event = 2

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        along = algebra.transpose(at["scale_tril"]) @ slope["loc"][..., None]
        return algebra.sum(along**2, (-2, -1)) + algebra.sum(self._whitened(at, slope, algebra) ** 2, (-2, -1)) / 2

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        return _below(algebra.eigenvalues(self._whitened(at, slope, algebra))[..., -1], algebra)

    def moved(self, at: Arguments, slope: Arguments, rate: Array, algebra: Algebra) -> Arguments:
        loc, factor = at["loc"], at["scale_tril"]
        precision = algebra.eye(loc.shape[-1], loc) - rate[..., None, None] * self._whitened(at, slope, algebra)
        upper = algebra.flip(algebra.cholesky(algebra.flip(precision)))  # precision = upper upper'
        new = factor @ algebra.solve_lower(algebra.transpose(upper), algebra.eye(loc.shape[-1], loc))
        along = new @ (algebra.transpose(new) @ slope["loc"][..., None])
        return {"loc": loc + rate[..., None] * along[..., 0], "scale_tril": algebra.tril(new)}

    def _whitened(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        lower = algebra.tril(algebra.transpose(at["scale_tril"]) @ slope["scale_tril"])
        return lower + algebra.transpose(lower) - lower * algebra.eye(lower.shape[-1], lower)


def _below(decrease: Array, algebra: Algebra) -> Array:
    """The step sizes r for which 1 - r * decrease is positive."""
    falls = decrease > 0
    return algebra.where(falls, 1 / algebra.where(falls, decrease, 1.0), math.inf)


FAMILIES: dict[str, Family] = {"Normal": Normal(), "MultivariateNormal": MultivariateNormal()}
"""By the name of the distribution."""
