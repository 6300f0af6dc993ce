"""The Gaussian that is nearest to a density in reverse Kullback-Leibler divergence, by averages over fixed points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ppvi.approximation.descent import descending, together
from ppvi.approximation.modes import Density, Mode

STEEP = 0.05
"""The slope of the bound, by a standard deviation, that is taken for none."""


NEAR = 5.0
"""Means, in standard deviations, and logarithms of scales, up to which a bound that is not finite tells of the density."""


class LostDensityError(ArithmeticError):
    """A density is not finite where points of the approximation are."""


@dataclass(frozen=True)
class Gaussian:
    """N(loc, scale scale').

    **Attributes**

    - `loc`: `(dimension,)`.
    - `scale`: a Cholesky factor, `(dimension, dimension)`.
    - `losses`: minus the bound, averaged over the points, after each step; where none was to be taken, at the start.
    - `settled`: whether it is at the top: the last steps have changed nothing and the slope is none. Else the steps were not
      enough, or there is none, where the density is zero in places that a Gaussian has, or does not fall.
    - `lost`: how many of the bounds on the way were not finite near the mode.
    """

    loc: np.ndarray
    scale: np.ndarray
    losses: np.ndarray
    settled: bool
    lost: int


def points_of(dimension: int, count: int, seed: int) -> np.ndarray:
    """Points of the standard normal distribution, `(count, dimension)`, in pairs x, -x, from a scrambled Sobol' sequence.

    They have mean 0 and the covariance I to rounding, so that averages of quadratic functions over them are exact: the
    approximation of a Gaussian by a Gaussian has no error. Owen 1998; the correction of moments of the sample.
    """
    from scipy.special import ndtri
    from scipy.stats import qmc

    half = max(count // 2, dimension + 1)
    uniform = qmc.Sobol(dimension, rng=seed).random_base2(int(np.ceil(np.log2(half))))
    normal = ndtri(np.clip(uniform, 1e-12, 1 - 1e-12))
    points = np.concatenate([normal, -normal])
    return np.linalg.solve(np.linalg.cholesky(points.T @ points / len(points)), points.T).T


def fitted(density: Density, mode: Mode, points: np.ndarray, num_steps: int = 500) -> Gaussian:
    """Maximise the bound's average over fixed points e_i, in coordinates where the mode is 0 and its scale I,

        (1 / n) sum_i log p(m + S e_i) + log det S + d (1 + log 2 pi) / 2,

    over m and lower triangular S, by L-BFGS: a deterministic problem with an end. Its gradient is (mean of g_i, lower triangle
    of the mean of g_i e_i' + S^-T), with g_i the gradients of log p. Sample average approximation: Giordano, Ingram and
    Broderick 2024, there with independent points.
    """
    size = len(mode.point)
    lower, diagonal = np.tril_indices(size), np.diag_indices(size)
    lost: list[bool] = []

    def unpacked(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = np.zeros((size, size))
        scale[lower] = x[size:]
        scale[diagonal] = np.exp(scale[diagonal])
        return x[:size], scale

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        loc, scale = unpacked(x)
        value, slopes = density(mode.point + (loc + points @ scale.T) @ mode.scale.T)
        if not (np.isfinite(value) and np.isfinite(slopes).all()):
            lost.append(bool(np.abs(x).max() < NEAR))
            return np.inf, np.zeros_like(x)
        inner = slopes @ mode.scale
        moves = inner.T @ points / len(points)
        moves[diagonal] = moves[diagonal] * scale[diagonal] + 1
        return -value - np.log(scale[diagonal]).sum(), -np.concatenate([inner.mean(0), moves[lower]])

    def losses(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, slopes = zip(*map(loss, points), strict=True)
        return np.array(values), np.stack(slopes)

    start = np.zeros(size + len(lower[0]))
    with np.errstate(all="ignore"):
        for _ in range(20):  # where the curvature promises more room than there is
            if np.isfinite(loss(start)[0]):
                break
            start[size:][lower[0] == lower[1]] -= np.log(2)
        else:
            raise LostDensityError
        (found,) = together([descending(start, steps=num_steps, memory=30, flat=1e-4, least=1e-10)], losses)
    loc, scale = unpacked(found.point)
    entropy = float(np.log(np.diag(mode.scale)).sum()) + size * (1 + math.log(2 * math.pi)) / 2
    settled = found.settled and float(np.abs(found.slope).max()) < STEEP
    course = found.losses[min(1, len(found.losses) - 1) :] - entropy
    return Gaussian(mode.point + mode.scale @ loc, mode.scale @ scale, course, settled, sum(lost))
