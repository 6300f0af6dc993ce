"""Tails: whether a mean can be judged by its draws at all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

HEAVY = 0.5
"""The Pareto shape from which on a variance is infinite."""


ROUNDING = 1e-3
"""By which logarithms of weights differ that are one."""

TOP = 30
"""The largest draws, by which a bounded quantity of few values is told from one with a tail."""


def k_hat(draws: Any) -> float:
    """Pareto shape of the tail of |D|: moments of order 1 / k and above are infinite. Vehtari et al. 2024.

    A quantity that takes few values, such as a gradient of discrete sites, lies in clumps, between which the fit sees a tail
    where there is none. Where it looks heavy, the mean log ratio of the 30 largest to the next (Hill 1975) is looked at too,
    which is about k in a tail and about 0 in a clump; below 0.25 it is what is returned. Where the tail hardly varies the shape
    is -inf: there is none.
    """
    sizes = np.sort(np.abs(np.asarray(draws, float)))
    sizes = sizes[sizes > 0]
    if len(sizes) < 200 or len(np.unique(sizes[-TOP:])) < TOP // 2:
        return -np.inf
    shape = pareto_shape(np.log(sizes))
    hill = float(np.log(sizes[-TOP:] / sizes[-TOP - 1]).mean())
    return hill if shape >= HEAVY and hill < HEAVY / 2 else shape


def pareto_shape(log_weights: Any) -> float:
    """Shape of a generalised Pareto distribution fitted to the largest weights, min(S / 5, 3 sqrt(S)) of S: k-hat of Pareto
    smoothed importance sampling (Vehtari et al. 2024). Infinite where they are too few; -inf where all are one
    but for rounding, without a tail.

    The fit is that of Zhang and Stephens 2009, with a weak prior at 1/2 that counts for ten weights.
    """
    log_weights = np.sort(np.asarray(log_weights, float).ravel())
    tail = math.ceil(min(0.2 * len(log_weights), 3 * math.sqrt(len(log_weights))))
    if tail < 5:
        return math.inf
    if log_weights[-1] - log_weights[0] < ROUNDING:
        return -math.inf
    shifted = log_weights - log_weights[-1]
    cutoff = max(shifted[-tail - 1], math.log(np.finfo(float).tiny))
    excesses = np.exp(shifted[shifted > cutoff]) - math.exp(cutoff)
    return _shape(excesses) if len(excesses) > 4 else math.inf


def _shape(x: np.ndarray) -> float:
    """Of positive numbers in order: the posterior mean of the shape over a grid of inverse scales b, each with its own shape
    k = mean log(1 - b x)."""
    n, grid = len(x), 30 + int(math.sqrt(len(x)))
    b = (1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3 * x[int(n / 4 + 0.5) - 1]) + 1 / x[-1]
    k = np.log1p(-b[:, None] * x).mean(1)
    profile = n * (np.log(-b / k) - k - 1)
    weights = 1 / np.exp(profile - profile[:, None]).sum(1)
    weights = np.where(weights >= 10 * np.finfo(float).eps, weights, 0.0)
    best = (b * weights).sum() / weights.sum()
    return float((n * np.log1p(-best * x).mean() + 5) / (n + 10))


def threshold(draws: int) -> float:
    """The Pareto shape up to which so many weights can be averaged. Vehtari et al. 2024."""
    return max(0.0, min(1 - 1 / math.log10(max(draws, 2)), 0.7))
