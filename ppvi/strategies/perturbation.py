"""Finite perturbations: what the rest becomes when a draw is moved to another value, or its distribution to another angle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ppvi._doors import described, number
from ppvi._ops import Array, Ops
from ppvi.errors import StrategyError
from ppvi.strategies.alternatives import OneByOne
from ppvi.strategies.base import Continuation, Distribution, Draw, Site, Terms
from ppvi.strategies.zero import NEGLIGIBLE, pickable


def _poisson(dist: Distribution, x: Array) -> Array:
    """-dF(x) = q(x) drate."""
    return dist.parameter("rate")


def _geometric(dist: Distribution, x: Array) -> Array:
    """-dF(x) = -(x + 1) (1 - p)^x dp,  q(x) = p (1 - p)^x."""
    p = dist.ops.exp(dist.log_prob(0 * x))
    return -(x + 1) * p / dist.ops.stop_gradient(p)


RATES: dict[str, Callable[[Distribution, Array], Array]] = {
    "Poisson": _poisson,
    "Geometric": _geometric,
    "GeometricProbs": _geometric,
    "GeometricLogits": _geometric,
}
"""-dF(x) / q(x) of distributions on 0, 1, 2, ..., each as a quantity that has this derivative."""


@dataclass(frozen=True)
class StochasticPerturbation(OneByOne):
    """Smoothed perturbation analysis, or "stochastic automatic differentiation": the draw, and the draw moved on by one value.

        d E_q[f(z)] = E[df(z) + (f(z + 1) - f(z)) w(z)],    w(z) = -dF(z) / q(z)

    with z + 1 the next value of the support and F the cumulative distribution function: with its noise held fixed, a draw
    by inversion of F moves to the next value at this rate. Of the lanes that a term couples one is moved, chosen at random,
    so that the cost does not grow with them.

    **Unbiased when** E|f(z) dF(z) / q(z)| is finite. Cost: one run of the rest and two plain evaluations. Gong and Ho 1987;
    Arya et al. 2022.
    """

    def misfit(self, dist: Distribution) -> str | None:
        if dist.name in RATES or dist.has_enumerate_support:
            return None
        known = "StochasticPerturbation is for finite supports, Poisson and Geometric"
        return f"{known}, not {dist.name}; LeaveOneOut() is for any"

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        ops = dist.ops
        if dist.name in RATES:
            x = dist.sample(rng)
            following, rate = x + 1, RATES[dist.name](dist, x)
        else:
            support = dist.enumerate_support()
            probs = dist.probabilities()
            index = dist.pick(rng, pickable(ops, dist.log_weights()), 0)[None]
            after = ops.choose(_next_possible(ops, probs), index)
            x, following = ops.choose(support, index)[0], ops.choose(support, after)[0]
            held = ops.choose(ops.stop_gradient(probs), index)[0]
            rate = -ops.choose(ops.cumsum(probs, 0), index)[0] / held
        lots = 1 - ops.moveaxis(dist.noise(rng, "uniform", 0, n=2), 0, -1)
        return Draw(x, values=ops.stack([following, x]), weights=ops.stack([rate, -rate]), inputs=lots)

    def elsewhere(self, site: Site, coupled: Mapping[int, int], k: Continuation) -> Terms:
        ops = site.ops
        moved, lanes = _one_of(site, coupled)
        here = ops.reshape(moved, (*site.lanes, *[1] * (len(site.value.shape) - len(site.lanes))))
        weights = lanes * ops.where(moved, site.weights, 0.0)
        return k.value_each(ops.where(here, site.values, site.value)).vary(weights).total()

    def evaluations(self, alternatives: int, coupled: int) -> int:
        return alternatives


def _next_possible(ops: Ops, probs: Array) -> Array:
    """For every value of a support the number of the next one that can be drawn, its own where there is none, `(K, *lanes)`."""
    numbers = ops.argsort(0 * probs, 0)
    following = [numbers[-1]]
    for i in range(len(probs) - 2, -1, -1):
        last = following[-1] == i + 1
        beyond = ops.where(last, i, following[-1])
        following.append(ops.where(probs[i + 1] > NEGLIGIBLE, i + 1, beyond))
    return ops.stack(following[::-1])


def _one_of(site: Site, coupled: Mapping[int, int]) -> tuple[Array, Array]:
    """Which lane of those that are coupled has drawn the highest lot, and how many have drawn one: where a branch passes over
    the site it is 0."""
    ops, first, second = site.ops, site.inputs[..., 0], site.inputs[..., 1]
    highest = first == _over(site, coupled, ops.max, first)
    # Of a million lanes two are likely to share the highest number of a float.
    second = ops.where(highest, second, -1.0)
    drawn = _over(site, coupled, lambda x, axis: ops.sum(x, [axis]), ops.where(first > 0, 1.0, 0.0))
    return second == _over(site, coupled, ops.max, second), drawn


def _over(site: Site, axes: Iterable[int], reduce: Callable[[Array, int], Array], x: Array) -> Array:
    """`x` over these axes, each of which stays with the size 1."""
    shape = list(site.lanes)
    for axis in axes:
        shape[axis] = 1
        x = site.ops.reshape(reduce(x, axis), shape)
    return x


@dataclass(frozen=True)
class ParameterShift(OneByOne):
    """The parameter-shift rule: the rest under two distributions whose angle is shifted to either side.

        d/da E_{q(a)}[f(z)] = E[df] + (E_{q(a + s)} f - E_{q(a - s)} f) / (2 sin(s))

    for distributions whose probabilities are A(z) + B(z) cos(a) + C(z) sin(a), as those of measurement outcomes are in the
    angle of a rotation gate.

    **Arguments**

    - `parameter`: the distribution's name for the angle.
    - `shift`: s, in radians, no multiple of pi.

    **Unbiased when** the probabilities depend on the angle in this way, which is for the user to know. A gradient in the
    distribution's other parameters goes by the score. Cost: one run of the rest and two plain evaluations for each coupled
    lane. Mitarai et al. 2018; Schuld et al. 2019.
    """

    parameter: str
    shift: float = math.pi / 2
    fixed_support: ClassVar[bool] = True

    def __post_init__(self) -> None:
        number("ParameterShift: the shift", self.shift, error=StrategyError)
        if abs(math.sin(self.shift)) < 1e-6:
            raise StrategyError(f"ParameterShift: the shift must be no multiple of pi, not {self.shift!r}.")

    def misfit(self, dist: Distribution) -> str | None:
        try:
            dist.parameter(self.parameter)
        except (AttributeError, TypeError):
            return f"{dist.name} has no parameter {described(self.parameter)}, whose angle {self} would shift"
        return None

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        ops, angle = dist.ops, dist.parameter(self.parameter)
        held = ops.stop_gradient(angle)
        x, others = dist.sample(rng), dist.replace(**{self.parameter: held})
        sides = [dist.replace(**{self.parameter: held + sign * self.shift}).sample(rng) for sign in (1, -1)]
        weight = angle / (2 * math.sin(self.shift))
        return Draw(x, others.log_prob(x), values=ops.stack(sides), weights=ops.stack([weight, -weight]))
