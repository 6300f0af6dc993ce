"""How good a model of many independent data is, datum by datum, which no evaluation may mix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def by_datum(estimate: Callable[..., Any]) -> Callable[[jax.Array, Any, Any], np.ndarray]:
    """Takes key, parameters and data to estimates of an objective for each row by itself, `(n,)`.

    Rows come one after the other, so that memory is that of one. With `vi.objective(iwelbo(5000), model, guide).estimate` the
    estimates are log densities of the data, from below. It is compiled once for data of a shape.
    """

    @jax.jit
    def one_by_one(key: jax.Array, params: Any, x: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(x))
        return jax.lax.map(lambda each: estimate(each[0], params, each[1][None]), (keys, x))

    return lambda key, params, x: np.asarray(one_by_one(key, params, jnp.asarray(x)), np.float64)


def gradient_moments(bound: Any, n: int) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Takes key, parameters and data to mean and variance of n estimates of an objective's gradient, `(parameters,)` each."""

    @jax.jit
    def moments(key: jax.Array, params: Any, *data: Any) -> tuple[jax.Array, jax.Array]:
        def one(key: jax.Array) -> jax.Array:
            grad = bound.value_and_grad(key, params, *data)[1]
            return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grad)])

        each = jax.lax.map(one, jax.random.split(key, n))
        return each.mean(0), each.var(0, ddof=1)

    def found(key: jax.Array, params: Any, *data: Any) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = moments(key, params, *data)
        return np.asarray(mean, np.float64), np.asarray(variance, np.float64)

    return found
