"""The Gaussians that are nearest to a density, from ordinary points.

For the Gaussian N(m, S S') that is nearest to a density p in reverse Kullback-Leibler divergence, (S S')^-1 is the mean of
-grad^2 log p over it (Opper and Archambeau 2009). That mean is told well by few points, where the bound itself, as a function
of all entries of S, takes many more points than there are dimensions.

No mode is looked for: in many dimensions a posterior's mass is nowhere near it, and a hierarchical model may have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from ppvi.approximation.families import Full, LowRank
from ppvi.approximation.gaussian import Begun, Gaussian, LostDensityError, fitted, points_of
from ppvi.approximation.modes import LEAST, STEP, Each, apart, lower
from ppvi.approximation.scales import stretched

EXACT, DENSE = 300, 2000
"""Dimensions up to which all entries of a covariance are fitted at last, and up to which it is full; of more it is a diagonal
and some directions."""

RANK, RESTARTS = 20, 3
"""Of these, how many, and how often Lanczos' method begins again: the narrowest come first."""

NARROW = 0.99
"""Curvature, in units of the scales, from which on a direction is as wide as it should be."""

WIDTH = 0.1
"""Standard deviations of the first Gaussians: wider ones are in places where differential equations take long to solve."""

COARSE, POINTS = 32, 128
"""Points of the first fits, and of those that are kept."""

PAIRS = 4
"""Points, and as many opposite ones, over which curvature is averaged."""

EVEN, FRESH = 1e-3, 32
"""The variance of log p / q over so many draws of a Gaussian q that is taken for none: means are then within a thirtieth of a
standard deviation, and no other q is nearer to speak of."""

ROUNDS, ENOUGH = 5, 0.1
"""Of averages, at most, and the rise of the bound, in nats, that is taken for none."""


