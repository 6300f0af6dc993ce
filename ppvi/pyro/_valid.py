"""Programs that Pyro refuses while its validation is on, of which a graph would be made without a word."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch

from ppvi.errors import ProgramError


def bare_axis(fn: Any, frames: Sequence[Any]) -> str | None:
    """What is wrong with a site that has a batch axis of no plate around it, as the rest of a sentence."""
    sizes = {-frame.dim: frame.size for frame in frames if frame.dim is not None}
    stated = [sizes.get(axis, -1) for axis in range(1, 1 + max(sizes, default=0))]
    for axis, (size, expected) in enumerate(zip_longest(reversed(fn.batch_shape), stated, fillvalue=1), 1):
        if expected not in (-1, size):
            return (
                f"has batch shape {tuple(fn.batch_shape)}, and no plate around it is along axis {-axis}, of {size}: put it "
                f"within pyro.plate(name, {size}, dim={-axis}), or let the axis belong to one draw, as by .to_event({axis}). "
                f"pyro.enable_validation(False) allows for it."
            )
    return None


def unsaid(fn: Any) -> str | None:
    """What is wrong with a factor in a guide, as the rest of a sentence."""
    if "has_rsample" in vars(fn):
        return None
    return (
        "is a pyro.factor of a guide that does not say has_rsample=. It is True for a term of a reparameterised draw, such as "
        "the log determinant of a transformation, and False for the density of a draw that has no derivative."
    )


def refuse_other_rows(what: str, value: torch.Tensor, axis: int, plate: Any) -> None:
    """What is taken in the rows of a plate has one for each of the plate's, or one for all."""
    if value.shape[axis] != plate.size:
        raise ProgramError(
            f"{what} has shape {tuple(value.shape)}, and its axis {axis} is that of plate {plate.name!r} of {plate.size} rows: "
            f"give it so many, or one."
        )
