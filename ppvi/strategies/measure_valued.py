"""Measure-valued gradients: the derivative of a distribution is a difference of two distributions, times a constant.

    d q(z) / d theta = c (q+(z) - q-(z)),    d E_q[f(z)] = E[df] + c (E_{q+} f - E_{q-} f)

Draws from q+ and q- are coupled where that is easy. f needs to be neither continuous nor known in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ppvi._ops import Array
from ppvi.strategies.alternatives import OneByOne, others
from ppvi.strategies.base import Distribution, Draw, needs_finite

Pairs = list[tuple[Array, Array]]
"""Alternative values, each with the weight whose derivative multiplies the rest there."""

DIGIT = 2.0**-23
"""The last of a number in single precision."""

Decomposition = tuple[Array, Array | None, Pairs]
"""A draw, its own weight if it is an alternative too, and the others."""


@dataclass(frozen=True)
class LocalExpectation(OneByOne):
    """Exact expectation of one lane at a time, the other lanes at their draws.

        d E_q[f(z)] = E[df(z) + sum_i sum_v f(z with z_i = v) dq_i(v)]

    Where no term couples lanes this is the gradient of `Enumerate`; where d lanes of N values are coupled it costs
    1 + d (N - 1) runs, not N^d, and has less variance than a score function.

    **Unbiased** always. Titsias and Lazaro-Gredilla 2015; as IndeCateR, De Smet et al. 2023.
    """

    def misfit(self, dist: Distribution) -> str | None:
        return needs_finite(self, dist)

    def sees_all(self, alternatives: int) -> bool:
        return True

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        ops, support, value = dist.ops, dist.enumerate_support(), dist.sample(rng)
        weights = dist.probabilities()
        drawn, rest = others(ops, support, value, len(weights.shape) - 1)
        weight = ops.choose(weights, drawn)[0]
        if rest is None:
            return Draw(value, weight=weight)
        return Draw(value, values=ops.choose(support, rest), weights=ops.choose(weights, rest), weight=weight)


def _normal(dist: Distribution, rng: Any) -> Decomposition:
    """Mean: Rayleigh draws on either side. Scale: a double-sided Maxwell draw against a normal one, M against M U."""
    loc, scale = dist.parameter("loc"), dist.parameter("scale")
    s = dist.ops.stop_gradient(scale)
    rayleigh = (2 * dist.noise(rng, "exponential", 0)) ** 0.5
    sign = 2.0 * (dist.noise(rng, "uniform", 1) < 0.5) - 1.0
    maxwell = sign * (2 * dist.noise(rng, "exponential", 1) + dist.noise(rng, "normal", 0) ** 2) ** 0.5
    mean, spread = loc / (s * math.sqrt(2 * math.pi)), scale / s
    return (
        dist.sample(rng),
        None,
        [
            (loc + s * rayleigh, mean),
            (loc - s * rayleigh, -mean),
            (loc + s * maxwell, spread),
            (loc + s * maxwell * dist.noise(rng, "uniform", 0), -spread),
        ],
    )


def _poisson(dist: Distribution, rng: Any) -> Decomposition:
    """dq/drate = q(x - 1) - q(x)."""
    x, rate = dist.sample(rng), dist.parameter("rate")
    return x, -rate, [(x + 1, rate)]


def _geometric(dist: Distribution, rng: Any) -> Decomposition:
    """dq/dp = (q - q * q shifted by one) / p: the sum of two draws and one against one draw."""
    x = dist.sample(rng)
    p = dist.ops.exp(dist.log_prob(0 * x))
    weight = p / dist.ops.stop_gradient(p)
    another = (-dist.noise(rng, "exponential", 0) / dist.ops.log(1 - p)) // 1
    return x, weight, [(x + another + 1, -weight)]


def _exponential(dist: Distribution, rng: Any) -> Decomposition:
    """dq/drate = (q - Gamma(2, rate)) / rate: one waiting time against two."""
    x, rate = dist.sample(rng), dist.parameter("rate")
    weight = rate / dist.ops.stop_gradient(rate)
    return x, weight, [(x + dist.noise(rng, "exponential", 0) / rate, -weight)]


def _gamma(dist: Distribution, rng: Any) -> Decomposition:
    """dq/drate = (q - Gamma(concentration + 1, rate)) concentration / rate: one waiting time more."""
    shape, rate = dist.parameter("concentration"), dist.parameter("rate")
    x, score, by_shape = _score(dist, rng, rate=rate)
    weight = dist.ops.stop_gradient(shape / rate) * rate
    return x, score + weight, [*by_shape, (x + dist.noise(rng, "exponential", 0) / rate, -weight)]


def _weibull(dist: Distribution, rng: Any) -> Decomposition:
    """(x / scale)^k is exponential: dq/dscale = (q with two waiting times - q) k / scale."""
    k, scale = dist.parameter("concentration"), dist.parameter("scale")
    x, score, by_shape = _score(dist, rng, scale=scale)
    weight = dist.ops.stop_gradient(k / scale) * scale
    longer = scale * ((x / scale) ** k + dist.noise(rng, "exponential", 0)) ** (1 / k)
    return x, score - weight, [*by_shape, (longer, weight)]


def _uniform(dist: Distribution, rng: Any) -> Decomposition:
    """dq/dhigh = (point mass at high - q) / width, dq/dlow = (q - point mass at low) / width.

    The point at `high` is a digit below it, since PyTorch counts the end itself as outside.
    """
    x, low, high = dist.sample(rng), dist.parameter("low"), dist.parameter("high")
    width = dist.ops.stop_gradient(high - low)
    return x, (low - high) / width, [(high - DIGIT * (abs(low) + abs(high)), high / width), (low, -low / width)]


def _score(dist: Distribution, rng: Any, **held: Array) -> Decomposition:
    """A draw, and the pair whose difference is the score of all parameters but those held, with the other as baseline.

    d E[f] = 1/2 E[(f(x) - f(y)) (dlog q(x) - dlog q(y))],    x, y ~ q
    """
    x, y = dist.samples(rng, 2)
    free = dist.replace(**{name: dist.ops.stop_gradient(value) for name, value in held.items()})
    weight = (free.log_prob(x) - free.log_prob(y)) / 2
    return x, weight, [(y, -weight)]


TABLE: dict[str, Callable[[Distribution, Any], Decomposition]] = {
    "Normal": _normal,
    "Poisson": _poisson,
    "Geometric": _geometric,
    "GeometricProbs": _geometric,
    "GeometricLogits": _geometric,
    "Exponential": _exponential,
    "Gamma": _gamma,
    "Weibull": _weibull,
    "Beta": _score,
    "Uniform": _uniform,
}
"""Decompositions by distribution; those with a finite support have one of their own, value by value."""


@dataclass(frozen=True)
class MeasureValued(OneByOne):
    """The measure-valued (weak) derivative, parameter by parameter, lane by lane.

        Normal       mean   (f(m + s W) - f(m - s W)) / (s sqrt(2 pi)),  W Rayleigh
                     scale  (f(m + s M) - f(m + s M U)) / s,  M double-sided Maxwell, U uniform
        Poisson      rate   f(x + 1) - f(x)
        Geometric    p      (f(x) - f(x + y + 1)) / p,  y another draw
        Exponential  rate   (f(x) - f(x + y)) / rate,  y another draw
        Gamma        rate   (f(x) - f(x + y / rate)) concentration / rate,  y standard exponential
        Weibull      scale  (f((x^k + y scale^k)^(1/k)) - f(x)) k / scale,  k the concentration, y standard exponential
        Uniform      high   (f(high) - f(x)) / width;   low   (f(x) - f(low)) / width
        finite              sum_v f(v) dq(v), as `LocalExpectation`

    The concentrations of Gamma, Weibull and Beta have no decomposition that is easy to draw from: theirs is the score of two
    draws, each with the other as baseline.

    **Unbiased when** f is measurable and integrable under q+ and q-; jumps of f are welcome, and so are supports that
    move with the bounds of a Uniform. Cost: one run of the rest and, for each coupled lane, as many plain evaluations as
    the table has values beside the draw. Heidergott and Vazquez-Abad 2008; Mohamed et al. 2020; Rosca et al. 2019.
    """

    def misfit(self, dist: Distribution) -> str | None:
        if dist.name in TABLE or dist.has_enumerate_support:
            return None
        known = ", ".join(name for name in TABLE if not name.startswith("Geometric"))
        return (
            f"no measure-valued derivative of {dist.name} is known here, only of {known}, Geometric and finite supports"
        )

    def sees_all(self, alternatives: int) -> bool:
        return True

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        if dist.name not in TABLE:
            return LocalExpectation().draw(dist, rng)
        x, weight, pairs = TABLE[dist.name](dist, rng)
        values, weights = map(dist.ops.stack, zip(*pairs, strict=True))
        return Draw(x, values=dist.ops.stop_gradient(values), weights=weights, weight=weight)
