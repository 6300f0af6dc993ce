"""Looking up rows of a small table by a label, as comparisons instead of a gather.

    table[z]  =  where(z == 0, table[0], where(z == 1, table[1], ...))

The gradient of a gather is a scatter, one serial update per label on a CPU; the gradient of comparisons is a sum for
each row, and for an enumerated label, which is the same in all lanes, it costs nothing at all. Mixtures index small
tables by their labels in every gradient, so the engine runs such a gather this way. Value and gradient are those of the
gather.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import GatherScatterMode

SMALL = 8
"""The largest number of rows that is worth comparing one by one."""


def is_small_lookup(eqn: Any) -> bool:
    """Whether an equation takes whole rows, along the first axis, of a table with few of them."""
    if eqn.primitive.name != "gather":
        return False
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    table, rank = eqn.invars[0].aval.shape, len(eqn.outvars[0].aval.shape)
    return (
        bool(table)
        and table[0] <= SMALL
        and jnp.issubdtype(eqn.invars[0].aval.dtype, jnp.floating)
        and tuple(numbers.collapsed_slice_dims) == tuple(numbers.start_index_map) == (0,)
        and not numbers.operand_batching_dims
        and tuple(sizes) == (1, *table[1:])
        and tuple(numbers.offset_dims) == tuple(range(rank - len(table) + 1, rank))
    )


def look_up(table: jax.Array, indices: jax.Array, mode: GatherScatterMode, fill_value: Any) -> jax.Array:
    """Rows of a table, `(*batch, *row)`, by indices `(*batch, 1)`; out of range as a gather of that mode has it."""
    label = indices.reshape(indices.shape[:-1] + (1,) * (table.ndim - 1))
    if mode != GatherScatterMode.FILL_OR_DROP:
        label = jnp.clip(label, 0, table.shape[0] - 1)
    rows = jnp.broadcast_to(table[0], (*indices.shape[:-1], *table.shape[1:]))
    for row in range(1, table.shape[0]):
        rows = jnp.where(label == row, table[row], rows)
    if mode == GatherScatterMode.FILL_OR_DROP:
        outside = (label < 0) | (label >= table.shape[0])
        rows = jnp.where(outside, jnp.nan if fill_value is None else fill_value, rows)
    return rows
