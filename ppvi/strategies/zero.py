"""Zero times infinity: a value of probability zero counts nothing, whatever the rest is there.

    sum_v q(v) f(v),    0 f(v) = 0,    d (q(v) f(v)) = f(v) dq(v) where q(v) is 0 and f(v) is finite

The second line is the one-sided derivative at the edge of the simplex. It needs dq, and log q has none where q is 0, nor have
the libraries' densities, which keep their probabilities away from 0. So weights are made of probabilities where a distribution
is given by probabilities, and those that are 0 are told to whoever sums by a logarithm of about that of `NEGLIGIBLE`.
"""

from __future__ import annotations

import math

from ppvi._ops import Array, Ops

NEGLIGIBLE = 1e-30
"""What is not greater is the probability zero, which has a derivative all the same."""
LOG_NEGLIGIBLE = math.log(NEGLIGIBLE)
LARGEST = 1e38


def log_weights(ops: Ops, probabilities: Array) -> Array:
    """Their logarithms, of which the exponentials have the probabilities' derivatives even where these are 0."""
    held = ops.stop_gradient(probabilities)
    return ops.log(probabilities + ops.where(held > NEGLIGIBLE, 0.0, NEGLIGIBLE / 2))


def floored(ops: Ops, log_probs: Array) -> Array:
    """Finite log probabilities: that of a value of probability zero is below what counts, and has no derivative."""
    return ops.where(log_probs > -math.inf, log_probs, math.log(NEGLIGIBLE / 2))


def pickable(ops: Ops, log_weights: Array) -> Array:
    """Finite log weights `(K, *lanes)` to pick by: what does not count is out, unless nothing else is left."""
    out = (log_weights <= LOG_NEGLIGIBLE) & (ops.max(log_weights, 0) > LOG_NEGLIGIBLE)
    return ops.where(out, -math.inf, log_weights)


def counted(ops: Ops, value: Array, weight: Array) -> Array:
    """A value times its weight; of weight zero a value that is not finite counts nothing, and has no derivative.

    Only the value is guarded, since a choice on the other side has XLA store what it would fuse.
    """
    return ops.where((weight > NEGLIGIBLE) | is_finite(value), value, 0.0) * weight


def varied(ops: Ops, value: Array, weight: Array) -> Array:
    """A value times what its weight varies by: zero, with the weight's derivative.

    A value that is not finite counts nothing where the weight is zero. Elsewhere the objective is infinite itself, which shows
    at the draws, and here in a derivative that is as large as there is.
    """
    large = ops.where(value > 0, LARGEST, ops.where(value < 0, -LARGEST, value))  # NaN stays
    infinite = ops.where(weight == 0, 0.0, large)
    bounded = ops.where(is_finite(value), value, infinite)
    return bounded * (weight - ops.stop_gradient(weight))


def is_finite(x: Array) -> Array:
    return abs(x) < math.inf
