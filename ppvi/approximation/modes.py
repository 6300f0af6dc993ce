"""Modes of a log density, and its curvature there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Density = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""Takes points, `(point, dimension)`, to the mean of the log density over them, and its gradient in them times their number."""

Loss = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""Takes one point to a loss and its gradient."""

STEP = 1e-3
"""Of central differences of the gradient, in standard deviations."""

LEAST = 1e-2
"""Curvatures that are less, or negative, in units of the scale before: the density is not taken to be wider than ten of these
standard deviations."""

MEMORY = 20
"""Pairs of points and gradients that L-BFGS keeps."""


@dataclass(frozen=True)
class Mode:
    """A point where a log density rises no more.

    **Attributes**

    - `point`: `(dimension,)`.
    - `log_density`: there.
    - `scale`: L with L L' the inverse of the curvature there, `(dimension, dimension)`; where that is negative, of its size.
    - `concave`: whether the density falls in every direction from here.
    """

    point: np.ndarray
    log_density: float
    scale: np.ndarray
    concave: bool


def _downhill(density: Density) -> Loss:
    """The negative of a density, as minimisers take it: infinite where it is lost."""

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = density(point[None])
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return np.inf, np.zeros_like(point)
        return -value, -gradient[0]

    return loss


def lower(factor: np.ndarray) -> np.ndarray:
    """The Cholesky factor L with L L' = F F'."""
    found = np.linalg.qr(factor.T)[1].T
    return found * np.sign(np.diag(found))


def climbed(density: Density, start: np.ndarray, rounds: int = 20, enough: float = 1e-6) -> Mode:
    """The mode above a point: by L-BFGS, and then by Newton's steps in coordinates in which the curvature is about one.

    The Hessian is made of central differences of the gradient, `2 dimension` of them, so that it is there for every program
    that has a gradient. Byrd, Lu, Nocedal and Zhu 1995; Nocedal and Wright 2006, chapter 3.
    """
    from scipy.optimize import minimize

    loss = _downhill(density)
    options = {"maxiter": 2000, "maxfun": 4000, "maxcor": MEMORY}
    with np.errstate(all="ignore"):
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    at = found.x
    value, slope = loss(at)
    scale, concave = np.eye(len(at)), False
    for _ in range(rounds):
        scale, concave = _whitened(density, at, scale)
        inner = scale.T @ slope
        if 0.5 * float(inner @ inner) < enough:  # what the step would gain
            break
        moved = _down(loss, at, value, slope, -scale @ inner)
        if moved is None:
            break
        at, value, slope = moved
    return Mode(at, -value, scale, concave)


def _whitened(density: Density, at: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, bool]:
    """The scale that the curvature has, in two rounds: the second sees it in the units of the first."""
    concave = False
    for _ in range(2):
        steps = STEP * scale.T
        _, slopes = density(np.concatenate([at + steps, at - steps]))
        inner = slopes @ scale
        half = len(at)
        curvature = -(inner[:half] - inner[half:]) / (2 * STEP)
        curvature = np.nan_to_num((curvature + curvature.T) / 2)
        sizes, ways = np.linalg.eigh(curvature)
        concave = bool(sizes.min() > 0)
        scale = scale @ (ways / np.sqrt(np.maximum(np.abs(sizes), LEAST)))
    return lower(scale), concave


def _down(
    loss: Loss, at: np.ndarray, value: float, slope: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray] | None:
    """The point that a step leads to, or a part of it that falls enough (Armijo); None where none does."""
    expected = float(slope @ step)
    for part in 0.5 ** np.arange(30):
        there = at + part * step
        below, slope_there = loss(there)
        if below <= value + 1e-4 * part * expected and not np.array_equal(there, at):
            return there, below, slope_there
    return None
