"""Draws and densities near the ends of supports, where NumPyro's and JAX's own are not finite.

`jax.random.uniform` is exactly 0 once in some ten million draws, from which inversion makes an end of the support; here it is
the next number instead. A Gamma of small shape underflows to 0. And the slope of a power y = x^e overflows where y / x does,
though its logarithm, log|e| + (1 - 1/e) log y, does not.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import continuous, transforms

from ppvi.engine.distributions import least
from ppvi.engine.exchanged import Exchanged
from ppvi.numpyro._counts import COUNTS


class Random:
    """`jax.random`, with uniform numbers from the open interval."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jax.random, name)

    def uniform(
        self, key: jax.Array, shape: Any = (), dtype: Any = float, minval: Any = None, maxval: Any = 1.0
    ) -> Any:
        if minval is not None:
            return jax.random.uniform(key, shape, dtype, minval, maxval)
        u = jax.random.uniform(key, shape, dtype, maxval=maxval)
        return jnp.maximum(u, jnp.finfo(u.dtype).eps)

    def gamma(self, key: jax.Array, a: Any, shape: Any = None, dtype: Any = float) -> Any:
        x = jax.random.gamma(key, a, shape, dtype)
        return jnp.maximum(x, least(jnp.finfo(x.dtype)))

    def exponential(self, key: jax.Array, shape: Any = (), dtype: Any = float) -> Any:
        return -jnp.log1p(-self.uniform(key, shape, dtype))

    def weibull_min(self, key: jax.Array, scale: Any, concentration: Any, shape: Any = (), dtype: Any = float) -> Any:
        return jnp.power(self.exponential(key, shape, dtype), 1.0 / concentration) * scale


def _power(self: Any, x: Any) -> Any:
    return jnp.exp(self.exponent * jnp.log(jnp.maximum(x, jnp.finfo(jnp.result_type(x, 1.0)).tiny)))


def _log_slope(self: Any, x: Any, y: Any, intermediates: Any = None) -> Any:
    return jnp.log(jnp.abs(self.exponent)) + (1 - 1 / self.exponent) * jnp.log(y)


_CAREFUL = Exchanged(
    (continuous, "random", Random()),
    (transforms.PowerTransform, "__call__", _power),
    (transforms.PowerTransform, "log_abs_det_jacobian", _log_slope),
    *COUNTS,
)


def careful() -> Exchanged:
    """NumPyro's distributions draw, and compute their densities, with care for the ends of their supports."""
    return _CAREFUL
