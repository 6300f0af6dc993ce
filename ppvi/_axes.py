"""Where the axes of operands lie in results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Along(NamedTuple):
    """Where an axis lies in a variable: along this axis of it, entry i depending on the places from i + first to i + last."""

    axis: int
    first: float = 0
    last: float = 0

    @property
    def width(self) -> float:
        return self.last - self.first + 1


def along(place: int | Along | None) -> Along | None:
    """A place that may have been written as the axis alone, for entry by entry."""
    return place if place is None or isinstance(place, Along) else Along(int(place))


def further(place: int | Along | None) -> Along | None:
    """The same place after an axis has been put in front."""
    return (found := along(place)) and found._replace(axis=found.axis + 1)


def straight(axes: AxisMap) -> tuple[int | None, ...]:
    """The axes along which others lie entry by entry, None where they do not."""
    places = map(along, axes)
    return tuple(None if place is None or place != Along(place.axis) else place.axis for place in places)


AxisMap = Sequence[int | Along | None]
"""For each axis of an operand the axis of the output along which it lies, or None: entries of the output mix that
axis."""

Flow = Sequence[Sequence[AxisMap | None]]
"""`flow[output][operand]`: an axis map, or None where the output does not depend on the operand at all."""
