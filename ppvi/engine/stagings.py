"""What was made of programs once, for calls of the same kind in the same world."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from ppvi.engine.world import World


class Made(Protocol):
    """What was made."""

    def holds(self) -> bool:
        """Whether the numbers that were read out of arrays when it was made are still there."""
        ...

    def uses(self, array: object) -> bool:
        """Whether this array of the world is a part of it."""
        ...


T = TypeVar("T", bound=Made)

LIMIT = 8
"""Worlds that are kept for each kind of call."""

MANY = 10
"""A program that is staged again for the so manieth time is worth a word."""


@dataclass
class Stagings(Generic[T]):
    """The last things made, by the kind of call."""

    look: Callable[[], World]
    made: dict[Hashable, list[tuple[World, T]]] = field(default_factory=dict)
    """With the world that each was made in; those that were used last come first."""
    changes: int = 0

    def get(self, kind: Hashable, make: Callable[[], T]) -> T:
        known = self.made.setdefault(kind, [])
        for i, (world, thing) in enumerate(known):
            if world.is_current() and thing.holds():
                known.insert(0, known.pop(i))
                return thing
        world, changed = self.look(), None
        if world.passing:
            return make()
        for i, (before, thing) in enumerate(known):
            difference = before.difference(world, thing.uses)
            if difference is None and thing.holds():
                known.insert(0, known.pop(i))
                break
            changed = changed or difference
        else:
            self.warn(changed)
            known.insert(0, (world, make()))
        known[0] = (world, known[0][1])
        del known[LIMIT:]
        return known[0][1]

    def warn(self, changed: str | None) -> None:
        self.changes += changed is not None
        if self.changes == MANY:
            self.changes += 1
            warnings.warn(
                f"the objective was staged {MANY} times again since what its programs read changed, at last {changed}; each "
                f"takes as long as a first call. Pass what changes as an argument, an array.",
                stacklevel=4,
            )
