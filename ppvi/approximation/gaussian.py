"""The Gaussian that is nearest to a density in reverse Kullback-Leibler divergence, by averages over fixed points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ppvi.approximation.descent import descending, together
from ppvi.approximation.families import Family
from ppvi.approximation.modes import Each, lower
from ppvi.approximation.scales import entropy, log_det, pulled, stretched, whitened

STEEP = 0.05
"""The slope of the bound, by a standard deviation, that is taken for none."""


WIDEST = 1.0
"""By how much the logarithm of a scale changes in one step: what is much wider than the density draws where differential
equations take long to solve."""

NEAR = 5.0
"""Means, in standard deviations, and logarithms of scales, up to which a bound that is not finite tells of the density."""


class LostDensityError(ArithmeticError):
    """A density is not finite where points of the approximation are."""


class Begun(NamedTuple):
    """A place and a scale, triangular or diagonal, that a fit begins from."""

    loc: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class Gaussian:
    """N(loc, S S') with S a Cholesky factor, or N(loc, D (I + A A') D) with D diagonal.

    **Attributes**

    - `loc`: `(dimension,)`.
    - `scale`: S, `(dimension, dimension)`, or the diagonal of D, `(dimension,)`.
    - `factor`: A, `(dimension, rank)`; None of a full covariance.
    - `losses`: minus the bound, averaged over the points, after each step; where none was to be taken, at the start.
    - `settled`: whether it is at the top: the last steps have changed nothing and the slope is none. Else the steps were not
      enough, or there is none, where the density is zero in places that a Gaussian has, or does not fall.
    - `lost`: how many of the bounds on the way were not finite near the beginning.
    """

    loc: np.ndarray
    scale: np.ndarray
    factor: np.ndarray | None
    losses: np.ndarray
    settled: bool
    lost: int

    @property
    def begun(self) -> Begun:
        """To begin from, in units of the scale, without the factor."""
        return Begun(self.loc, self.scale)

    @property
    def rank(self) -> int | None:
        """Columns of A; None of a full covariance."""
        return None if self.factor is None else self.factor.shape[1]

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """At each point, of a full covariance, but for a constant."""
        away = whitened(self.scale, points - self.loc)
        return -(away**2).sum(-1) / 2 - log_det(self.scale)

    def slopes(self, points: np.ndarray) -> np.ndarray:
        """Of the log density at each point, of a full covariance."""
        return -np.linalg.solve(self.scale.T, whitened(self.scale, points - self.loc).T).T

    def ordered(self, place: np.ndarray) -> Gaussian:
        """With its coordinates in another order."""
        if self.factor is None:
            return replace(self, loc=self.loc[place], scale=lower(self.scale[place]))
        return replace(self, loc=self.loc[place], scale=self.scale[place], factor=self.factor[place])


def points_of(family: Family, count: int, seed: int) -> np.ndarray:
    """Points of the standard normal distribution, `(count, noise)`, in pairs x, -x, from a scrambled Sobol' sequence, or where
    they are fewer than the dimensions, independent ones.

    They have mean 0, variances 1, and of the joint coordinates no correlation with any to rounding, so that averages of
    quadratic functions over them are exact for a full covariance: the approximation of a Gaussian by a Gaussian has no error.
    Owen 1998; the correction of moments of the sample.
    """
    from scipy.special import ndtri
    from scipy.stats import qmc

    half = max(count // 2, family.joint + 1)
    if family.joint == family.noise:
        uniform = qmc.Sobol(family.noise, rng=seed).random_base2(int(np.ceil(np.log2(half))))
        normal = ndtri(np.clip(uniform, 1e-12, 1 - 1e-12))
    else:
        normal = np.random.default_rng(seed).standard_normal((half, family.noise))
    joint, others = np.split(normal, [family.joint], axis=1)
    joint = np.linalg.solve(np.linalg.cholesky(joint.T @ joint / len(joint)), joint.T).T
    others = others - joint @ (joint.T @ others / len(joint))
    half_points = np.concatenate([joint, others / np.sqrt((others**2).mean(0))], axis=1)
    return np.concatenate([half_points, -half_points])


def fitted(
    each: Each, begun: Begun, family: Family, points: np.ndarray, num_steps: int = 500, least: float = 1e-10
) -> Gaussian:
    """Maximise the bound's average over fixed points e_i, in coordinates where what is begun from is N(0, I),

        (1 / n) sum_i log p(m + S e_i) + log det S + d (1 + log 2 pi) / 2,

    over a family's m and S, from where its vector is 0, by L-BFGS: a deterministic problem with an end. Sample average
    approximation: Giordano, Ingram and Broderick 2024, there with independent points.
    """
    lost: list[bool] = []

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        values, slopes = each(begun.loc + stretched(begun.scale, family.draws(x, points)))
        value = float(values.mean())
        if not (np.isfinite(value) and np.isfinite(slopes).all()):
            lost.append(bool(np.abs(x).max() < NEAR))
            return np.inf, np.zeros_like(x)
        log_det, slope = family.bound(x, points, pulled(begun.scale, slopes))
        return -value - log_det, -slope

    def losses(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, slopes = zip(*map(loss, points), strict=True)
        return np.array(values), np.stack(slopes)

    start = np.zeros(family.size)
    with np.errstate(all="ignore"):
        for _ in range(20):  # where the curvature promises more room than there is
            if np.isfinite(loss(start)[0]):
                break
            start = start - np.log(2) * family.is_log
        else:
            raise LostDensityError
        reach = np.where(family.is_log, WIDEST, np.inf)
        (found,) = together(
            [descending(start, steps=num_steps, memory=30, flat=1e-4, least=least, reach=reach)], losses
        )
    settled = found.settled and float(np.abs(found.slope).max()) < STEEP
    course = found.losses[min(1, len(found.losses) - 1) :] - entropy(begun.scale)
    loc, scale, factor = family.scaled(found.point, begun.scale)
    return Gaussian(begun.loc + loc, scale, factor, course, settled, sum(lost))
