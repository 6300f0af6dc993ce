"""Densities of counts, safe where a probability is zero.

JAX takes the derivative of x log(y) in y as weight / y, times x. For a Bernoulli of probability 0, y is the smallest number
there is, and the weight of a score or of a likelihood makes weight / y infinite: at a draw x = 0 the derivative is NaN.
Here x / y is taken first, and is 0 where x is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy import special

from ppvi.numpyro.replay import replay, run


def log_prob(fn: dist.Distribution, value: Any) -> Any:
    """`fn.log_prob(value)`, with safe derivatives of logarithms that a discrete value multiplies."""
    if not getattr(fn.support, "is_discrete", False):
        return fn.log_prob(value)
    closed = jax.make_jaxpr(lambda: fn.log_prob(value))()
    (out,) = replay(closed.jaxpr, closed.consts, (), _operation)
    return out


def _operation(eqn: Any, values: Sequence[Any]) -> Sequence[Any]:
    if eqn.primitive.name == "custom_jvp_call":
        name = eqn.params["call_jaxpr"].jaxpr.debug_info.func_src_info.partition(" at ")[0]
        if name in SAFE:
            return [SAFE[name](*values)]
    return run(eqn, values)


def _safe(function: Any, log: Callable[..., Any], shift: int) -> Callable[..., Any]:
    safe = jax.custom_jvp(function.fun)

    def slope(x: Any, y: Any) -> Any:
        present = x != 0
        return jnp.where(present, x / jnp.where(present, y + shift, 1), 0)

    safe.defjvps(lambda dx, out, x, y: dx * log(y), lambda dy, out, x, y: dy * slope(x, y))
    return safe


SAFE = {"xlogy": _safe(special.xlogy, jnp.log, 0), "xlog1py": _safe(special.xlog1py, jnp.log1p, 1)}
