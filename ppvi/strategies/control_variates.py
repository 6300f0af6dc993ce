"""Relaxed control variates: a differentiable stand-in for the rest, taken away with the score and given back by its path.

    d E_q[f(b)] = E[df(b) + (f(b) - c(z~)) dlog q(b) + dc(z) - dc(z~)],    b = argmax z,  z = a + Gumbel,  z~ ~ p(z | b)

for any differentiable c, since E[c(z~) dlog q(b) + dc(z~)] = dE[c(z)]. Both z and z~ are reparameterised, of one noise, so
that they are equal in value and differ in their derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ppvi._doors import number
from ppvi._ops import Array, Ops
from ppvi.errors import StrategyError
from ppvi.strategies.base import Continuation, Distribution, Draw, Site, Terms, phantom
from ppvi.strategies.relaxed import Relaxation, mixed, softmax
from ppvi.strategies.zero import floored


class Relaxed(Relaxation):
    """What REBAR and RELAX share: the draws, and c(z) = scale f(sum_v softmax(z / temperature)_v v) + r(..)."""

    temperature: float
    scale: float
    step_size: float
    route: ClassVar[Literal["credit", "path", "both"]] = "both"
    learns_from: ClassVar[Literal["loss", "variance"]] = "variance"

    def __post_init__(self) -> None:
        name = type(self).__name__
        number(f"{name}: the temperature", self.temperature, above=0, error=StrategyError)
        number(f"{name}: the scale", self.scale, error=StrategyError)
        number(f"{name}: the step size", self.step_size, least=0, error=StrategyError)

    @property
    def needs_continuity(self) -> bool:
        return self.scale != 0

    def surrogate_weights(self) -> Any:
        """The first weights of r, or nothing."""
        return {}

    def r(self, weights: Any, value: Array) -> Array | None:
        """r of a relaxed value, for every lane or for all of them."""
        return None

    @property
    def stateful(self) -> bool:
        return self.step_size > 0

    @property
    def learning(self) -> tuple[Literal["sgd", "adam"], float]:
        return "adam", self.step_size

    def init(self, lanes: tuple[int, ...], ops: Ops) -> Any:
        state = {"log_temperature": ops.zeros(()) + math.log(self.temperature), "weights": self.surrogate_weights()}
        return state | ({"scale": ops.zeros(()) + self.scale} if self.scale else {})

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        ops, support = dist.ops, dist.enumerate_support()
        logits = floored(ops, dist.log_weights())
        z = logits - ops.log(dist.noise(rng, "exponential", 0, n=len(support)))
        winner = ops.argsort(-ops.stop_gradient(z), 0)[:1]
        log_prob = ops.choose(logits, winner)[0]
        perturbed = ops.stack([z, _given_winner(ops, logits, z, winner)])
        lanes_first = [*range(2, 2 + len(log_prob.shape)), 0, 1]
        value = 1.0 * ops.choose(support, winner)[0]
        return Draw(value, log_prob, values=1.0 * support, inputs=ops.transpose(perturbed, lanes_first))

    def estimate(self, site: Site, k: Continuation) -> Terms:
        ops, lanes = site.ops, len(site.lanes)
        state = site.state or self.init(site.lanes, ops)
        score = phantom(site, site.log_prob)
        perturbed = ops.transpose(site.inputs, [lanes, lanes + 1, *range(lanes)])
        mixtures = (softmax(ops, z, ops.exp(state["log_temperature"])) for z in perturbed)
        free, tied = (mixed(ops, site.values, weights) for weights in mixtures)
        credited = k(site.value).scale(score)
        if self.scale:
            credited = credited + (k(free) + k(tied).scale(score) * -1.0) * state["scale"]
        r, given = self.r(state["weights"], free), self.r(state["weights"], tied)
        if r is None:
            return credited
        return credited.control(phantom(site, r) - phantom(site, given) - given * score)

    def runs(self, alternatives: int, coupled: int) -> int:
        return 3 if self.scale else 1


def _given_winner(ops: Ops, logits: Array, z: Array, winner: Array) -> Array:
    """z again, as the reparameterised draw given which entry is the greatest.

    Given that entry b is, exp(-z_b) and (exp(-z_i) - exp(-z_b)) q_i are independent standard exponentials: they are the
    noise, of value fixed, by which z~_b = -log e_b and z~_i = -log(e_i / q_i + e_b).
    """
    held = ops.exp(-ops.stop_gradient(z))
    top = ops.choose(held, winner)
    return -ops.log((held - top) * ops.exp(ops.stop_gradient(logits) - logits) + top)


@dataclass(frozen=True)
class REBAR(Relaxed):
    """The score function with the rest at a relaxed draw as control variate, for finite sites.

        c(z) = scale f(sum_v softmax(z / temperature)_v v)

    The rest must take mixtures of values, as for `GumbelSoftmax`, but its gradient is unbiased.

    **Arguments**

    - `temperature`, `scale`: of the control variate, at the start.
    - `step_size`: of Adam on both, down the variance of the gradient; 0 keeps them as they are.

    **Unbiased when** f is differentiable between the values of the support, at any temperature and scale. Cost: three runs
    of the rest, and the derivative of the gradient where the control variate learns. Tucker et al. 2017.
    """

    temperature: float = 0.5
    scale: float = 1.0
    step_size: float = 0.0


@dataclass(frozen=True)
class RELAX(Relaxed):
    """The score function with a learned surrogate of the rest, at a relaxed draw, as control variate, for finite sites.

        c(z) = scale f(x) + r(x),    x = sum_v softmax(z / temperature)_v v

    **Arguments**

    - `weights`: a function of nothing that returns the first weights of r, a tree of arrays.
    - `surrogate`: r, a function of the weights and of relaxed values `(*lanes, *event)` that returns a number for every
      lane, or one for all.
    - `temperature`, `scale`: as for `REBAR`; with scale 0 the rest is not relaxed and may be anything.
    - `step_size`: of Adam on all of them, down the variance of the gradient.

    **Unbiased** for any differentiable r. Cost: that of `REBAR`, or with scale 0 one run. Grathwohl et al. 2018.
    """

    weights: Callable[[], Any] = field(repr=False)
    surrogate: Callable[[Any, Array], Array] = field(repr=False)
    temperature: float = 0.5
    scale: float = 1.0
    step_size: float = 1e-2

    def surrogate_weights(self) -> Any:
        return self.weights()

    def r(self, weights: Any, value: Array) -> Array:
        return self.surrogate(weights, value)
