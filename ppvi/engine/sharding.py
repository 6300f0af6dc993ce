"""Meshes of devices and of processes: what fits on any framework split, and what the processes have to have in common."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ppvi.errors import EngineError, ProgramError

PARTICLES = "particles"
"""The axis of a mesh that splits the runs of `replicate`; the others split data."""


class PeerError(EngineError):
    """Another process of a mesh has ended, or does not answer."""


def shareable(shapes: Sequence[Sequence[int]], mesh: Mapping[str, int]) -> list[bool]:
    """Which arrays have a leading axis that the devices along a mesh's axes for data can share evenly; the others are copied.

    **Raises** `ProgramError` if none has.
    """
    axes = {name: size for name, size in mesh.items() if name != PARTICLES}
    parts = math.prod(axes.values())
    goes = [len(shape) > 0 and shape[0] % parts == 0 for shape in shapes]
    if parts > 1 and not any(goes):
        along = " and ".join(f"{name!r} of {size}" for name, size in axes.items())
        raise ProgramError(
            f"fit: no argument has a leading axis that {parts} devices can share; theirs are "
            f"{[tuple(shape[:1]) for shape in shapes]}, and the mesh has for data the axes {along}. Drop or pad rows, or name "
            f"the axis of the mesh {PARTICLES!r} to split the runs of replicate instead."
        )
    return goes


def warn_unused(devices: int) -> None:
    """Say that a mesh's axis for particles has nothing to split."""
    warnings.warn(
        f"fit: nothing uses the axis {PARTICLES!r} of the mesh, and its {devices} devices do the same: the objective has no "
        f"runs of `replicate` whose number they can share evenly. Take such a number, or leave the axis out.",
        stacklevel=7,
    )


def digest(arrays: Iterable[np.ndarray]) -> int:
    """56 bits of a hash of arrays."""
    found = hashlib.sha256()
    for x in arrays:
        found.update(f"{x.dtype.str} {x.shape} ".encode())
        found.update(np.ascontiguousarray(x).tobytes())
    return int.from_bytes(found.digest()[:7])


def different(what: str) -> ProgramError:
    """The error of processes that were not given the same."""
    return ProgramError(
        f"fit: the processes of the mesh have different {what}. Each is given the same key and the whole data; batches come in "
        f"the same order, from a loader whose generator has the same seed in all."
    )
