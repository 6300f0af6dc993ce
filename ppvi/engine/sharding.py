"""Meshes of devices: what fits on any framework split."""

from __future__ import annotations

from collections.abc import Sequence

from ppvi.errors import ProgramError

PARTICLES = "particles"
"""The axis of a mesh that splits the runs of `replicate`; the others split data."""


def shareable(shapes: Sequence[Sequence[int]], parts: int) -> list[bool]:
    """Which arrays have a leading axis that so many devices can share evenly; the others are copied.

    **Raises** `ProgramError` if none has.
    """
    goes = [len(shape) > 0 and shape[0] % parts == 0 for shape in shapes]
    if parts > 1 and not any(goes):
        raise ProgramError(
            f"fit: no argument has a leading axis that {parts} devices can share; theirs are "
            f"{[tuple(shape[:1]) for shape in shapes]}. Drop or pad rows, or name the axis of the mesh {PARTICLES!r} to split "
            f"the runs of replicate instead."
        )
    return goes
