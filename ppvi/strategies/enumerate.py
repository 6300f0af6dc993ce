"""Sums over alternative values: the draw of a site is replaced by its exact expectation, in whole or in part."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from ppvi._doors import count, flag
from ppvi._ops import Array
from ppvi.errors import StrategyError
from ppvi.strategies.alternatives import repeated
from ppvi.strategies.assigned import at
from ppvi.strategies.base import (
    Continuation,
    Distribution,
    Draw,
    Site,
    Strategy,
    Terms,
    needs_finite,
)
from ppvi.strategies.zero import floored, pickable


@dataclass(frozen=True)
class Sum(Strategy):
    """Base of strategies that run the rest at every alternative value of a lane, weighed by the values' log_probs.

    Lanes that no term couples are summed over side by side: K runs for any number of lanes. Lanes that a term couples need
    their product, K^lanes runs, and a `StrategyError` where that passes the compiler's limit.

    **Arguments**

    - `sequential`: run value after value, in the memory of one run, instead of side by side.
    """

    sequential: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        flag(f"{type(self).__name__}: sequential", self.sequential, StrategyError)

    fixed_support: ClassVar[bool] = False

    def misfit(self, dist: Distribution) -> str | None:
        return needs_finite(self, dist)

    def runs(self, alternatives: int, coupled: int) -> int:
        return alternatives**coupled

    def sees_all(self, alternatives: int) -> bool:
        return True

    @property
    def to_all_orders(self) -> bool:
        return True

    def absent(self, draw: Draw) -> Draw:
        assert draw.log_probs is not None
        return draw._replace(log_probs=draw.log_probs - math.log(draw.log_probs.shape[0]))

    def estimate(self, site: Site, k: Continuation) -> Terms:
        first, *others = (self._summed(site, coupled, rest) for coupled, rest in k.by_coupling())
        return sum(others, start=first)

    def _summed(self, site: Site, coupled: Mapping[int, int], k: Continuation) -> Terms:
        index = product(site, coupled)
        runs = k.assign(site.values, index, sequential=self.sequential)
        return runs.mix(follow(site, index), at(site.ops, site.log_probs, [index]))


@dataclass(frozen=True)
class Enumerate(Sum):
    """The exact expectation over a finite support, lane by lane.

        d E_q[f(z)] = d sum_v q(v) f(v)

    **Arguments**

    - `sequential`: run value after value, in the memory of one run, instead of side by side.

    In a loop, where each draw may depend on the one before, by the forward recursion over the chain's marginals. Sites that
    depend on one another, as the rounds of a loop of Python's, are summed over together, by variable elimination: each
    term by the probabilities of the values that it is a function of.

    **Unbiased when** always: the variance by this site is zero. Cost: K runs of the rest, K^lanes where lanes are coupled, K^w
    where entries of a term depend on w lanes in a row; T K^2 entries for a chain of T sites, `sequential=True` K^T runs.
    """

    chained: ClassVar[Literal["draw", "draws", "chain"] | None] = "chain"

    @property
    def sums_out(self) -> bool:
        return not self.sequential

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        return Draw(dist.sample(rng), values=dist.enumerate_support(), log_probs=dist.log_weights())


@dataclass(frozen=True)
class SumAndSample(Sum):
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

    def __post_init__(self) -> None:
        count("SumAndSample: n", self.n, 1, StrategyError)

    def sees_all(self, alternatives: int) -> bool:
        return self.n >= alternatives - 1

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        ops, support, log_probs = dist.ops, dist.enumerate_support(), floored(dist.ops, dist.log_weights())
        if self.n >= len(support):
            return Draw(dist.sample(rng), values=support, log_probs=log_probs)
        order = ops.argsort(-ops.stop_gradient(log_probs), 0)
        values, log_probs = ops.choose(support, order), ops.choose(log_probs, order)
        others = ops.stop_gradient(log_probs[self.n :])
        picked = self.n + dist.pick(rng, pickable(ops, others), 0)[None]
        log_prob = ops.choose(log_probs, picked)
        left = ops.logsumexp(others, 0) + log_prob - ops.stop_gradient(log_prob)
        return Draw(
            dist.sample(rng),
            values=ops.concatenate([values[: self.n], ops.choose(values, picked)]),
            log_probs=ops.concatenate([log_probs[: self.n], left]),
        )


PILOTS = 101
"""Draws by which `Quadrature` finds where a lane has its mass."""
REACH = 20.0
"""How far from its median, in standard deviations, `Quadrature` looks for mass."""


@dataclass(frozen=True)
class Quadrature(Sum):
    """The expectation over a continuous distribution of real numbers, by the trapezoidal rule.

        d E_q[f(z)] = d sum_i h J_i q(z_i) f(z_i) + the error of the rule,    z_i = T(c + s sinh t_i),  J_i = dz_i / dt_i

    with T from the line to the support, the nodes t_i a step h apart, and c and s the median and the spread of some draws.
    The nodes carry no gradient, so f need not be differentiable in z. For a smooth f the error falls exponentially with n;
    where f has a kink or jumps, it falls like 1 / n^2 or 1 / n only.

    **Arguments**

    - `n`: number of nodes.
    - `sequential`: run node after node, in the memory of one run, instead of side by side.

    **Unbiased when** f is smooth in z, up to the error of the rule, which is also all the variance there is by this site. Cost:
    n runs of the rest, n^lanes where lanes are coupled. Trefethen and Weideman 2014.
    """

    n: int = 64
    assumes: ClassVar[str] = "the rule has nodes enough for the objective: twice as many give the same."
    fixed_support: ClassVar[bool] = True

    def __post_init__(self) -> None:
        count("Quadrature: n", self.n, 2, StrategyError)

    @property
    def needs_continuity(self) -> bool:
        return True

    def misfit(self, dist: Distribution) -> str | None:
        if dist.is_real:
            return None
        return f"{dist.name} is no continuous distribution of real numbers, which {self} needs; Reinforce() does not"

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        ops, value = dist.ops, dist.sample(rng)
        pilots = dist.to_real(dist.samples(rng, PILOTS))
        ranked = ops.choose(pilots, ops.argsort(pilots, 0))
        low, center, high = (ranked[round(share * (PILOTS - 1))] for share in (0.16, 0.5, 0.84))
        t = np.linspace(-1, 1, self.n) * np.arcsinh(REACH)
        lanes = (-1, *[1] * len(value.shape))
        scale = (high - low) / 2
        values, log_slopes = dist.from_real(center + scale * ops.array(np.sinh(t).reshape(lanes)))
        log_steps = ops.log(scale * ops.array((t[1] - t[0]) * np.cosh(t).reshape(lanes)))
        return Draw(value, values=values, log_probs=dist.log_prob(values) + log_slopes + log_steps)


def product(site: Site, coupled: Mapping[int, int]) -> np.ndarray:
    """Every joint assignment of the coupled lanes, the same for all lanes along the other axes.

    Where entries of a term depend on `width` lanes in a row, assignments of that many lanes are repeated along the axis, so
    that every entry meets each of them in one of the runs.

    **Returns** indices into the support, `(C, *lanes)` with size 1 along axes that are not coupled and C = K^(number of
    coupled lanes).
    """
    support = site.values.shape[0]
    shape = [coupled.get(axis, 1) for axis in range(len(site.lanes))]
    digits = np.indices((support,) * math.prod(shape)).reshape(math.prod(shape), -1).T
    return repeated(digits.reshape(-1, *shape), site, coupled, ahead=1)


def follow(site: Site, index: np.ndarray) -> Array:
    """Log probabilities `(C, *lanes)` of assigned values, in a chain given the value that is assigned to the lane before."""
    if site.draw.transitions is None:
        return at(site.ops, site.log_probs, [index])
    axis = 1 + site.time
    before = index if index.shape[axis] == 1 else np.roll(index, -1 if site.backward else 1, axis)
    return at(site.ops, site.draw.transitions, [before, index])
