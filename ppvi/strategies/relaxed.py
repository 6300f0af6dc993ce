"""Continuous relaxations of finite sites: biased by design, and labelled so.

A value v of the support becomes a mixture sum_v w_v v of all of them, with weights that are differentiable in the
parameters. The rest of the objective must take such values: a number between 0 and 1 for a Bernoulli site, a point of the
simplex where values are one-hot vectors. An index, as a Categorical site has it, cannot be between two others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ppvi._doors import flag, number
from ppvi._ops import Array, Ops
from ppvi.errors import StrategyError
from ppvi.strategies.base import Distribution, Draw, Strategy, needs_finite
from ppvi.strategies.zero import floored


def mixed(ops: Ops, support: Array, weights: Array) -> Array:
    """sum_v w_v v, `(*lanes, *event)`."""
    events = [1] * (len(support.shape) - len(weights.shape))
    return ops.sum(support * ops.reshape(weights, (*weights.shape, *events)), [0])


def one_hot(ops: Ops, index: Array, like: Array) -> Array:
    """1.0 at an index along the leading axis, `(K, *lanes)`."""
    return ops.where(ops.argsort(0 * like, 0) == index, 1.0, 0.0)


def softmax(ops: Ops, logits: Array, temperature: float | Array = 1.0) -> Array:
    scaled = logits / temperature
    return ops.exp(scaled - ops.logsumexp(scaled, 0))


class Relaxation(Strategy):
    """Base of strategies that mix the values of a support."""

    relaxes: ClassVar[bool] = True

    def misfit(self, dist: Distribution) -> str | None:
        if dist.name.startswith("Categorical"):
            return f"{self} mixes values, and the indices of {dist.name} do not mix; Enumerate() or LeaveOneOut() take them"
        return needs_finite(self, dist)


class Biased(Relaxation):
    """Base of strategies whose draw is differentiated as a mixture."""

    route: ClassVar[Literal["credit", "path", "both"]] = "path"
    unbiased: ClassVar[bool] = False


def through(ops: Ops, value: Array, path: Array) -> Array:
    """The value, with the derivative of the path."""
    return value + (path - ops.stop_gradient(path))


@dataclass(frozen=True)
class GumbelSoftmax(Biased):
    """Pathwise through a softmax of perturbed logits, in place of the finite draw (the "concrete" distribution).

        w = softmax((a + g) / t),  g ~ Gumbel,    value sum_v w_v v

    **Arguments**

    - `temperature`: t; smaller is less biased and of more variance.
    - `hard`: go on with the value of greatest weight, and differentiate the mixture ("straight-through").

    **Biased** for every t > 0, in value as well unless `hard`. Jang, Gu and Poole 2017; Maddison, Mnih and Teh 2017.
    """

    temperature: float = 0.5
    hard: bool = False

    def __post_init__(self) -> None:
        number("GumbelSoftmax: the temperature", self.temperature, above=0, error=StrategyError)
        flag("GumbelSoftmax: hard", self.hard, StrategyError)

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        ops, support = dist.ops, dist.enumerate_support()
        logits = floored(ops, dist.log_weights())
        perturbed = logits - ops.log(dist.noise(rng, "exponential", 0, n=len(support)))
        soft = mixed(ops, support, softmax(ops, perturbed, self.temperature))
        if not self.hard:
            return Draw(soft)
        value = ops.choose(support, ops.argsort(-ops.stop_gradient(perturbed), 0)[:1])[0]
        return Draw(through(ops, value, soft))


@dataclass(frozen=True)
class StraightThrough(Biased):
    """The draw itself, differentiated as if it were its mean.

        value z ~ q,    dz = d sum_v q(v) v

    **Biased** unless the rest is affine in the value. Bengio, Leonard and Courville 2013.
    """

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        ops, support = dist.ops, dist.enumerate_support()
        mean = mixed(ops, support, dist.probabilities())
        return Draw(through(ops, dist.sample(rng), mean))


@dataclass(frozen=True)
class ReinMax(Biased):
    """Straight-through of second order: Heun's rule between the draw and the mean of the distribution.

        dz = 2 d sum_v h(v) v - 1/2 d sum_v q(v) v,    h = softmax of log((q + 1_z) / 2) in the logits

    **Biased** unless the rest is quadratic in the value. Liu, Dong, Liu, Yu and Gao 2023.
    """

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        ops, support = dist.ops, dist.enumerate_support()
        logits = floored(ops, dist.log_weights())
        q = ops.exp(logits)
        index = dist.pick(rng, logits, 0)[None]
        midway = ops.log(ops.stop_gradient(q + one_hot(ops, index, q)) / 2)
        h = softmax(ops, midway + logits - ops.stop_gradient(logits))
        path = mixed(ops, support, 2 * h - q / 2)
        return Draw(through(ops, ops.choose(support, index)[0], path))
