"""Mixtures that follow the bends of a density: a Gaussian in each of many windows along a way.

Along a way a in units of a Gaussian N(m, S S'), u(z) = a' S^-1 (z - m), windows of width 1 at the whole numbers add up to a
constant, but for 1e-8 of it,

    W_t(z) = exp(-(u(z) - t)^2 / 2),    p(z) = sum_t p(z) W_t(z) / sum_t W_t(z),

so that a density is a mixture of its parts p W_t, each of which is nearer to a Gaussian than p is: a scale that multiplies what
is beside it, as in a funnel, is about one number in a window. Windows of this kind are those of umbrella sampling (Torrie and
Valleau 1977); that Gaussians given a few numbers, mixed over these, are near where none is alone, is what integrated nested
Laplace approximations are about (Rue, Martino and Chopin 2009), and a mixture that grows is Miller, Foti and Adams' (2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ppvi.approximation.curvature import POINTS
from ppvi.approximation.families import Full
from ppvi.approximation.gaussian import Begun, Gaussian, LostDensityError, fitted, points_of
from ppvi.approximation.mixtures import Mixture, mixed
from ppvi.approximation.modes import Each
from ppvi.approximation.scales import entropy, pulled, stretched

LARGEST = 100
"""Dimensions up to which windows are looked into."""

BENT, DRAWS = 0.2, 256
"""The variance of log p / q over draws of a mixture q from which on it is to be nearer; and how many draws tell."""

WAYS, AHEAD = 3, 8
"""Of each mode, and windows on each side of it, at most."""

LIGHT = 5.0
"""By how many nats a window has less mass than another, from which on there are none behind it."""

GAIN, ENOUGH = 0.03, 1e-6
"""Nats by which a way that is worth having raises the bound; and the rise of a window's, in parts of it, taken for none."""

MODE = 0.1
"""Weight of a part of the mixture that is looked around."""

STEEPEST = 2.0
"""The slope of log p / q, by a standard deviation, that counts at most: in tails it is many times that."""


def bent(each: Each, mixture: Mixture, num_steps: int, seed: int) -> Mixture:
    """A mixture with parts in windows beside those that it has, where it has a higher bound by these.

    The ways are those in which log p / q is steepest on average over the draws of a part of the mixture q.
    """
    best, rng, parts = mixture.best, np.random.default_rng(seed), list(mixture.parts)
    if best.factor is not None or best.loc.size > LARGEST or not best.settled:
        return mixture
    for mode in [part for part, weight in zip(parts, mixture.weights, strict=True) if weight > MODE]:
        for _ in range(WAYS):
            way = _way(each, mode, mixture, rng)
            if way is None:
                break
            more = [*parts, *_along(each, mode, way, num_steps, seed)]
            found = mixed(more, seed)
            if not found.bound > mixture.bound + GAIN:
                break
            mixture, parts = found, more
    return mixture


def _way(each: Each, mode: Gaussian, mixture: Mixture, rng: np.random.Generator) -> np.ndarray | None:
    """The way in which the ratio of the density and the mixture is steepest; None where it is even."""
    points = mode.loc + stretched(mode.scale, rng.standard_normal((DRAWS, mode.loc.size)))
    with np.errstate(all="ignore"):
        values, slopes = each(points)
        below, below_slopes = mixture.log_density(points)
        ratios = values - below
        if np.nanvar(ratios) < BENT:
            return None
        steep = np.nan_to_num(pulled(mode.scale, slopes - below_slopes), nan=0.0)
    steep = steep / np.maximum(1, np.linalg.norm(steep, axis=1, keepdims=True) / STEEPEST)
    return np.linalg.eigh(steep.T @ steep)[1][:, -1]


def _along(each: Each, mode: Gaussian, way: np.ndarray, num_steps: int, seed: int) -> Iterator[Gaussian]:
    """Gaussians in the windows along a way that have settled, with their bounds of the whole density."""
    size = mode.loc.size
    family, across = Full(size), np.linalg.solve(mode.scale.T, way)
    points, fresh = (points_of(family, max(POINTS, 8 * size), seed + i) for i in range(2))
    step = stretched(mode.scale, way)
    heaviest = -np.inf
    for side in (1, -1):
        near = mode
        for t in range(AHEAD + 1) if side == 1 else range(-1, -AHEAD - 1, -1):
            begun = Begun(near.loc + (side * step if t else 0), near.scale)
            try:
                near = fitted(_windowed(each, mode.loc, across, t), begun, family, points, num_steps, ENOUGH)
            except (LostDensityError, np.linalg.LinAlgError):
                break
            mass = -float(near.losses[-1])
            heaviest = max(heaviest, mass)
            if mass < heaviest - LIGHT:
                break
            bound = _bound(each, near, fresh)
            if near.settled and np.isfinite(bound):  # else it could be the highest, and alone
                yield replace(near, losses=np.array([-bound]))


def _bound(each: Each, part: Gaussian, points: np.ndarray) -> float:
    """E_q[log p - log q], over points that it was not fitted to, for what it has gained at those by chance is no gain."""
    with np.errstate(all="ignore"):
        return float(each(part.loc + stretched(part.scale, points))[0].mean()) + entropy(part.scale)


def _windowed(each: Each, loc: np.ndarray, across: np.ndarray, t: int) -> Each:
    """A density times the window W_t, with u(z) = across' (z - loc)."""

    def windowed(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, slopes = each(points)
        away = (points - loc) @ across - t
        return values - away**2 / 2, slopes - away[:, None] * across

    return windowed
