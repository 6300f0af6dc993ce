"""Coupled draws of Bernoulli sites: two dependent configurations of all lanes, whose difference carries the gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ppvi.ops import Array
from ppvi.strategies.alternatives import together
from ppvi.strategies.base import Continuation, Distribution, Draw, Site, Strategy, Terms


def _misfit(strategy: Strategy, dist: Distribution) -> str | None:
    if dist.name.startswith("Bernoulli"):
        return None
    return f"{type(strategy).__name__} is for Bernoulli sites; LeaveOneOut() is for any"


def _mirrored(dist: Distribution, rng: Any, weight: Callable[[Array, Array, Array, Array], Array]) -> Draw:
    """The draws that a uniform number and its mirror image make, b and b~, and what multiplies f(b) - f(b~)."""
    ops, support, u = dist.ops, dist.enumerate_support(), dist.noise(rng, "uniform", 0)
    log_probs = dist.log_prob(support)
    logit, p = log_probs[1] - log_probs[0], ops.stop_gradient(ops.exp(log_probs[1]))
    bits = u < p, 1 - u < p
    values = ops.stack([ops.where(b, support[1], support[0]) for b in bits])
    derivative = ops.stop_gradient(weight(u, logit, *bits)) * logit
    return Draw(values[0], values=values, weights=ops.stack([derivative, -derivative]))


@dataclass(frozen=True)
class ARM(Strategy):
    """Augment-REINFORCE-merge, for Bernoulli sites.

        d/da E[f(b)] = E[df + (f(b) - f(b~)) (1/2 - u)],    b = 1[u < sigmoid(a)],  b~ = 1[1 - u < sigmoid(a)],  u uniform

    All lanes of a site take their two values together: one pair of evaluations for any number of lanes.

    **Unbiased** for any f. Cost: one run of the rest and two plain evaluations. Yin and Zhou 2019.
    """

    fixed_support: ClassVar[bool] = False

    def misfit(self, dist: Distribution) -> str | None:
        return _misfit(self, dist)

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        return _mirrored(dist, rng, lambda u, logit, b, mirror: 0.5 - u)

    def estimate(self, site: Site, k: Continuation) -> Terms:
        return together(site, k)


@dataclass(frozen=True)
class DisARM(Strategy):
    """ARM with what the uniform number adds averaged out (also called U2G), for Bernoulli sites.

        d/da E[f(b)] = E[df + 1/2 (f(b) - f(b~)) (-1)^b~ 1[b != b~] sigmoid(|a|)],    b, b~ as for `ARM`

    **Unbiased** for any f, with never more variance than `ARM`. Cost: one run of the rest and two plain evaluations.
    Dong, Mnih and Tucker 2020; Yin et al. 2020.
    """

    fixed_support: ClassVar[bool] = False

    def misfit(self, dist: Distribution) -> str | None:
        return _misfit(self, dist)

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        def weight(u: Array, logit: Array, b: Array, mirror: Array) -> Array:
            return 0.5 * (1.0 - 2.0 * mirror) * (b != mirror) / (1 + dist.ops.exp(-abs(logit)))

        return _mirrored(dist, rng, weight)

    def estimate(self, site: Site, k: Continuation) -> Terms:
        return together(site, k)
