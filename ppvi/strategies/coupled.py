"""Coupled draws of finite sites: dependent configurations of all lanes, whose differences carry the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ppvi._ops import Array, Ops
from ppvi.strategies.alternatives import Together
from ppvi.strategies.base import Distribution, Draw, needs_finite
from ppvi.strategies.zero import NEGLIGIBLE, floored


def sticks(ops: Ops, log_probs: Array) -> Array:
    """Logits `(K - 1, *lanes)` of the coins by which a value is found: the first, unless its coin fails, or the next, ..."""
    rest = [log_probs[-1]]
    for number in range(len(log_probs) - 2, 0, -1):
        rest.append(ops.logaddexp(rest[-1], log_probs[number]))
    return log_probs[:-1] - ops.stack(rest[::-1])


def first(ops: Ops, coins: Array) -> Array:
    """The number of the first coin that has come up, `(1, *lanes)`, or of coins if none has."""
    failed = index = 1 - coins[0]
    for coin in coins[1:]:
        failed = failed * (1 - coin)
        index = index + failed
    return index[None]


@dataclass(frozen=True)
class ARM(Together):
    """Augment-REINFORCE-merge, for finite sites.

        d/da E[f(b)] = E[df + (f(b) - f(b~)) (1/2 - u)],    b = 1[u < sigmoid(a)],  b~ = 1[1 - u < sigmoid(a)],  u uniform

    All lanes of a site take their two values together: one plain evaluation for any number of lanes. Of more than two
    values, each is a coin's: the first value whose coin comes up, with a logit a for every coin.

    **Unbiased** for any f. Cost: one run of the rest and one plain evaluation. Yin and Zhou 2019.
    """

    def misfit(self, dist: Distribution) -> str | None:
        return needs_finite(self, dist)

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        ops, support = dist.ops, dist.enumerate_support()
        logits = sticks(ops, floored(ops, dist.log_weights()))
        u = dist.noise(rng, "uniform", 0, n=len(logits))
        p = _chance(ops, logits)
        coins, mirrored = 1 * (u < p), 1 * (1 - u < p)
        return _pair(ops, support, logits, coins, mirrored, 0.5 - u)


@dataclass(frozen=True)
class DisARM(Together):
    """ARM with what the uniform number adds averaged out (also called U2G), for finite sites.

        d/da E[f(b)] = E[df + 1/2 (f(b) - f(b~)) (-1)^b~ 1[b != b~] sigmoid(|a|)],    b, b~ as for `ARM`

    **Unbiased** for any f, with never more variance than `ARM`. Cost: one run of the rest and one plain evaluation.
    Dong, Mnih and Tucker 2020; Yin et al. 2020; of more than two values Dong, Mnih and Tucker 2021.
    """

    def misfit(self, dist: Distribution) -> str | None:
        return needs_finite(self, dist)

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        ops, support = dist.ops, dist.enumerate_support()
        logits = sticks(ops, floored(ops, dist.log_weights()))
        coins, mirrored = zip(*[_mirrored(dist, rng, a, i) for i, a in enumerate(logits)], strict=True)
        b, mirror = ops.stack(coins), ops.stack(mirrored)
        weight = 0.5 * (1.0 - 2.0 * mirror) * (b != mirror) / (1 + ops.exp(-abs(logits)))
        return _pair(ops, support, logits, b, mirror, weight)


def _chance(ops: Ops, logits: Array) -> Array:
    """How likely the coins are to come up; those of values of probability zero never do, not even if u is 0."""
    p = 1 / (1 + ops.exp(-ops.stop_gradient(logits)))
    return ops.where(p > NEGLIGIBLE, p, 0.0)


def _mirrored(dist: Distribution, rng: Any, logit: Array, number: int) -> tuple[Array, Array]:
    """1[u < p] and 1[1 - u < p] of one uniform u: they differ with probability 2 min(p, 1 - p), and else are the likelier
    value."""
    ops = dist.ops
    p = _chance(ops, logit)
    unlikely = ops.where(p < 0.5, p, 1 - p)
    which = dist.pick(rng, ops.log(ops.stack([unlikely, unlikely, 1 - 2 * unlikely])), number)
    likelier = 1 * (p >= 0.5)
    return ops.where(which == 2, likelier, 1 * (which == 0)), ops.where(which == 2, likelier, 1 * (which == 1))


def _pair(ops: Ops, support: Array, logits: Array, coins: Array, mirrored: Array, weight: Array) -> Draw:
    """Two configurations, and what multiplies their difference: the sum over the coins of weight times logit."""
    values = ops.stack([ops.choose(support, first(ops, side))[0] for side in (coins, mirrored)])
    derivative = ops.sum(ops.stop_gradient(weight) * logits, [0])
    return Draw(values[0], values=values[1:], weights=-derivative[None], weight=derivative)


@dataclass(frozen=True)
class ARSM(Together):
    """Augment-REINFORCE-swap-merge, for finite sites with logits a_1 .. a_K.

        z = argmin_i pi_i exp(-a_i),  pi ~ Dirichlet(1, .., 1);   z_mj the same after pi_m and pi_j have changed places

        d/da_m E[f(z)] = E[df + sum_j (f(z_mj) - 1/K sum_m' f(z_m'j)) (1/K - pi_j)]

    All lanes of a site swap together. **Unbiased** for any f. Cost: one run of the rest and K (K - 1) / 2 plain
    evaluations for any number of lanes. Yin, Yue and Zhou 2019.
    """

    def misfit(self, dist: Distribution) -> str | None:
        return needs_finite(self, dist)

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        ops, support = dist.ops, dist.enumerate_support()
        logits = floored(ops, dist.log_weights())
        k = len(logits)
        waits = dist.noise(rng, "exponential", 0, n=k)
        pi = waits / ops.sum(waits, [0])
        centred, factor = logits - ops.mean(logits, 0), 1 / k - pi

        def value(order: list[int]) -> Array:
            race = ops.log(ops.stack([pi[i] for i in order])) - ops.stop_gradient(logits)
            return ops.choose(support, ops.argsort(race, 0)[:1])[0]

        values, weights = [value(list(range(k)))], [ops.sum(factor * centred, [0])]
        for m in range(k):
            for j in range(m):
                order = list(range(k))
                order[m], order[j] = j, m
                values.append(value(order))
                weights.append(factor[j] * centred[m] + factor[m] * centred[j])
        return Draw(values[0], values=ops.stack(values[1:]), weights=ops.stack(weights[1:]), weight=weights[0])
