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


def shape_and_detail(pictures: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of pictures of 28 by 28 pixels: the means of blocks of 4 by 4, and what is left of each pixel beside these."""
    blocks = np.asarray(pictures).reshape(-1, 7, 4, 7, 4)
    means = blocks.mean((2, 4), keepdims=True)
    return means.ravel(), (blocks - means).ravel()
