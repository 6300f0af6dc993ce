"""Enumeration: replace the draw of a finite site by its exact expectation, in whole or in part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ppvi.ops import Array
from ppvi.strategies.base import Continuation, Distribution, Draw, Site, Strategy, Terms, check_at_least, needs_finite


@dataclass(frozen=True)
class Enumerate(Strategy):
    """The exact expectation over a finite support, lane by lane.

        d E_q[f(z)] = d sum_v q(v) f(v)

    Lanes that no term couples are enumerated side by side: K runs for any number of lanes. Lanes that a term couples
    need their product, K^lanes runs, and a `StrategyError` where that passes the compiler's limit.

    **Arguments**

    - `sequential`: run value after value, in the memory of one run, instead of side by side.

    **Unbiased when** always: the variance by this site is zero. Cost: K runs of the rest.
    """

    sequential: bool = False
    fixed_support: ClassVar[bool] = False

    def misfit(self, dist: Distribution) -> str | None:
        return needs_finite(self, dist)

    def runs(self, alternatives: int, coupled: int) -> int:
        return alternatives**coupled

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        support = dist.enumerate_support()
        return Draw(dist.sample(rng), values=support, log_probs=dist.log_prob(support))

    def estimate(self, site: Site, k: Continuation) -> Terms:
        return summed(site, k, self.sequential)


@dataclass(frozen=True)
class SumAndSample(Strategy):
    """The exact expectation over the n likeliest values of a lane, and a draw from the others.

        d E_q[f(z)] = d sum_{v likeliest} q(v) f(v) + E[(1 - P) (df(z) + f(z) dlog q(z))]

    with P the probability of the n likeliest and z drawn from q restricted to the others. A score function that spends its
    draw where the sum has not been.

    **Arguments**

    - `n`: number of values that are summed over; with the whole support this is `Enumerate`.
    - `sequential`: as for `Enumerate`.

    **Unbiased when** E|f dlog q| is finite. Cost: n + 1 runs of the rest. Liu et al. 2019.
    """

    n: int = 1
    sequential: bool = False
    fixed_support: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_at_least("SumAndSample", "n", self.n, 1)

    def misfit(self, dist: Distribution) -> str | None:
        return needs_finite(self, dist)

    def runs(self, alternatives: int, coupled: int) -> int:
        return alternatives**coupled

    def estimate(self, site: Site, k: Continuation) -> Terms:
        return summed(site, k, self.sequential)

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        ops, support = dist.ops, dist.enumerate_support()
        log_probs = dist.log_prob(support)
        if self.n >= len(support):
            return Draw(dist.sample(rng), values=support, log_probs=log_probs)
        order = ops.argsort(-ops.stop_gradient(log_probs), 0)
        values, log_probs = ops.choose(support, order), ops.choose(log_probs, order)
        others = ops.stop_gradient(log_probs[self.n :])
        picked = self.n + dist.pick(rng, others, 0)[None]
        log_prob = ops.choose(log_probs, picked)
        left = ops.logsumexp(others, 0) + log_prob - ops.stop_gradient(log_prob)
        return Draw(
            dist.sample(rng),
            values=ops.concatenate([values[: self.n], ops.choose(values, picked)]),
            log_probs=ops.concatenate([log_probs[: self.n], left]),
        )


def summed(site: Site, k: Continuation, sequential: bool) -> Terms:
    """The rest at every joint assignment of the lanes that its terms couple, weighed by the exponentials of their log_probs."""
    first, *others = (_summed(site, coupled, rest, sequential) for coupled, rest in k.by_coupling())
    return sum(others, start=first)


def _summed(site: Site, coupled: tuple[int, ...], k: Continuation, sequential: bool) -> Terms:
    values, log_probs = product(site, coupled)
    return k.each(values, sequential=sequential).mix(log_probs)


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
