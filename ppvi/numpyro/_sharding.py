"""Many devices: data and particles split over a mesh, by JAX's own partitioner.

A jitted step is one program, whatever the mesh: XLA splits its operations as its inputs are split, and adds up over the
devices what the program adds up. One key gives the same draws on any mesh, so the estimate is the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ppvi._doors import described
from ppvi.engine.sharding import PARTICLES, different, digest, shareable, warn_unused
from ppvi.errors import ProgramError
from ppvi.numpyro import _compat
from ppvi.numpyro._compat import ClosedJaxpr, Jaxpr, multihost_utils


class Layout:
    """Where the arrays of a fit lie: on one device, or on a mesh."""

    def __init__(self, mesh: Mesh | None):
        if not isinstance(mesh, Mesh | None):
            raise ProgramError(
                f"fit: mesh= is a jax.sharding.Mesh, such as jax.make_mesh((2,), ('data',)), not {described(mesh)}."
            )
        # The program is partitioned as a whole, and says nothing of shardings itself.
        self.mesh = None if mesh is None else Mesh(mesh.devices, mesh.axis_names)
        own = jax.process_index()
        self.processes = mesh is not None and any(device.process_index != own for device in mesh.devices.flat)
        """Whether there are several."""
        self.is_first = own == 0 or not self.processes

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
        goes = shareable([jnp.shape(x) for x in arrays], self.mesh.shape)
        specs = [PartitionSpec(axes) if split else PartitionSpec() for split in goes]
        return [self._placed(x, spec) for x, spec in zip(arrays, specs, strict=True)]

    def copy(self, tree: Any) -> Any:
        """The same on every device."""
        return tree if self.mesh is None else jax.tree.map(lambda x: self._placed(x, PartitionSpec()), tree)

    def gathered(self, tree: Any) -> Any:
        """Arrays of the mesh as arrays of this process."""
        return tree if self.mesh is None else jax.tree.map(jnp.asarray, jax.device_get(tree))

    def agreed(self, number: int) -> int:
        """The first process's number."""
        return int(multihost_utils.broadcast_one_to_all(np.int32(number))) if self.processes else number

    def refuse_different(self, what: str, arrays: Iterable[Any]) -> None:
        """Arrays that the processes have each for itself must be the same."""
        if self.processes:
            mine = divmod(digest(np.asarray(x) for x in arrays if getattr(x, "is_fully_addressable", True)), 2**32)
            if len(np.unique(multihost_utils.process_allgather(np.array(mine, np.uint32)), axis=0)) > 1:
                raise different(what)

    def warn_unused(self, traced: Callable[[], ClosedJaxpr]) -> None:
        """A mesh's axis for particles is to split something of the program."""
        devices = 1 if self.mesh is None else self.mesh.shape.get(PARTICLES, 1)
        if devices > 1 and not _splits_runs(traced().jaxpr):
            warn_unused(devices)

    def _placed(self, x: Any, spec: PartitionSpec) -> Any:
        assert self.mesh is not None
        return jax.device_put(x, NamedSharding(self.mesh, spec))


def _splits_runs(jaxpr: Jaxpr) -> bool:
    """Whether `split_runs` has split some."""
    return any(
        PARTICLES in equation.params["sharding"].spec
        if equation.primitive.name == "sharding_constraint"
        else any(map(_splits_runs, _compat.bodies_in(equation.params)))
        for equation in jaxpr.eqns
    )


def split_runs(numbers: jax.Array) -> jax.Array:
    """The numbers of side-by-side runs, split over the mesh's particles, if it has any and they share."""
    mesh = jax.sharding.get_abstract_mesh()
    if PARTICLES in mesh.axis_names and len(numbers) % mesh.shape[PARTICLES] == 0:
        return jax.lax.with_sharding_constraint(numbers, PartitionSpec(PARTICLES))
    return numbers
