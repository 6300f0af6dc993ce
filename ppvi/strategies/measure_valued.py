"""Measure-valued gradients: the derivative of a distribution is a difference of two distributions, times a constant.

    d q(z) / d theta = c (q+(z) - q-(z)),    d E_q[f(z)] = E[df] + c (E_{q+} f - E_{q-} f)

Draws from q+ and q- are coupled where that is easy. f needs to be neither continuous nor known in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ppvi.ops import Array
from ppvi.strategies.alternatives import one_by_one
from ppvi.strategies.base import Continuation, Distribution, Draw, Site, Strategy, Terms

Pairs = list[tuple[Array, Array]]
"""Alternative values, each with the weight whose derivative multiplies the rest there."""


@dataclass(frozen=True)
class LocalExpectation(Strategy):
    """Exact expectation of one lane at a time, the other lanes at their draws.

        d E_q[f(z)] = E[df(z) + sum_i sum_v f(z with z_i = v) dq_i(v)]

    Where no term couples lanes this is the gradient of `Enumerate`; where d lanes of N values are coupled it costs 1 + d N
    runs, not N^d, and has less variance than a score function.

    **Unbiased** always. Titsias and Lazaro-Gredilla 2015; as IndeCateR, De Smet et al. 2023.
    """

    fixed_support: ClassVar[bool] = False

    def misfit(self, dist: Distribution) -> str | None:
        if dist.has_enumerate_support:
            return None
        return f"{dist.name} has no finite support; MeasureValued(), LeaveOneOut() or Reinforce() need none"

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        support = dist.enumerate_support()
        return Draw(dist.sample(rng), values=support, weights=dist.ops.exp(dist.log_prob(support)))

    def estimate(self, site: Site, k: Continuation) -> Terms:
        return one_by_one(site, k)


def _normal(dist: Distribution, rng: Any, x: Array) -> Pairs:
    """Mean: Rayleigh draws on either side. Scale: a double-sided Maxwell draw against a normal one, M against M U."""
    loc, scale = dist.parameter("loc"), dist.parameter("scale")
    s = dist.ops.stop_gradient(scale)
    rayleigh = (2 * dist.noise(rng, "exponential", 0)) ** 0.5
    sign = 2.0 * (dist.noise(rng, "uniform", 1) < 0.5) - 1.0
    maxwell = sign * (2 * dist.noise(rng, "exponential", 1) + dist.noise(rng, "normal", 0) ** 2) ** 0.5
    mean, spread = loc / (s * math.sqrt(2 * math.pi)), scale / s
    return [
        (loc + s * rayleigh, mean),
        (loc - s * rayleigh, -mean),
        (loc + s * maxwell, spread),
        (loc + s * maxwell * dist.noise(rng, "uniform", 0), -spread),
    ]


def _poisson(dist: Distribution, rng: Any, x: Array) -> Pairs:
    """dq/drate = q(x - 1) - q(x)."""
    rate = dist.parameter("rate")
    return [(x + 1, rate), (x, -rate)]


def _geometric(dist: Distribution, rng: Any, x: Array) -> Pairs:
    """dq/dp = (q - q * q shifted by one) / p: the sum of two draws and one against one draw."""
    p = dist.ops.exp(dist.log_prob(0 * x))
    weight = p / dist.ops.stop_gradient(p)
    another = (-dist.noise(rng, "exponential", 0) / dist.ops.log(1 - p)) // 1
    return [(x + another + 1, -weight), (x, weight)]


def _exponential(dist: Distribution, rng: Any, x: Array) -> Pairs:
    """dq/drate = (q - Gamma(2, rate)) / rate: one waiting time against two."""
    rate = dist.parameter("rate")
    weight = rate / dist.ops.stop_gradient(rate)
    return [(x, weight), (x + dist.noise(rng, "exponential", 0) / rate, -weight)]


def _uniform(dist: Distribution, rng: Any, x: Array) -> Pairs:
    """dq/dhigh = (point mass at high - q) / width, dq/dlow = (q - point mass at low) / width."""
    low, high = dist.parameter("low"), dist.parameter("high")
    width = dist.ops.stop_gradient(high - low)
    return [(high, high / width), (x, -high / width), (x, low / width), (low, -low / width)]


TABLE: dict[str, Callable[[Distribution, Any, Array], Pairs]] = {
    "Normal": _normal,
    "Poisson": _poisson,
    "Geometric": _geometric,
    "GeometricProbs": _geometric,
    "GeometricLogits": _geometric,
    "Exponential": _exponential,
    "Uniform": _uniform,
}
"""Decompositions by distribution; those with a finite support have one of their own, value by value."""


@dataclass(frozen=True)
class MeasureValued(Strategy):
    """The measure-valued (weak) derivative, parameter by parameter, lane by lane.

        Normal       mean   (f(m + s W) - f(m - s W)) / (s sqrt(2 pi)),  W Rayleigh
                     scale  (f(m + s M) - f(m + s M U)) / s,  M double-sided Maxwell, U uniform
        Poisson      rate   f(x + 1) - f(x)
        Geometric    p      (f(x) - f(x + y + 1)) / p,  y another draw
        Exponential  rate   (f(x) - f(x + y)) / rate,  y another draw
        Uniform      high   (f(high) - f(x)) / width;   low   (f(x) - f(low)) / width
        finite              sum_v f(v) dq(v), as `LocalExpectation`

    **Unbiased when** f is measurable and integrable under q+ and q-; jumps of f are welcome, and so are supports that
    move with the bounds of a Uniform. Cost: one run of the rest and, for each coupled lane, as many plain evaluations as
    the table has values. Heidergott and Vazquez-Abad 2008; Mohamed et al. 2020; Rosca et al. 2019.
    """

    fixed_support: ClassVar[bool] = False

    def misfit(self, dist: Distribution) -> str | None:
        if dist.name in TABLE or dist.has_enumerate_support:
            return None
        known = ", ".join(name for name in TABLE if not name.startswith("Geometric"))
        return (
            f"no measure-valued derivative of {dist.name} is known here, only of {known}, Geometric and finite supports"
        )

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        if dist.name not in TABLE:
            return LocalExpectation().draw(dist, rng)
        x = dist.sample(rng)
        values, weights = zip(*TABLE[dist.name](dist, rng, x), strict=True)
        return Draw(x, values=dist.ops.stop_gradient(dist.ops.stack(values)), weights=dist.ops.stack(weights))

    def estimate(self, site: Site, k: Continuation) -> Terms:
        return one_by_one(site, k)
