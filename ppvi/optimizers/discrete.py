"""Families on integers: the mean parameters are probabilities, or a rate."""

from __future__ import annotations

import math

from ppvi._ops import Array
from ppvi.optimizers.algebra import Algebra
from ppvi.optimizers.base import Arguments
from ppvi.optimizers.family import TINY


class BernoulliProbs:
    """l = log p - log(1 - p), m = p."""

    arguments = ("probs",)
    bends = False

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        return at["probs"] * (1 - at["probs"]) * slope["probs"] ** 2

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        return math.inf

    def moved(self, at: Arguments, slope: Arguments, rate: Array, bent: bool, algebra: Algebra) -> Arguments:
        p, step = at["probs"], rate * slope["probs"]
        up, down = p * algebra.exp(algebra.minimum(step, 0.0)), (1 - p) * algebra.exp(-algebra.maximum(step, 0.0))
        return {"probs": up / (up + down)}


class BernoulliLogits:
    """The same, with l the argument."""

    arguments = ("logits",)
    bends = False

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        return slope["logits"] ** 2 / self._variance(at, algebra)

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        return math.inf

    def moved(self, at: Arguments, slope: Arguments, rate: Array, bent: bool, algebra: Algebra) -> Arguments:
        return {"logits": at["logits"] + rate * slope["logits"] / self._variance(at, algebra)}

    def _variance(self, at: Arguments, algebra: Algebra) -> Array:
        odds = algebra.exp(-abs(at["logits"]))
        return algebra.maximum(odds / (1 + odds) ** 2, TINY)


class CategoricalProbs:
    """l = log p up to a constant, m = p."""

    arguments = ("probs",)
    bends = False

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        p, up = at["probs"], slope["probs"]
        mean = algebra.sum(p * up, -1, keepdims=True)
        return algebra.sum(p * (up - mean) ** 2, -1)

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        return math.inf

    def moved(self, at: Arguments, slope: Arguments, rate: Array, bent: bool, algebra: Algebra) -> Arguments:
        step = rate[..., None] * slope["probs"]
        weights = at["probs"] * algebra.exp(step - algebra.max(step, -1, keepdims=True))
        return {"probs": weights / algebra.sum(weights, -1, keepdims=True)}


class CategoricalLogits:
    """The same, with l the argument: F = diag(p) - p p', and slopes that add up to zero."""

    arguments = ("logits",)
    bends = False

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        return algebra.sum(slope["logits"] * self._direction(at, slope, algebra), -1)

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        return math.inf

    def moved(self, at: Arguments, slope: Arguments, rate: Array, bent: bool, algebra: Algebra) -> Arguments:
        return {"logits": at["logits"] + rate[..., None] * self._direction(at, slope, algebra)}

    def _direction(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        weights = algebra.exp(at["logits"] - algebra.max(at["logits"], -1, keepdims=True))
        return slope["logits"] / algebra.maximum(weights / algebra.sum(weights, -1, keepdims=True), TINY)


class Poisson:
    """l = log rate, m = rate."""

    arguments = ("rate",)
    bends = False

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        return at["rate"] * slope["rate"] ** 2

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        return math.inf

    def moved(self, at: Arguments, slope: Arguments, rate: Array, bent: bool, algebra: Algebra) -> Arguments:
        return {"rate": at["rate"] * algebra.exp(rate * slope["rate"])}
