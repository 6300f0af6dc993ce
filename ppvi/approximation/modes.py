"""Modes of a log density, and its curvature there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ppvi.approximation.descent import Losses, descending, together
from ppvi.approximation.scales import whitened

Each = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Takes points, `(point, dimension)`, to the log density at each, `(point,)`, and its gradient, `(point, dimension)`."""

STEP = 1e-3
"""Of central differences of the gradient, in standard deviations."""

APART = 1.0
"""Distance of two modes, in standard deviations at one of them and by the square root of the dimension, from
which they are two: a draw of the Gaussian at a mode is about 1 away from it."""

LEAST = 1e-2
"""Sizes of curvature, whatever their sign, that are less, in units of the scale before: the density is not taken to be wider
than ten of these standard deviations. Where a curvature is not a number, it is not taken to be wider than before."""


@dataclass(frozen=True)
class Mode:
    """A point where a log density rises no more.

    **Attributes**

    - `point`: `(dimension,)`.
    - `log_density`: there.
    - `scale`: L with L L' the inverse of the curvature there, `(dimension, dimension)`; where that is negative, of its size. Or
      the diagonal of a scale, `(dimension,)`.
    - `concave`: whether the density falls in every direction from here.
    """

    point: np.ndarray
    log_density: float
    scale: np.ndarray
    concave: bool


def apart(one: np.ndarray, other: np.ndarray, scale: np.ndarray) -> bool:
    """Whether two points are two modes, of which one has this scale."""
    away = whitened(scale, one - other)
    return bool(np.linalg.norm(away) > APART * math.sqrt(away.size))


def lower(factor: np.ndarray) -> np.ndarray:
    """The Cholesky factor L with L L' = F F'."""
    found = np.linalg.qr(factor.T)[1].T
    return found * np.sign(np.diag(found))


def climbs(each: Each, starts: Sequence[np.ndarray], rounds: int = 20, enough: float = 1e-6) -> list[Mode]:
    """The modes above some points: by L-BFGS, side by side, and then by Newton's steps in coordinates in which the curvature is
    about one, until a step would gain less than `enough`, or `rounds` of them.

    The Hessian is made of central differences of the gradient, `2 dimension` of them, so that it is there for every program
    that has a gradient. Byrd, Lu, Nocedal and Zhu 1995; Nocedal and Wright 2006, chapter 3.
    """
    losses = downhill(each)
    with np.errstate(all="ignore"):
        bottoms = together([descending(start) for start in starts], losses)
        return [_finished(each, losses, x.point, x.losses[-1], x.slope, rounds, enough) for x in bottoms]


def downhill(each: Each) -> Losses:
    """The negative of a density, infinite where it is lost."""

    def losses(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, slopes = each(points)
        lost = ~(np.isfinite(values) & np.isfinite(slopes).all(-1))
        return np.where(lost, np.inf, -values), np.where(lost[:, None], 0, -slopes)

    return losses


def _finished(
    each: Each, losses: Losses, at: np.ndarray, value: float, slope: np.ndarray, rounds: int, enough: float
) -> Mode:
    """A climb's end, by Newton's steps."""
    scale, concave = np.eye(len(at)), False
    for _ in range(rounds):
        scale, concave = _whitened(each, at, scale)
        inner = scale.T @ slope
        if 0.5 * float(inner @ inner) < enough:  # what the step would gain
            break
        moved = _down(losses, at, value, slope, -scale @ inner)
        if moved is None:
            break
        at, value, slope = moved
    return Mode(at, -float(value), scale, concave)


def _whitened(each: Each, at: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, bool]:
    """The scale that the curvature has, in two rounds: the second sees it in the units of the first."""
    concave = False
    for _ in range(2):
        steps = STEP * scale.T
        _, slopes = each(np.concatenate([at + steps, at - steps]))
        inner = slopes @ scale
        half = len(at)
        curvature = -(inner[:half] - inner[half:]) / (2 * STEP)
        curvature = (curvature + curvature.T) / 2
        curvature = np.where(np.isfinite(curvature), curvature, np.eye(half))
        sizes, ways = np.linalg.eigh(curvature)
        concave = bool(sizes.min() > 0)
        scale = scale @ (ways / np.sqrt(np.maximum(np.abs(sizes), LEAST)))
    return lower(scale), concave


def _down(
    losses: Losses, at: np.ndarray, value: float, slope: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray] | None:
    """The point that a step leads to, or a part of it that falls enough (Armijo); None where none does."""
    expected = float(slope @ step)
    for part in 0.5 ** np.arange(30):
        there = at + part * step
        (below,), (slope_there,) = losses(there[None])
        if below <= value + 1e-4 * part * expected and not np.array_equal(there, at):
            return there, below, slope_there
    return None
