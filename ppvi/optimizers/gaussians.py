"""Gaussians, whose mean parameters are moments: the rules of Bonnet and Price, without a Fisher matrix.

Lin, Khan and Schmidt 2019, "Stein's lemma for the reparameterization trick with exponential family mixtures". A step multiplies
the precision, along each axis of the step, by 1 - rate * fall; `kept` is what becomes of that where it would be too small.
"""

from __future__ import annotations

from ppvi._ops import Array
from ppvi.optimizers.algebra import Algebra
from ppvi.optimizers.base import Arguments
from ppvi.optimizers.family import below


class Normal:
    """l = (loc / scale^2, -1 / (2 scale^2)); the precision times 1 - r * scale * slope, and Bonnet and Price's rule for loc."""

    arguments = ("loc", "scale")
    bends = True

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        return (at["scale"] * slope["loc"]) ** 2 + (at["scale"] * slope["scale"]) ** 2 / 2

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        return below(at["scale"] * slope["scale"], algebra)

    def moved(self, at: Arguments, slope: Arguments, rate: Array, bent: bool, algebra: Algebra) -> Arguments:
        loc, scale = at["loc"], at["scale"]
        new = scale / algebra.sqrt(kept(rate * scale * slope["scale"], bent, algebra))
        return {"loc": loc + rate * new**2 * slope["loc"], "scale": new}


class MultivariateNormal:
    """The same with matrices, in the coordinates in which q is standard.

    With L = scale_tril and the slope in the covariance L^-T S L^-1 / 2, where S = P + P' and P is the lower triangle of
    L' slope_L with half its diagonal (Murray 2016), the precision becomes L^-T (I - r S) L^-1.
    """

    arguments = ("loc", "scale_tril")
    bends = True

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        along = algebra.transpose(at["scale_tril"]) @ slope["loc"][..., None]
        return algebra.sum(along**2, (-2, -1)) + algebra.sum(whitened(at, slope, algebra) ** 2, (-2, -1)) / 2

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        return below(algebra.eigenvalues(whitened(at, slope, algebra))[..., -1], algebra)

    def moved(self, at: Arguments, slope: Arguments, rate: Array, bent: bool, algebra: Algebra) -> Arguments:
        loc, factor = at["loc"], at["scale_tril"]
        falls, axes = algebra.eigen(rate[..., None, None] * whitened(at, slope, algebra))
        precision = (axes * kept(falls, bent, algebra)[..., None, :]) @ algebra.transpose(axes)
        upper = algebra.flip(algebra.cholesky(algebra.flip(precision)))  # precision = upper upper'
        new = factor @ algebra.solve_lower(algebra.transpose(upper), algebra.eye(loc.shape[-1], loc))
        along = new @ (algebra.transpose(new) @ slope["loc"][..., None])
        return {"loc": loc + rate[..., None] * along[..., 0], "scale_tril": algebra.tril(new)}


def whitened(at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
    """Twice the slope in the covariance, in the coordinates in which q is standard; of the slope in the factor its lower
    triangle is enough (Murray 2016)."""
    lower = algebra.tril(algebra.transpose(at["scale_tril"]) @ slope["scale_tril"])
    return lower + algebra.transpose(lower) - lower * algebra.eye(lower.shape[-1], lower)


FLOOR = 0.5
"""The part of itself to which a precision may fall in a straight line, in steps that bend."""


def kept(fall: Array, bent: bool, algebra: Algebra) -> Array:
    """What precision is multiplied by: 1 - fall, and if bent, below the floor what goes on as a hyperbola, with the same
    slope."""
    if not bent:
        return 1 - fall
    beyond = algebra.maximum(fall - (1 - FLOOR), 0.0)
    return algebra.where(beyond > 0, FLOOR / (1 + beyond / FLOOR), 1 - fall)
