"""Tails: whether a mean can be judged by its draws at all."""

from __future__ import annotations

from typing import Any

import numpy as np

HEAVY = 0.5
"""The Pareto shape from which on a variance is infinite."""


def k_hat(draws: Any) -> float:
    """Pareto shape of the tail of |D|: moments of order 1 / k and above are infinite. Vehtari et al. 2024.

    Where the tail hardly varies, as when draws take few values, it is -inf: there is no tail.
    """
    import arviz as az

    sizes = np.abs(np.asarray(draws, float))
    sizes = sizes[sizes > 0]
    if len(sizes) < 200 or len(np.unique(np.sort(sizes)[-100:])) < 20:
        return -np.inf
    with np.errstate(all="ignore"):
        return float(az.psislw(np.log(sizes))[1])
