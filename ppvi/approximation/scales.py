"""Scales of coordinates: a square matrix S, or the diagonal of one, by which x = S u is made of what has about a unit scale."""

from __future__ import annotations

import math

import numpy as np


def stretched(scale: np.ndarray, points: np.ndarray) -> np.ndarray:
    """S u of every row."""
    return points * scale if scale.ndim == 1 else points @ scale.T


def pulled(scale: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """S' g of every row: gradients in u of what has gradients g in x."""
    return slopes * scale if scale.ndim == 1 else slopes @ scale


def whitened(scale: np.ndarray, points: np.ndarray) -> np.ndarray:
    """S^-1 x of every row."""
    return points / scale if scale.ndim == 1 else np.linalg.solve(scale, points.T).T


def entropy(scale: np.ndarray) -> float:
    """Of S e with standard normal e, for S triangular or diagonal."""
    return log_det(scale) + len(scale) * (1 + math.log(2 * math.pi)) / 2


def log_det(scale: np.ndarray) -> float:
    """log |det S| of a triangular matrix, or of a diagonal."""
    return float(np.log(np.abs(scale if scale.ndim == 1 else np.diag(scale))).sum())
