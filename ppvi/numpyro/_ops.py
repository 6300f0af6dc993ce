"""`ppvi._ops.Ops` on JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppvi.strategies.zero import NEGLIGIBLE


class JaxOps:
    """JAX's side of the protocol."""

    def exp(self, x: jax.Array) -> jax.Array:
        return jnp.exp(x)

    def log(self, x: jax.Array) -> jax.Array:
        return jnp.log(x)

    def moveaxis(self, x: jax.Array, source: int, target: int) -> jax.Array:
        return jnp.moveaxis(x, source, target)

    def reshape(self, x: jax.Array, shape: Sequence[int]) -> jax.Array:
        return jnp.reshape(x, shape)

    def transpose(self, x: jax.Array, axes: Sequence[int]) -> jax.Array:
        return jnp.transpose(x, axes)

    def broadcast(self, x: jax.Array, shape: Sequence[int]) -> jax.Array:
        return jnp.broadcast_to(x, shape)

    def concatenate(self, xs: Sequence[jax.Array]) -> jax.Array:
        return jnp.concatenate(list(xs))

    def stack(self, xs: Sequence[jax.Array]) -> jax.Array:
        return jnp.stack([jnp.asarray(x) for x in jnp.broadcast_arrays(*xs)])

    def tree_map(self, function: Callable[..., jax.Array], *trees: Any) -> Any:
        return jax.tree.map(function, *trees)

    def zeros(self, shape: Sequence[int], like: jax.Array | None = None) -> jax.Array:
        return jnp.zeros(shape, None if like is None else like.dtype)

    def scan(
        self,
        step: Callable[[jax.Array, Sequence[jax.Array]], jax.Array],
        start: jax.Array,
        xs: Sequence[jax.Array],
        n: int,
        backward: bool,
    ) -> jax.Array:
        def body(carry: jax.Array, entries: Sequence[jax.Array]) -> tuple[jax.Array, None]:
            return step(carry, entries).astype(carry.dtype), None

        return lax.scan(body, start, list(xs), n, backward)[0]

    def constant(self, x: np.ndarray, dtype: str) -> jax.Array:
        return jnp.asarray(x, dtype)

    def array(self, x: Any) -> jax.Array:
        return jnp.asarray(x, jnp.result_type(float))

    def stop_gradient(self, x: jax.Array) -> jax.Array:
        return lax.stop_gradient(x)

    def cancelling(self, x: jax.Array) -> jax.Array:
        return lax.stop_gradient(x)

    def sum(self, x: jax.Array, axes: Sequence[int]) -> jax.Array:
        return jnp.sum(x, axis=tuple(axes)) if len(axes) else x

    def mean(self, x: jax.Array, axis: int) -> jax.Array:
        return jnp.mean(x, axis=axis)

    def logsumexp(self, x: jax.Array, axis: int) -> jax.Array:
        return jax.scipy.special.logsumexp(x, axis=axis)

    def log_sum(self, x: jax.Array, weights: jax.Array | None) -> jax.Array:
        return _log_sum(x, jnp.ones((), x.dtype) if weights is None else weights)

    def logaddexp(self, x: Any, y: Any) -> jax.Array:
        return jnp.logaddexp(x, y)

    def max(self, x: jax.Array, axis: int) -> jax.Array:
        return jnp.max(x, axis=axis)

    def cumsum(self, x: jax.Array, axis: int) -> jax.Array:
        return jnp.cumsum(x, axis=axis)

    def argsort(self, x: jax.Array, axis: int) -> jax.Array:
        return jnp.argsort(x, axis=axis)

    def choose(self, values: jax.Array, index: Any) -> jax.Array:
        index = index.reshape(index.shape + (1,) * (values.ndim - index.ndim))
        shape = (index.shape[0], *values.shape[1:])
        return jnp.take_along_axis(values, jnp.broadcast_to(index, shape), axis=0)

    def linear_coefficients(
        self, function: Callable[..., jax.Array], arguments: Sequence[tuple[Sequence[int], str]]
    ) -> tuple[jax.Array, Sequence[jax.Array]]:
        reals = [(shape, dtype if jnp.issubdtype(dtype, jnp.floating) else float) for shape, dtype in arguments]
        constant, pull = jax.vjp(function, *[jnp.zeros(shape, dtype) for shape, dtype in reals])
        return constant, pull(jnp.ones_like(constant))

    def where(self, condition: jax.Array, x: Any, y: Any) -> jax.Array:
        return jnp.where(condition, x, y)

    def vmap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.vmap(function)

    def one_by_one(self, function: Callable[..., Any]) -> Callable[..., Any]:
        run = jax.checkpoint(function)
        return lambda *args: lax.map(lambda entry: run(*entry), args)


def _shares(x: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What exponents are taken above, the exponentials, and their weighed sum."""
    held, w = OPS.cancelling(x), OPS.cancelling(weights)
    top = jnp.max(jnp.where((w > NEGLIGIBLE) | ((w > 0) & (held < jnp.inf)), held, -jnp.inf), axis=0)
    top = jnp.where(top > -jnp.inf, top, 0.0)
    # A value of weight zero may be likelier than all others by more than an exponential can hold, or be no number.
    ahead = held - top
    usual = (w > NEGLIGIBLE) | (ahead <= HIGHEST)
    shares = jnp.exp(jnp.where(usual, x - top, jnp.where(ahead > HIGHEST, HIGHEST, -jnp.inf)))
    return top, shares, jnp.sum(weights * shares, axis=0)


@jax.custom_jvp
def _log_sum(x: jax.Array, weights: jax.Array) -> jax.Array:
    top, _, total = _shares(x, weights)
    return jnp.log(total) + top


@_log_sum.defjvp
def _log_sum_jvp(primals: Any, tangents: Any) -> Any:
    (_, weights), (dx, dw) = primals, tangents
    _, shares, total = _shares(*primals)
    slope = jnp.sum(jnp.where(shares == 0, 0.0, shares * (weights * dx + dw)), axis=0)
    # The value by this rule again, for its derivative where the sum is zero.
    return _log_sum(*primals), jnp.where(total == 0, 0.0, slope / jnp.where(total == 0, 1.0, total))


HIGHEST = 80.0
"""The logarithm of about the largest number of single precision."""
OPS = JaxOps()
