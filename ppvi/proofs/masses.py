"""Masses: the probability of each value of a finite distribution, from what it is given by."""

from __future__ import annotations

import numpy as np

from ppvi.ir import Masses


def probabilities(masses: Masses, x: np.ndarray) -> np.ndarray:
    """Of each value, `(*lanes, K)`, up to a positive factor, from what a distribution is given by."""
    with np.errstate(all="ignore"):
        if masses == "logits":
            return np.exp(x - x.max(-1, keepdims=True))
        if masses == "coin logits":
            return np.stack([1 / (1 + np.exp(x)), 1 / (1 + np.exp(-x))], -1)
        if masses == "count probs":
            p, n = x[..., :1], x[..., 1:]
            k = np.arange(1 + int(n.max()))
            return np.where(k > 0, p, 1) * np.where(k < n, 1 - p, 1) * (k <= n)
        return x if masses == "probs" else np.stack([1 - x, x], -1)


def possible(masses: Masses, x: np.ndarray) -> np.ndarray:
    """Which values have a probability that is not zero, `(*lanes, K)`."""
    if masses == "logits":
        return x > -np.inf
    if masses == "coin logits":
        return np.stack([x < np.inf, x > -np.inf], -1)
    return probabilities(masses, x) > 0
