"""Enumeration: replace the draw of a finite site by its exact expectation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ppvi.ops import Array
from ppvi.strategies.base import Continuation, Distribution, Draw, Site, Strategy, Terms


@dataclass(frozen=True)
class Enumerate(Strategy):
    """The exact expectation over a finite support, lane by lane.

        d E_q[f(z)] = d sum_v q(v) f(v)

    Lanes that no term couples are enumerated side by side: K runs for any number of lanes. Lanes that a term couples
    need their product, K^lanes runs, and a `StrategyError` where that passes the compiler's limit.

    **Unbiased when** always: the variance by this site is zero. Cost: K runs of the rest, vectorised.
    """

    fixed_support: ClassVar[bool] = False

    def misfit(self, dist: Distribution) -> str | None:
        if dist.has_enumerate_support:
            return None
        return f"{dist.name} has no finite support; LeaveOneOut() or Reinforce() need none"

    def runs(self, support: int, coupled: int) -> int:
        return support**coupled

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        support = dist.enumerate_support()
        return Draw(dist.sample(rng), values=support, log_probs=dist.log_prob(support))

    def estimate(self, site: Site, k: Continuation) -> Terms:
        parts = [self._expectation(site, coupled, rest) for coupled, rest in k.by_coupling()]
        return sum(parts[1:], start=parts[0])

    def _expectation(self, site: Site, coupled: tuple[int, ...], k: Continuation) -> Terms:
        values, log_probs = product(site, coupled)
        return k.each(values).mix(log_probs)


def product(site: Site, coupled: tuple[int, ...]) -> tuple[Array, Array]:
    """Every joint assignment of the coupled lane axes, the same for all lanes along the other axes.

    **Returns** values `(C, *lanes, *event)` and log_probs `(C, *lanes)`, with C = K^(number of coupled lanes).
    """
    support = site.values.shape[0]
    shape = [size if axis in coupled else 1 for axis, size in enumerate(site.lanes)]
    lanes = math.prod(shape)
    if lanes == 1:
        return site.values, site.log_probs
    digits = np.indices((support,) * lanes).reshape(lanes, -1).T
    index = digits.reshape(-1, *shape)
    return site.ops.choose(site.values, index), site.ops.choose(site.log_probs, index)
