"""Tails: whether a mean can be judged by its draws at all."""

from __future__ import annotations

from typing import Any

import numpy as np

HEAVY = 0.5
"""The Pareto shape from which on a variance is infinite."""


TOP = 30
"""The largest draws, by which a bounded quantity of few values is told from one with a tail."""


def k_hat(draws: Any) -> float:
    """Pareto shape of the tail of |D|: moments of order 1 / k and above are infinite. Vehtari et al. 2024.

    A quantity that takes few values, such as a gradient of discrete sites, lies in clumps, between which the fit sees a tail
    where there is none. Where it looks heavy, the mean log ratio of the 30 largest to the next (Hill 1975) is looked at too,
    which is about k in a tail and about 0 in a clump; below 0.25 it is what is returned. Where the tail hardly varies the shape
    is -inf: there is none.
    """
    import arviz as az

    sizes = np.sort(np.abs(np.asarray(draws, float)))
    sizes = sizes[sizes > 0]
    if len(sizes) < 200 or len(np.unique(sizes[-TOP:])) < TOP // 2:
        return -np.inf
    with np.errstate(all="ignore"):
        shape = float(az.psislw(np.log(sizes))[1])
    hill = float(np.log(sizes[-TOP:] / sizes[-TOP - 1]).mean())
    return hill if shape >= HEAVY and hill < HEAVY / 2 else shape
