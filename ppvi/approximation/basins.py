"""The regions around the modes of a density, and the mass that each has.

At modes m_k with curvature (L_k L_k')^-1, the mixture g = sum_k w_k N(m_k, L_k L_k') has Laplace's masses for weights,

    w_k ~ p(m_k) |L_k|,    and    r_k(x) = w_k N(x; m_k, L_k L_k') / g(x)

is the share of a point x that belongs to the k-th. E_p[r_k] is told by draws of g with the weights p / g.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppvi.approximation.modes import Each, Mode, apart, climbs
from ppvi.approximation.scales import log_det, stretched, whitened

DRAWS, SURE = 1024, 0.2
"""Of the mixture at modes, and the effective share of them that makes masses known."""


@dataclass(frozen=True)
class Basins:
    """Modes, and their shares of the mass.

    **Attributes**

    - `masses`: `(mode,)`.
    - `sure`: whether these are by importance weights that can be averaged; else by curvature.
    """

    modes: Sequence[Mode]
    masses: np.ndarray
    sure: bool

    def shares(self, points: np.ndarray) -> np.ndarray:
        """r_k of every point, `(point, mode)`."""
        logs = _heights(self.modes, points)
        return np.exp(logs - np.logaddexp.reduce(logs, axis=1, keepdims=True))


def basins(each: Each, begun: Sequence[np.ndarray], rng: np.random.Generator) -> Basins | None:
    """Around the modes that are climbed to; None where there is none."""
    modes = list[Mode]()
    for one in sorted(climbs(each, begun), key=lambda x: -x.log_density):
        if one.concave and all(_two(one, other) for other in modes):
            modes.append(one)
    if not modes:
        return None
    logs = np.array([mode.log_density + log_det(mode.scale) for mode in modes])
    weights = np.exp(logs - np.logaddexp.reduce(logs))
    if len(modes) == 1:
        return Basins(modes, weights, True)
    return _weighed(each, Basins(modes, weights, False), rng)


def _two(one: Mode, other: Mode) -> bool:
    """Whether they are apart in units of one of them: a narrow one may be within a wide one."""
    return apart(one.point, other.point, one.scale) or apart(one.point, other.point, other.scale)


def _weighed(each: Each, found: Basins, rng: np.random.Generator) -> Basins:
    """With masses by importance weights, where these are even enough."""
    chosen = np.searchsorted(np.cumsum(found.masses)[:-1], (np.arange(DRAWS) + 0.5) / DRAWS)
    noise = rng.standard_normal((DRAWS, found.modes[0].point.size))
    points = np.stack(
        [found.modes[k].point + stretched(found.modes[k].scale, x) for k, x in zip(chosen, noise, strict=True)]
    )
    with np.errstate(all="ignore"):
        logs = np.nan_to_num(each(points)[0], nan=-np.inf) - np.logaddexp.reduce(_heights(found.modes, points), axis=1)
        weights = np.exp(logs - logs.max())
    if not weights.sum() ** 2 > SURE * DRAWS * (weights**2).sum():
        return found
    return Basins(found.modes, weights @ found.shares(points) / weights.sum(), True)


def _heights(modes: Sequence[Mode], points: np.ndarray) -> np.ndarray:
    """log p(m_k) - |L_k^-1 (x - m_k)|^2 / 2, the logarithm of w_k N(x; m_k, L_k L_k') but for a constant, `(point, mode)`."""
    away = [whitened(mode.scale, points - mode.point) for mode in modes]
    return np.stack([mode.log_density - (x**2).sum(-1) / 2 for mode, x in zip(modes, away, strict=True)], 1)
