"""The rows of a plate's minibatch, in the memory of the minibatch.

NumPyro's plate shuffles the numbers of all rows by Fisher and Yates's method until it has as many as it needs, on CPUs: B swaps
in an array of n, which each gradient lays out anew. Swaps change 2 B of its entries at most, and the others are their own
numbers: here the B that were displaced are kept alone, and looked up in B comparisons a swap. The rows are the same ones, in
the same order.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def is_small(size: int, count: int) -> bool:
    """Whether so many of so many rows are drawn here at less cost than by the library."""
    return jax.default_backend() == "cpu" and count**2 <= size


def rows_of(size: int, count: int, rng_key: Any) -> jax.Array:
    """`count` different rows of `size`, `(count,)`: what a plate of NumPyro draws by this key."""
    left = size - jnp.arange(count)
    chosen = jax.vmap(lambda key, n: jax.random.randint(key, (), 0, n))(jax.random.split(rng_key, count), left)

    def swap(displaced: jax.Array, now: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        t, place, last = now

        def at(place: jax.Array) -> jax.Array:
            # The latest swap that has put a number there, if any has.
            latest = jnp.max(jnp.where((chosen == place) & (jnp.arange(count) < t), jnp.arange(count), -1))
            return jnp.where(latest < 0, place, displaced[latest])

        return displaced.at[t].set(at(last)), at(place)

    _, rows = lax.scan(swap, jnp.zeros_like(left), (jnp.arange(count), chosen, left - 1))
    return rows[::-1]
