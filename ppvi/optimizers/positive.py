"""Families on positive numbers and on the simplex: the arguments are natural parameters, up to signs and constants."""

from __future__ import annotations

from ppvi._ops import Array
from ppvi.optimizers.algebra import Algebra
from ppvi.optimizers.base import Arguments
from ppvi.optimizers.family import above_zero


class Exponential:
    """F = 1 / rate^2."""

    arguments = ("rate",)
    bends = False

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        return (at["rate"] * slope["rate"]) ** 2

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        return above_zero(at["rate"], at["rate"] ** 2 * slope["rate"], algebra)

    def moved(self, at: Arguments, slope: Arguments, rate: Array, bent: bool, algebra: Algebra) -> Arguments:
        return {"rate": at["rate"] + rate * at["rate"] ** 2 * slope["rate"]}


class Gamma:
    """F is diagonal in concentration and mean = concentration / rate: trigamma(concentration) - 1 / concentration, and
    concentration / mean^2."""

    arguments = ("concentration", "rate")
    bends = False

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        along, excess = self._along(at, slope), _excess(at["concentration"], algebra)
        return along**2 / excess + (slope["rate"] * at["rate"]) ** 2 / at["concentration"]

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        return _limit(at, self._direction(at, slope, algebra), algebra)

    def moved(self, at: Arguments, slope: Arguments, rate: Array, bent: bool, algebra: Algebra) -> Arguments:
        return _moved(at, self._direction(at, slope, algebra), rate)

    def _along(self, at: Arguments, slope: Arguments) -> Array:
        """The slope in the concentration at the same mean."""
        return slope["concentration"] + slope["rate"] * at["rate"] / at["concentration"]

    def _direction(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Arguments:
        a, b = at["concentration"], at["rate"]
        up = self._along(at, slope) / _excess(a, algebra)
        return {"concentration": up, "rate": (up * b + slope["rate"] * b**2) / a}


class Dirichlet:
    """F = diag(trigamma(a)) - trigamma(sum a), inverted by Sherman and Morrison's formula."""

    arguments = ("concentration",)
    bends = False

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        return algebra.sum(slope["concentration"] * self._direction(at, slope, algebra), -1)

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        each = above_zero(at["concentration"], self._direction(at, slope, algebra), algebra)
        return -algebra.max(-each, -1)

    def moved(self, at: Arguments, slope: Arguments, rate: Array, bent: bool, algebra: Algebra) -> Arguments:
        return {"concentration": at["concentration"] + rate[..., None] * self._direction(at, slope, algebra)}

    def _direction(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        a = at["concentration"]
        each, whole = algebra.trigamma(a), algebra.trigamma(algebra.sum(a, -1, keepdims=True))
        alone = slope["concentration"] / each
        left = 1 - whole * algebra.sum(1 / each, -1, keepdims=True)
        return alone + whole * algebra.sum(alone, -1, keepdims=True) / left / each


class Beta:
    """A Dirichlet of two."""

    arguments = ("concentration1", "concentration0")
    bends = False

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        up = self._direction(at, slope, algebra)
        first, second = self.arguments
        return slope[first] * up[first] + slope[second] * up[second]

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        return _limit(at, self._direction(at, slope, algebra), algebra)

    def moved(self, at: Arguments, slope: Arguments, rate: Array, bent: bool, algebra: Algebra) -> Arguments:
        return _moved(at, self._direction(at, slope, algebra), rate)

    def _direction(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Arguments:
        first, second = self.arguments
        each = {name: algebra.trigamma(at[name]) for name in self.arguments}
        whole = algebra.trigamma(at[first] + at[second])
        left = 1 - whole * (1 / each[first] + 1 / each[second])
        shared = whole * (slope[first] / each[first] + slope[second] / each[second]) / left
        return {name: (slope[name] + shared) / each[name] for name in self.arguments}


def _limit(at: Arguments, direction: Arguments, algebra: Algebra) -> Array:
    """The step sizes below which both of two arguments stay positive."""
    return algebra.minimum(*(above_zero(at[name], direction[name], algebra) for name in direction))


def _moved(at: Arguments, direction: Arguments, rate: Array) -> Arguments:
    return {name: at[name] + rate * direction[name] for name in direction}


def _excess(a: Array, algebra: Algebra) -> Array:
    """trigamma(a) - 1 / a, by its asymptotic series where the two are nearly equal (Abramowitz and Stegun 1964, 6.4.12)."""
    small, b = a < SERIES, 1 / algebra.maximum(a, SERIES)
    series = b**2 / 2 + b**3 / 6 - b**5 / 30 + b**7 / 42 - b**9 / 30
    return algebra.where(small, algebra.trigamma(a) - 1 / a, series)


SERIES = 20.0
"""From where the series is exact to 13 digits."""
