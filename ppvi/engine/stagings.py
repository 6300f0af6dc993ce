"""What was made of programs once, for calls of the same kind in the same world."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Generic, Protocol, TypeVar

from ppvi._source import warn_at
from ppvi.engine.arguments import Constants
from ppvi.engine.world import World


class Made(Protocol):
    """What was made."""

    def holds(self) -> bool: ...  # whether the numbers that were read out of arrays when it was made are still there
    def uses(self, array: object) -> bool: ...  # whether this array of the world is a part of it


K = TypeVar("K", bound=Hashable)
T = TypeVar("T", bound=Made)
V = TypeVar("V")

Key = tuple[Hashable, tuple[Hashable, ...]]
"""The kind of a call, and the numbers among its arguments."""

LIMIT = 8
"""Worlds that are kept for each kind of call."""

KINDS = 64
"""Kinds of calls that are kept."""

MANY = 10
"""A program that is staged again for the so manieth time is worth a word."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Around what makes many objects that stay: looking for garbage among them takes as long as making them."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@dataclass
class Recent(Generic[K, V]):
    """What was made for the kinds of calls that came last."""

    here: Callable[[], str]
    """File and line of the user's that calls."""
    dropped: int = 0
    made: OrderedDict[K, V] = field(default_factory=OrderedDict)
    """Those that were used last come last."""
    lock: RLock = field(default_factory=RLock)

    def get(self, kind: K, make: Callable[[], V]) -> V:
        with self.lock:
            found = self.made[kind] if kind in self.made else make()
            self.use(kind, found)
            return found

    def use(self, kind: K, thing: V) -> None:
        self.made[kind] = thing
        self.made.move_to_end(kind)
        if len(self.made) > KINDS:
            self.made.popitem(last=False)
            self.dropped += 1
            if self.dropped == MANY:
                warn_at(
                    self.here(),
                    f"the objective is called with more than {KINDS} kinds of arguments, and is staged again for those that "
                    f"come back: give arrays fewer shapes, as by padding and masks.",
                )


@dataclass
class Stagings(Generic[T]):
    """The last things made, by the kind of call."""

    look: Callable[[Constants], World]
    here: Callable[[], str]
    """File and line of the user's that calls."""
    changes: int = 0
    _recent: Recent[Key, list[tuple[World, T]]] = field(init=False)
    """With the world that each was made in; those that were used last come first."""

    def __post_init__(self) -> None:
        self._recent = Recent(self.here)

    def __reduce__(self) -> Any:
        """A copy has nothing made yet."""
        return Stagings, (self.look, self.here)

    def get(self, kind: Hashable, constants: Constants, make: Callable[[World], T]) -> tuple[World, T]:
        """What was made for such a call in the world as it is, and that world."""
        with self._recent.lock:
            key = kind, constants.numbers
            known = self._recent.made.get(key, [])
            for i, pair in enumerate(known):
                if pair[0].is_current(constants.things) and pair[1].holds():
                    return self._used(key, known, i, pair)
            return self._looked(key, constants, make, known)

    def renew(self, kind: Hashable, constants: Constants, thing: T) -> None:
        """What has changed since this was used is no change."""
        with self._recent.lock:
            known = self._recent.made.get((kind, constants.numbers), [])
            if known and known[0][1] is thing:
                world = self.look(constants)
                known[0] = (known[0][0] if world.passing else world, thing)

    def _looked(
        self, key: Key, constants: Constants, make: Callable[[World], T], known: list[tuple[World, T]]
    ) -> tuple[World, T]:
        world, changed = self.look(constants), None
        if world.passing:
            with uncollected():
                return world, make(world)
        for i, (before, thing) in enumerate(known):
            difference = before.difference(world, thing.uses)
            if difference is None and thing.holds():
                return self._used(key, known, i, (world, thing))
            changed = changed or difference
        self._warn(changed or self._other_number(key, constants))
        with uncollected():
            known.insert(0, (world, make(world)))
        del known[LIMIT:]
        return self._used(key, known, 0, known[0])

    def _used(self, key: Key, known: list[tuple[World, T]], i: int, pair: tuple[World, T]) -> tuple[World, T]:
        if i:
            known.insert(0, known.pop(i))
        known[0] = pair
        self._recent.use(key, known)
        return pair

    def _other_number(self, key: Key, constants: Constants) -> str | None:
        """The argument whose number is another one than at the last such call."""
        before = next((numbers for kind, numbers in reversed(self._recent.made) if kind == key[0]), None)
        pairs = zip(before, constants.numbers, strict=True) if before else ()
        return next((constants.name(i) for i, (x, y) in enumerate(pairs) if x != y), None)

    def _warn(self, changed: str | None) -> None:
        self.changes += changed is not None
        if self.changes == MANY:
            self.changes += 1
            warn_at(
                self.here(),
                f"the objective was staged {MANY} times again since what its programs read changed, at last {changed}; each "
                f"takes as long as a first call. Pass what changes as an argument, an array that no program reads in Python.",
            )
