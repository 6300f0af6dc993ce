"""Many devices: data and particles split over a mesh, by JAX's own partitioner.

A jitted step is one program, whatever the mesh: XLA splits its operations as its inputs are split, and adds up over the
devices what the program adds up. One key gives the same draws on any mesh, so the estimate is the same but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ppvi.engine.sharding import PARTICLES, shareable


class Layout:
    """Where the arrays of a fit lie: on one device, or on a mesh."""

    def __init__(self, mesh: Mesh | None):
        # The program is partitioned as a whole, and says nothing of shardings itself.
        self.mesh = None if mesh is None else Mesh(mesh.devices, mesh.axis_names)

    @contextmanager
    def partitioned(self) -> Iterator[None]:
        """Around what runs on the mesh."""
        if self.mesh is None:
            yield
        else:
            with jax.set_mesh(self.mesh):
                yield

    def split(self, arrays: Sequence[Any]) -> list[Any]:
        """Data on the mesh: each array split along its leading axis where that goes, and copied where it does not."""
        if self.mesh is None:
            return list(arrays)
        axes = tuple(name for name in self.mesh.axis_names if name != PARTICLES)
        parts = math.prod(self.mesh.shape[name] for name in axes)
        goes = shareable([jnp.shape(x) for x in arrays], parts)
        specs = [PartitionSpec(axes) if split else PartitionSpec() for split in goes]
        return [self._placed(x, spec) for x, spec in zip(arrays, specs, strict=True)]

    def copy(self, tree: Any) -> Any:
        """The same on every device."""
        return tree if self.mesh is None else jax.tree.map(lambda x: self._placed(x, PartitionSpec()), tree)

    def gathered(self, tree: Any) -> Any:
        """Arrays of the mesh as arrays of this process."""
        return tree if self.mesh is None else jax.tree.map(jnp.asarray, jax.device_get(tree))

    def _placed(self, x: Any, spec: PartitionSpec) -> Any:
        assert self.mesh is not None
        return jax.device_put(x, NamedSharding(self.mesh, spec))


def split_runs(numbers: jax.Array) -> jax.Array:
    """The numbers of side-by-side runs, split over the mesh's particles, if it has any and they share."""
    mesh = jax.sharding.get_abstract_mesh()
    if PARTICLES in mesh.axis_names and len(numbers) % mesh.shape[PARTICLES] == 0:
        return jax.lax.with_sharding_constraint(numbers, PartitionSpec(PARTICLES))
    return numbers
