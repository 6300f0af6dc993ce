"""Densities of counts, safe where a probability is zero or a logit is.

JAX takes the derivative of x log(y) in y as weight / y, times x. For a Bernoulli of probability 0, y is the smallest number
there is, and the weight of a score or of a likelihood makes weight / y infinite: at a draw x = 0 the derivative is NaN.
Here x / y is taken first, and is 0 where x is.

NumPyro writes log(1 + e^l) as max(l, 0) + log(1 + e^-|l|), whose derivative at l = 0, where logits often begin, is JAX's for
one side of max and of |l|: 1, and not 1/2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy import special
from numpyro.distributions import discrete

from ppvi.numpyro import _compat


def _safe(function: Any, log: Callable[..., Any], shift: int) -> Callable[..., Any]:
    safe = jax.custom_jvp(function.fun)

    def slope(x: Any, y: Any) -> Any:
        counted = (x != 0) & (y + shift != 0)  # elsewhere it is 0, or -inf, through which nothing flows back
        return jnp.where(counted, x / jnp.where(counted, y + shift, 1), 0)

    safe.defjvps(lambda dx, out, x, y: dx * log(y), lambda dy, out, x, y: dy * slope(x, y))
    return safe


@jax.custom_jvp
def _sigmoid(x: Any, below: Any) -> Any:
    """1 / (1 + e^-x), of `below` = e^-|x|."""
    return jnp.where(x >= 0, 1, below) / (1 + below)


@_sigmoid.defjvp
def _sigmoid_jvp(primals: Any, tangents: Any) -> Any:
    slope = _sigmoid(*primals)
    return slope, tangents[0] * slope * (1 - slope)


_logaddexp: Any = jax.custom_jvp(_compat.logaddexp.fun)


@_logaddexp.defjvp
def _logaddexp_jvp(primals: Any, tangents: Any) -> Any:
    """Of one exponential, where JAX's rule takes another for the slope."""
    (x, y), (dx, dy) = primals, tangents
    below = jnp.exp(-jnp.abs(x - y))
    slope = _sigmoid(x - y, below)
    # The value by the function again, whose derivative at x = y is this one's, as that of max and |x - y| is not.
    return _logaddexp(x, y), dx * slope + dy * (1 - slope)


def _softplus(x: Any) -> Any:
    return _logaddexp(x, jnp.zeros_like(x))


def _cross_entropy(logits: Any, value: Any) -> Any:
    """-log_prob of a Bernoulli."""
    known = jnp.isfinite(logits)
    finite = jnp.where(known, logits, 0.0)
    return jnp.where(known, _softplus(finite) - finite * value, jnp.inf * jnp.logical_xor(value, logits > 0))


@discrete.validate_sample
def _binomial(self: Any, value: Any) -> Any:
    """log_prob of a Binomial."""
    n = jnp.asarray(self.total_count, jnp.result_type(float))
    choices = special.gammaln(n + 1) - special.gammaln(value + 1) - special.gammaln(n - value + 1)
    return value * self.logits - n * _softplus(self.logits) + choices


COUNTS = (
    (discrete, "binary_cross_entropy_with_logits", _cross_entropy),
    (discrete.BinomialLogits, "log_prob", _binomial),
    (discrete, "xlogy", _safe(special.xlogy, jnp.log, 0)),
    (discrete, "xlog1py", _safe(special.xlog1py, jnp.log1p, 1)),
)
"""What NumPyro's discrete distributions compute their densities with, and the safe logarithms instead."""