def nearest(
    each: Each, starts: Sequence[np.ndarray], num_steps: int = 500, seed: int = 0, costly: bool = False
) -> list[Gaussian]:
    """The Gaussians that different starts lead to.

    From every start, `fitted` moves a mean and a diagonal over a few points; of the ends that are near one another the highest
    goes on. Then, in turn, curvature is averaged over the Gaussian, which gives it a shape, and the mean and a scale for
    each direction of it are fitted again, until the bound rises no more. Where dimensions are few, all of S is fitted at
    last, over eight points a dimension. What is lost, or leads to where the density is, is left out.

    Where the density is `costly` there are fewer points, until one of the Gaussians is seen not to be near enough.
    """
    size = starts[0].size
    diagonal = LowRank(np.empty((size, 0)))
    points = points_of(diagonal, COARSE // 2 if costly else COARSE, seed)
    ends = list[Gaussian]()
    with np.errstate(all="ignore"):
        for start in starts:
            begun = Begun(start, np.full(size, WIDTH))
            with suppress(LostDensityError):
                ends.append(fitted(each, begun, diagonal, points, num_steps))
    return nearer(each, sorted(ends, key=lambda end: end.losses[-1]), num_steps, seed, costly)


def nearer(
    each: Each, ends: Sequence[Gaussian], num_steps: int = 500, seed: int = 0, costly: bool = False
) -> list[Gaussian]:
    """The Gaussians that others lead to, such as those that are near to the density given a part of the data."""
    found = list[Gaussian]()
    with np.errstate(all="ignore"):
        for end in _apart(ends):
            with suppress(LostDensityError, np.linalg.LinAlgError):
                found.append((_by_few if costly else _shaped)(each, end, num_steps, seed))
    return _apart(found)


def _apart(found: Sequence[Gaussian]) -> list[Gaussian]:
    """Of those that are near one another the first."""
    kept: list[Gaussian] = []
    for one in found:
        if all(apart(one.loc, other.loc, other.scale) for other in kept):
            kept.append(one)
    return kept


def spread(each: Each, found: Gaussian, rng: np.random.Generator) -> float:
    """The variance of log p / q over draws of a Gaussian with a full covariance: 0 where it is the density itself."""
    points = found.loc + stretched(found.scale, rng.standard_normal((FRESH, found.loc.size)))
    return float(np.var(each(points)[0] - found.log_density(points)))


def _by_few(each: Each, found: Gaussian, num_steps: int, seed: int) -> Gaussian:
    """As `_shaped`, by few points and the curvature along one pair of them, until draws of the Gaussian have even weights, as
    they have soon where data are many; else on from there."""
    size, rng = found.loc.size, np.random.default_rng(seed)
    family = LowRank(np.empty((size, 0)))
    points, losses = points_of(family, COARSE, seed), list[np.ndarray]()
    for _ in range(ROUNDS if size <= DENSE else 0):
        found = fitted(each, found.begun, family, points, num_steps)
        losses.append(found.losses)
        if found.settled and spread(each, found, rng) < EVEN:
            return replace(found, scale=_matrix(found.scale), factor=None, losses=np.concatenate(losses))
        found = replace(found, scale=_dense(each, found, rng, pairs=1)[0])
    return _shaped(each, found, num_steps, seed)


def _shaped(each: Each, coarse: Gaussian, num_steps: int, seed: int) -> Gaussian:
    size, rng = coarse.loc.size, np.random.default_rng(seed)
    shape = _dense if size <= DENSE else _low_rank
    family = LowRank(np.empty((size, 0)))
    best = fitted(each, coarse.begun, family, points_of(family, POINTS, seed), num_steps)
    ran = [best]
    for _ in range(ROUNDS):
        scale, ways = shape(each, best, rng)
        family = LowRank(ways)
        with suppress(LostDensityError):
            ran.append(fitted(each, Begun(best.loc, scale), family, points_of(family, POINTS, seed), num_steps))
        rises = best.losses[-1] - ran[-1].losses[-1]
        if rises > 0:
            best = ran[-1]
        if not ran[-1].settled or 0 <= rises < ENOUGH:
            break
    if size <= DENSE:
        best = replace(best, scale=_matrix(best.scale), factor=None)
    if size <= EXACT and ran[-1].settled:
        full = Full(size)
        best = fitted(each, best.begun, full, points_of(full, max(POINTS, 8 * size), seed), num_steps)
        ran.append(best)
    return replace(best, losses=np.concatenate([x.losses for x in ran]))


def _dense(each: Each, found: Gaussian, rng: np.random.Generator, pairs: int = PAIRS) -> tuple[np.ndarray, np.ndarray]:
    """The scale of the averaged curvature, and no further ways."""
    size = found.loc.size
    scale = _matrix(found.scale)
    curvature = np.zeros((size, size))
    for point in _points(found, rng, pairs):
        steps = STEP * scale.T
        _, slopes = each(np.concatenate([point + steps, point - steps]))
        ahead, behind = np.split(slopes @ scale, 2)
        bent = -(ahead - behind) / (2 * STEP)
        curvature += np.where(np.isfinite(bent), bent, np.eye(size)) / (2 * pairs)
    sizes, ways = np.linalg.eigh((curvature + curvature.T) / 2)
    return lower(scale @ (ways / np.sqrt(np.maximum(np.abs(sizes), LEAST)))), np.empty((size, 0))


def _matrix(scale: np.ndarray) -> np.ndarray:
    return np.diag(scale) if scale.ndim == 1 else scale


def _points(found: Gaussian, rng: np.random.Generator, pairs: int = PAIRS) -> np.ndarray:
    """Some of the Gaussian, in pairs."""
    noise = rng.standard_normal((pairs, found.loc.size))
    if found.factor is not None:
        noise = noise + rng.standard_normal((pairs, found.factor.shape[1])) @ found.factor.T
    away = stretched(found.scale, noise)
    return found.loc + np.concatenate([away, -away])


def _low_rank(each: Each, found: Gaussian, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The scales as they are, and the ways, in their units, in which the averaged curvature is least, as long as the square
    root of what the variance is larger there: by Lanczos' method, from differences of the gradient."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    points, size = _points(found, rng), found.loc.size

    def curved(way: np.ndarray) -> np.ndarray:
        step = STEP * found.scale * way.ravel()
        _, slopes = each(np.concatenate([points + step, points - step]))
        ahead, behind = np.split(slopes * found.scale, 2)
        bent = -(ahead - behind).mean(0) / (2 * STEP)
        return np.where(np.isfinite(bent), bent, way.ravel())

    operator: Any = LinearOperator((size, size), matvec=curved, dtype=float)  # pyright: ignore[reportCallIssue]
    options: dict[str, Any] = {"which": "SA", "tol": 0.03, "maxiter": RESTARTS, "v0": rng.standard_normal(size)}
    try:
        sizes, ways = eigsh(operator, RANK, **options)
    except ArpackNoConvergence as error:
        sizes, ways = error.eigenvalues, error.eigenvectors
    if not (sizes < NARROW).any():
        return found.scale, np.zeros((size, 1))
    wider = sizes < NARROW
    return found.scale, ways[:, wider] * np.sqrt(1 / np.maximum(sizes[wider], LEAST) - 1)
