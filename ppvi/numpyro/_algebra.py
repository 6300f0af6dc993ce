"""`ppvi.optimizers.algebra.Algebra` on JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import digamma, polygamma


class JaxAlgebra:
    """JAX's side of the protocol."""

    exp, log, sqrt = staticmethod(jnp.exp), staticmethod(jnp.log), staticmethod(jnp.sqrt)
    minimum, maximum = staticmethod(jnp.minimum), staticmethod(jnp.maximum)
    tril, zeros_like, digamma = staticmethod(jnp.tril), staticmethod(jnp.zeros_like), staticmethod(digamma)
    cholesky, eigenvalues = staticmethod(jnp.linalg.cholesky), staticmethod(jnp.linalg.eigvalsh)

    def sum(self, x: jax.Array, axes: int | tuple[int, ...], keepdims: bool = False) -> jax.Array:
        return jnp.sum(x, axis=axes, keepdims=keepdims)

    def max(self, x: jax.Array, axis: int, keepdims: bool = False) -> jax.Array:
        return jnp.max(x, axis=axis, keepdims=keepdims)

    def where(self, condition: jax.Array, x: Any, y: Any) -> jax.Array:
        return jnp.where(condition, x, y)

    def trigamma(self, x: jax.Array) -> jax.Array:
        return polygamma(1, x)

    def transpose(self, x: jax.Array) -> jax.Array:
        return jnp.swapaxes(x, -1, -2)

    def flip(self, x: jax.Array) -> jax.Array:
        return jnp.flip(x, (-2, -1))

    def eye(self, n: int, like: jax.Array) -> jax.Array:
        return jnp.eye(n, dtype=like.dtype)

    def solve_lower(self, factor: jax.Array, right: jax.Array) -> jax.Array:
        return solve_triangular(factor, jnp.broadcast_to(right, factor.shape[:-1] + right.shape[-1:]), lower=True)

    def solve_upper(self, factor: jax.Array, right: jax.Array) -> jax.Array:
        return solve_triangular(factor, right, lower=True, trans=1)

    def repeat(self, n: int, step: Callable[[Any], Any], start: Any) -> Any:
        return jax.lax.fori_loop(0, n, lambda i, carry: step(carry), start)

    def columns(self, function: Callable[[jax.Array], jax.Array], n: int, like: jax.Array) -> jax.Array:
        return jax.vmap(function)(self.eye(n, like)).T

    def eigen(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        values, vectors = jnp.linalg.eigh(x)
        return values, vectors

    def singular(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        left, values, _ = jnp.linalg.svd(x)
        return left, values

    def triangular(self, x: jax.Array) -> jax.Array:
        upper = jnp.linalg.qr(self.transpose(x), mode="r")
        signs = jnp.where(jnp.diagonal(upper, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
        return jnp.tril(self.transpose(upper) * signs[..., None, :])

    def tree_map(self, function: Callable[..., jax.Array], *trees: Any) -> Any:
        return jax.tree.map(function, *trees)


ALGEBRA = JaxAlgebra()
