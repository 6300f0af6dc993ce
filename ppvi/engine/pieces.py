"""What a run tells of its sites for the sum over some of them, and what of it is staged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ppvi._ops import Array, Ops
from ppvi.compiler.assignments import Values
from ppvi.ir import Atom, Equation
from ppvi.program import Plate


@dataclass(frozen=True)
class Piece:
    """What a run has told of a site, beside its arrays."""

    name: str
    where: str
    batch: int
    """The number of axes of the batch."""
    shape: tuple[int, ...]
    """Of its log_prob, `(*batch)`; of a site that is summed out `(*lanes, K)`."""
    plates: tuple[Plate, ...]
    scale: float | None
    """How often it counts; None where that is an array."""
    own: bool
    """Whether it is summed out."""
    is_probability: bool
    """Whether its array is the probability of each value, and not the logarithm."""
    is_data: bool = False
    """Whether it is observed."""


class Told(NamedTuple):
    """What a run has told of its sites."""

    pieces: list[Piece]
    arrays: list[Array]
    scales: list[Array]
    """Those that are arrays."""


class Staged(NamedTuple):
    """The same of a run that is staged."""

    pieces: Sequence[Piece]
    equations: Sequence[Equation]
    env: Values
    atoms: Sequence[Atom]
    """The arrays, and then the scales."""
    constants: Mapping[Atom, Array]
    """The arrays that the program is given."""
    mapped: int = 0
    """The number of axes of runs in front of all of them."""


class Wanted(NamedTuple):
    """What is asked of finite sites that are summed out, given the others."""

    temperature: int
    """1 for draws, 0 for the most probable values."""
    pointwise: bool
    """Whether the density of data is wanted by entry."""


Finish = Callable[[Staged, Ops], Array]
