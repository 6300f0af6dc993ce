"""Families of Gaussians, over whose parameters, one vector each, a bound is maximised.

    x -> draws m + S e of fixed points e, and log det S

with what takes the gradient of the log density at the draws to that in the vector. Everything is in coordinates in which the
density has about a unit scale, so that a zero vector is the standard normal distribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ppvi.approximation.scales import stretched


class Family(Protocol):
    """Gaussians of `dimension` numbers, whose draws are made of points of `noise` standard normal ones; of these the first
    `joint` ones have to be uncorrelated exactly, for a factor that multiplies them would take a chance for a shape."""

    @property
    def dimension(self) -> int: ...
    @property
    def noise(self) -> int: ...
    @property
    def joint(self) -> int: ...

    @property
    def size(self) -> int:
        """Of the vector."""
        ...

    @property
    def is_log(self) -> np.ndarray:
        """Which entries of the vector are logarithms of scales."""
        ...

    def draws(self, x: np.ndarray, points: np.ndarray) -> np.ndarray:
        """`(point, dimension)`."""
        ...

    def bound(self, x: np.ndarray, points: np.ndarray, slopes: np.ndarray) -> tuple[float, np.ndarray]:
        """log det S, and the gradient in x of it and of the mean over points of what has these slopes at the draws."""
        ...

    def scaled(self, x: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """m, the scale and the factor, in coordinates of which these are in units of a scale, triangular or diagonal."""
        ...


@dataclass(frozen=True)
class Full:
    """N(m, S S') with lower triangular S, whose diagonal is exp of numbers of the vector."""

    dimension: int

    @property
    def noise(self) -> int:
        return self.dimension

    @property
    def joint(self) -> int:
        return self.dimension

    @property
    def size(self) -> int:
        return self.dimension + len(self._lower[0])

    @property
    def _lower(self) -> tuple[np.ndarray, np.ndarray]:
        return np.tril_indices(self.dimension)

    def _unpacked(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = np.zeros((self.dimension, self.dimension))
        scale[self._lower] = x[self.dimension :]
        np.fill_diagonal(scale, np.exp(np.diag(scale)))
        return x[: self.dimension], scale

    @property
    def is_log(self) -> np.ndarray:
        rows, columns = self._lower
        return np.concatenate([np.zeros(self.dimension, bool), rows == columns])

    def draws(self, x: np.ndarray, points: np.ndarray) -> np.ndarray:
        loc, scale = self._unpacked(x)
        return loc + points @ scale.T

    def bound(self, x: np.ndarray, points: np.ndarray, slopes: np.ndarray) -> tuple[float, np.ndarray]:
        sizes = np.diag(self._unpacked(x)[1])
        moves = slopes.T @ points / len(points)
        np.fill_diagonal(moves, np.diag(moves) * sizes + 1)
        return float(np.log(sizes).sum()), np.concatenate([slopes.mean(0), moves[self._lower]])

    def scaled(self, x: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        loc, inner = self._unpacked(x)
        return stretched(scale, loc), scale @ inner, None


@dataclass(frozen=True, eq=False)
class LowRank:
    """N(m, D (I + A A') D) with D = diag(s) and A = W diag(a): draws are m + s * (e_2 + A e_1).

    The vector has m, log s and log a; the `ways` W, `(dimension, rank)`, are given. Without any it is diagonal.
    log det S is sum log s + 1/2 log det(I + A' A), by the matrix determinant lemma. Ong, Nott and Smith 2018 move W too, which
    takes many more points and steps for a bound that is hardly higher.
    """

    ways: np.ndarray

    @property
    def dimension(self) -> int:
        return self.ways.shape[0]

    @property
    def joint(self) -> int:
        return self.ways.shape[1]

    @property
    def noise(self) -> int:
        return self.joint + self.dimension

    @property
    def size(self) -> int:
        return self.dimension + self.noise

    def _unpacked(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        loc, sizes, stretches = np.split(x, [self.dimension, 2 * self.dimension])
        return loc, np.exp(sizes), self.ways * np.exp(stretches)

    def _moved(self, factor: np.ndarray, points: np.ndarray) -> np.ndarray:
        return points[:, self.joint :] + points[:, : self.joint] @ factor.T

    @property
    def is_log(self) -> np.ndarray:
        return np.arange(self.size) >= self.dimension

    def draws(self, x: np.ndarray, points: np.ndarray) -> np.ndarray:
        loc, sizes, factor = self._unpacked(x)
        return loc + sizes * self._moved(factor, points)

    def bound(self, x: np.ndarray, points: np.ndarray, slopes: np.ndarray) -> tuple[float, np.ndarray]:
        _, sizes, factor = self._unpacked(x)
        inner = np.eye(self.joint) + factor.T @ factor
        pulls = slopes * sizes
        moves = (pulls * self._moved(factor, points)).mean(0) + 1
        turns = pulls.T @ points[:, : self.joint] / len(points) + np.linalg.solve(inner, factor.T).T
        log_det = float(np.log(sizes).sum() + np.linalg.slogdet(inner)[1] / 2)
        return log_det, np.concatenate([slopes.mean(0), moves, (turns * factor).sum(0)])

    def scaled(self, x: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        loc, sizes, factor = self._unpacked(x)
        return stretched(scale, loc), scale * sizes, factor
