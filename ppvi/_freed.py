"""A fit's draws in the unconstrained space of a model's continuous sites."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppvi._ops import as_numpy
from ppvi.approximate import LogJoint
from ppvi.engine.memory import LARGE

SUBSETS = 32
"""Of draws, of which that is taken for the starts of chains whose marginals are most like those of all."""


@dataclass(frozen=True)
class Freed:
    """A model's continuous sites in unconstrained space."""

    density: LogJoint
    sites: Mapping[str, tuple[Any, tuple[int, ...]]]
    """In the order of points: a bijection from unconstrained space, and the shape there."""
    points: np.ndarray
    """The fit's draws, `(draw, dimension)`, of which those are left out that are not finite there."""

    @functools.cached_property
    def scale(self) -> np.ndarray:
        """A Cholesky factor of the draws' covariance, or where they are too few for one, their standard deviations."""
        center, sizes = self.points.mean(0), self.points.std(0)
        sizes = np.where(sizes > 0, sizes, 1e-3 * (1 + np.abs(center)))
        if len(self.points) < 5 * len(sizes):
            return sizes
        unit = (self.points - center) / sizes
        return sizes[:, None] * np.linalg.cholesky(unit.T @ unit / len(unit) + 1e-6 * np.eye(len(sizes)))

    def sites_at(self, points: np.ndarray) -> dict[str, np.ndarray]:
        ends = np.cumsum([math.prod(shape) for _, shape in self.sites.values()])
        parts = np.split(points, ends[:-1], axis=1)
        array, like = self.density.guides.array, self.density.like
        return {
            name: as_numpy(onto(array(part.reshape(-1, *shape), like)))
            for part, (name, (onto, shape)) in zip(parts, self.sites.items(), strict=True)
        }


def like_all(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many of the draws, whose marginals are like those of all: how many of them are near each mode is no chance then."""
    places = np.sort(points, 0)[((np.arange(count) + 0.5) / count * len(points)).astype(int)]
    unit = np.maximum(points.std(0), np.finfo(float).tiny)
    tries = min(SUBSETS, 1 + LARGE // (10 * points.size))
    subsets = (points[rng.choice(len(points), count, replace=False)] for _ in range(tries))
    return min(subsets, key=lambda x: float((np.abs(np.sort(x, 0) - places).mean(0) / unit).max()))
