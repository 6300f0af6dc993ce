"""Unbiased estimates of functions of an expectation, and of sums over data.

A plain function of an unbiased estimate is no unbiased estimate: E[g(X)] is not g(E[X]) unless g is linear. The verbs here
run a *thunk*, whose value X has the expectation mu in question, a random number of times, with finite expected cost,
and combine the runs so that the result has expectation g(mu):

    value       G + G' (X - X')              E[G] = g(mu), E[G'] = g'(mu), X' another run
    gradient    E[G'] dE[X] = d g(mu)        by the strategies of the sites in X

G, G' and X' are plain runs, without gradient machinery, in a loop; X alone is differentiated, and credited like any part of
an objective. What comes out is marked as an estimate, so that a check can see a nonlinear function applied to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ppvi._doors import count, function, number
from ppvi._ops import Array
from ppvi.program import each, session, stop_gradient

_SLOPE = "the gradient of a function of an expectation is its slope, estimated apart, times that of the expectation"

DECAY = 2.0**-1.5
"""P(level >= n) = DECAY^n. Level n costs 2^(n+1) runs, and its increment has a second moment of order 4^-n: both the cost,
sum (2 DECAY)^n, and the variance, sum (1 / (4 DECAY))^n, are finite. Blanchet and Glynn 2015."""


def exp_of(thunk: Callable[[], Array], *, rate: float = 1.0, center: Array | None = None) -> Array:
    """An unbiased estimate of exp(E[X]) (Poisson estimator).

        G = exp(rate + c) prod_{i=1..N} (X_i - c) / rate,    N ~ Poisson(rate)

    **Arguments**

    - `thunk`: a function of no arguments that returns X, a scalar; it may draw from programs.
    - `rate`: expected number of runs, positive. The second moment is exp(rate + 2c + E[(X - c)^2] / rate), least at
      rate^2 = E[(X - c)^2].
    - `center`: c, a constant near E[X]; by default another run of the thunk.

    **Unbiased when** X has a finite second moment and its strategies are unbiased.
    Papaspiliopoulos 2011; Fearnhead, Papaspiliopoulos and Roberts 2008.
    """
    number("exp_of: the rate", rate, above=0)
    _refuse_no_thunk("exp_of", thunk)
    now = session()
    differentiable = thunk()
    c = _plain(thunk) if center is None else center
    product = now.fold(now.poisson(rate), lambda i, product: product * (thunk() - c) / rate, 1.0)
    value = stop_gradient(now.ops.exp(rate + c) * product, because=_SLOPE)
    return _joined("exp", value, value, differentiable, _plain(thunk))


def log_of(thunk: Callable[[], Array], *, logs: bool = False) -> Array:
    """An unbiased estimate of log(E[X]), X positive, by randomised multilevel Monte Carlo.

    **Arguments**

    - `thunk`: a function of no arguments that returns X, a positive scalar; it may draw from programs.
    - `logs`: whether it returns log X instead.

    **Unbiased when** log X and 1 / X have finite moments of some order above 2, and the strategies are unbiased. It costs
    one run and, on average, 7.4 plain ones; single estimates may cost many more. With importance weights for X it is an
    unbiased estimate of log p(x), where the ELBO is a bound. Blanchet and Glynn 2015; Luo et al. 2020; Shi and Cornish 2021.
    """
    _refuse_no_thunk("log_of", thunk)
    return _multilevel(None, thunk, logs)


def power_of(exponent: float, thunk: Callable[[], Array], *, logs: bool = False) -> Array:
    """An unbiased estimate of E[X]^a, X positive, by randomised multilevel Monte Carlo.

    **Arguments**

    - `exponent`: a, any real; -1 for a reciprocal.
    - `thunk`, `logs`: as for `log_of`.

    **Unbiased when** X^a and X^(a-1) have finite moments of some order above 2, and the strategies are unbiased.
    Blanchet and Glynn 2015.
    """
    number("power_of(exponent, thunk): the exponent", exponent)
    _refuse_no_thunk("power_of", thunk)
    return _multilevel(exponent, thunk, logs)


def minibatch(function: Callable[..., Array], data: Any, size: int) -> Array:
    """An unbiased estimate of a sum over data.

        N / n sum_{i in batch} f(x_i),    batch of n drawn without replacement from N

    **Arguments**

    - `function`: takes one row of the data to an array.
    - `data`: an array, or a tree of arrays, with the N rows along the leading axis.
    - `size`: n, from 1 to N.

    **Unbiased** always, for uses that are linear in it; for an exponential, a logarithm or a power of the sum use `exp_of`,
    `log_of` or `power_of`, with this as the thunk.
    """
    count("minibatch: the size", size)
    now = session()
    rows, total = now.subset(data, size)
    values = each(function, rows)
    return now.estimate(values.sum(0) * (total / size), f"minibatch of {size} among {total}")


def _multilevel(exponent: float | None, thunk: Callable[[], Array], logs: bool) -> Array:
    """g(E[X]) for g a power, or the logarithm where there is no exponent.

        G = g(X_0) + D_n / P(n),    D_n = g(mean of 2^(n+1)) - (g(mean of the even) + g(mean of the odd)) / 2

    All in units of another run's X, so that weights of any size stay in range.
    """
    now = session()
    ops = now.ops
    log = thunk if logs else (lambda: ops.log(thunk()))
    differentiable = log()
    c = _plain(log)
    level = now.geometric(DECAY)

    def add(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        even, odd = sums
        x = log() - c
        return ops.where(i % 2 == 0, ops.logaddexp(even, x), even), ops.where(i % 2 == 0, odd, ops.logaddexp(odd, x))

    even, odd = now.fold(2 ** (level + 1), add, (-math.inf, -math.inf))
    half = level * math.log(2.0)
    even, odd, both = even - half, odd - half, ops.logaddexp(even, odd) - half - math.log(2.0)
    probability = (1 - DECAY) * DECAY**level
    first = _plain(log) - c

    def randomised(g: Callable[[Array], Array]) -> Array:
        return stop_gradient(g(first) + (g(both) - (g(even) + g(odd)) / 2) / probability, because=_SLOPE)

    run, other = ops.exp(differentiable - c), ops.exp(_plain(log) - c)
    if exponent is None:
        value, slope = randomised(lambda m: m) + c, randomised(lambda m: ops.exp(-m))
        return _joined("log", value, slope, run, other)
    unit = ops.exp(exponent * c)
    value, slope = randomised(lambda m: ops.exp(exponent * m)), randomised(lambda m: ops.exp((exponent - 1) * m))
    return _joined(f"power {exponent}", value * unit, exponent * slope * unit, run, other)


def _refuse_no_thunk(verb: str, thunk: Any) -> None:
    hint = "It is run again and again: write lambda: in front of what it is to return."
    function(f"{verb}: the thunk", thunk, hint, of=())


def _joined(name: str, value: Array, slope: Array, run: Array, other: Array) -> Array:
    """Expectation E[value] and gradient E[slope] dE[run]: `other` is `run` again, without a gradient.

    Marked as two summands, so that no site of `run` is credited with the first.
    """
    what = f"{name} of an expectation"
    return session().estimate(value, what) + session().estimate(slope * (run - other), what)


def _plain(thunk: Callable[[], Array]) -> Array:
    """One run without gradient machinery."""
    return session().fold(1, lambda i, before: thunk() + 0.0 * before, 0.0)
