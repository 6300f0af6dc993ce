"""Mixtures of the Gaussians that different starts have led to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppvi.approximation.gaussian import Gaussian
from ppvi.approximation.scales import stretched

NOISE, ROUNDS = 1000, 50
"""Draws of each part, and how often weights are made of them."""

LEAST = 1e-3
"""Weight of a part that is worth having."""


@dataclass(frozen=True)
class Mixture:
    """sum_k w_k N(loc_k, S_k S_k'), or one of these alone.

    **Attributes**

    - `parts`: the Gaussians, the heaviest first.
    - `weights`: `(part,)`.
    - `bound`: the evidence lower bound.
    """

    parts: Sequence[Gaussian]
    weights: np.ndarray
    bound: float

    @property
    def best(self) -> Gaussian:
        """The part that has most of the mass."""
        return self.parts[0]

    def log_density(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """At each point, of parts with full covariances, but for a constant; and its gradient."""
        logs = _log(self.weights)[:, None] + np.stack([part.log_density(points) for part in self.parts])
        whole = np.logaddexp.reduce(logs)
        slopes = np.stack([part.slopes(points) for part in self.parts])
        return whole, (np.exp(logs - whole)[..., None] * slopes).sum(0)

    def ordered(self, place: np.ndarray) -> Sequence[Gaussian]:
        """The parts, with their coordinates in another order."""
        return [part.ordered(place) for part in self.parts]


def mixed(found: Sequence[Gaussian], seed: int) -> Mixture:
    """The mixture of Gaussians q_k, with bounds B_k, whose weights make its own bound highest,

        sum_k w_k (B_k + E_{q_k}[log q_k - log sum_j w_j q_j]),

    by w_k <- w_k exp(B_k + E_{q_k}[...]), normalised, which raises it each time: Blahut 1972, Arimoto 1972. Far apart, w_k is
    proportional to exp(B_k), and the bound is log sum_k exp(B_k). What has not settled, is of low rank, or has no weight to
    speak of is left out, and is alone if it is the highest.
    """
    found = sorted(found, key=lambda x: x.losses[-1])
    parts = [x for x in found if x.settled and x.factor is None]
    if not parts or parts[0] is not found[0]:
        return Mixture(found[:1], np.ones(1), -float(found[0].losses[-1]))
    bounds, densities = -np.array([x.losses[-1] for x in parts]), _densities(parts, seed)
    weights = _normal(bounds)
    for _ in range(ROUNDS):
        gains = bounds + _apartness(densities, weights)
        weights = _normal(_log(weights) + gains)
    heavy = np.argsort(-weights)[: (weights > LEAST).sum()]
    weights = weights[heavy] / weights[heavy].sum()
    bound = weights @ (bounds[heavy] + _apartness(densities[np.ix_(heavy, heavy)], weights))
    return Mixture([parts[k] for k in heavy], weights, float(bound))


def _densities(parts: Sequence[Gaussian], seed: int) -> np.ndarray:
    """The log density under each part of draws of each, `(drawn from, under, draw)`, but for a constant."""
    noise = np.random.default_rng(seed).standard_normal((NOISE, parts[0].loc.size))
    draws = [part.loc + stretched(part.scale, noise) for part in parts]
    return np.array([[part.log_density(points) for part in parts] for points in draws])


def _apartness(densities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """E_{q_k}[log q_k - log sum_j w_j q_j] of each k."""
    mixture = np.logaddexp.reduce(_log(weights)[:, None] + densities, axis=1)
    return (np.diagonal(densities).T - mixture).mean(-1)


def _log(weights: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):  # of a weight that has become none
        return np.log(weights)


def _normal(logs: np.ndarray) -> np.ndarray:
    found = np.exp(logs - logs.max())
    return found / found.sum()
