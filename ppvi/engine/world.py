"""The world that programs read outside of their arrays, and whether it has changed.

A program that is staged once and used many times has read constants among its arguments, closure cells, globals, defaults, and
attributes of whatever these hold. What is found there (`ppvi.engine.looking`) is kept as *facts*, by which two looks at the
world are compared, and as a *watch* on the places where it was found: as long as the very same objects are there, which takes
a microsecond or two for a small program, nothing has changed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, NamedTuple

_call: Any = operator.call


class Path(NamedTuple):
    """Where something was found."""

    before: Path | None
    step: str

    def __str__(self) -> str:
        steps, path = [], self
        while path is not None:
            steps.append(path.step)
            path = path.before
        return "".join(reversed(steps)).removeprefix(".")

    @property
    def root(self) -> str:
        path = self
        while path.before is not None:
            path = path.before
        return path.step


class Fact(NamedTuple):
    """One thing that was read."""

    path: Path
    kind: str
    """`object` and `array` count by identity, others are equal or not."""
    value: Any

    def same(self, other: Fact, briefly: bool = False) -> bool:
        """Whether another look has found this again; or whether it seems so."""
        if self.kind != other.kind:
            return False
        mine, theirs = self.value, other.value
        if self.kind == "array content":
            return mine is theirs or (mine.seems_in(theirs.array) if briefly else mine.matches(theirs))
        return mine is theirs or (self.kind not in ("object", "array") and mine == theirs)


def scalar(value: Any) -> Hashable:
    """A number or a text, by which it is told from others: of another type, NaN, -0.0."""
    kind = type(value)
    return kind, repr(value) if kind is complex or (kind is float and not (value == value and value)) else value


ABSENT = object()
"""Where nothing is."""

FUNCTION = ("__code__", "__defaults__", "__kwdefaults__")
"""What a function is made of that can be exchanged, beside its closure."""


@dataclass(eq=False)
class Watch:
    """Places, and the objects that were there."""

    owners: list[Any] = field(default_factory=list)
    """Functions and closure cells, once for each attribute that is watched."""
    names: list[str] = field(default_factory=list)
    """These attributes."""
    getters: list[Callable[[Any, Any], Any]] = field(default_factory=list)
    """Functions of a key and of what to give where there is nothing, such as the `get` of a namespace."""
    keys: list[Any] = field(default_factory=list)
    views: list[Collection[Any]] = field(default_factory=list)
    """Containers themselves, and views of them."""
    reads: list[Callable[[], Iterable[Any]]] = field(default_factory=list)
    """What else gives objects, with something at their end."""
    others: list[Callable[[], bool]] = field(default_factory=list)
    """What tells itself whether it has changed."""
    seen: tuple[list[Any], ...] = ([], [], [], [])

    def begin(self) -> None:
        self.seen = (
            list(map(getattr, self.owners, self.names)),
            list(map(_call, self.getters, self.keys, repeat(ABSENT))),
            list(map(len, self.views)),
            list(self._contained()),
        )

    def holds(self) -> bool:
        """Whether the very same objects are there."""
        attributes, members, sizes, contained = self.seen
        try:
            return (
                all(map(operator.is_, map(getattr, self.owners, self.names), attributes))
                and all(map(operator.is_, map(_call, self.getters, self.keys, repeat(ABSENT)), members))
                and (not sizes or list(map(len, self.views)) == sizes)
                and (not contained or all(map(operator.is_, self._contained(), contained)))
                and (not self.others or all(map(operator.call, self.others)))
            )
        except Exception:  # a variable is empty, an attribute is gone, what could be pickled no longer can
            return False

    def _contained(self) -> Iterator[Any]:
        return chain(chain.from_iterable(self.views), chain.from_iterable(map(operator.call, self.reads)))


@dataclass(eq=False)
class World:
    """One look at the world."""

    roots: Sequence[Any] = ()
    """What was looked at beside the programs: constants among the arguments."""
    facts: list[Fact] = field(default_factory=list)
    watch: Watch = field(default_factory=Watch)
    modules: list[tuple[str, Any]] = field(default_factory=list)
    """The framework's modules, and what to call them."""
    opaque: list[tuple[Path, Any, str]] = field(default_factory=list)
    """What nobody can see into, and why."""
    passing: bool = False
    """Whether it will not be met again, as arrays that are being traced are not."""

    def __reduce__(self) -> Any:
        """A copy has seen nothing."""
        return World, ()

    def is_current(self, roots: Sequence[Any] = ()) -> bool:
        """Whether the very same objects are there."""
        before = self.roots
        alike = len(roots) == len(before) and (not before or all(map(operator.is_, roots, before)))
        return alike and self.watch.holds()

    def difference(self, other: World, matters: Callable[[Any], bool] = lambda array: True) -> str | None:
        """What has changed between two looks, if anything; of arrays only those that matter to who asks."""
        for mine, theirs in zip(self.facts, other.facts, strict=False):
            alike = mine.kind == theirs.kind == "array" and not matters(mine.value)
            if not alike and not mine.same(theirs):
                return str(mine.path)
        longer = max(self.facts, other.facts, key=len)[min(len(self.facts), len(other.facts)) :]
        return str(longer[0].path) if longer else None

    def kept(self) -> dict[int, Any]:
        """What counts by identity, by that: no copy is to be made of it."""
        own = [fact.value for fact in self.facts if fact.kind in ("object", "array")]
        return {id(x): x for x in (*own, *(module for _, module in self.modules))}


@dataclass(frozen=True)
class Rules:
    """What an engine knows of its framework's objects."""

    arrays: tuple[type, ...]
    """Types of arrays, which count by identity."""
    ignored: tuple[type, ...] = ()
    """Types of the framework's own objects whose state is no program's business."""
    drawing: tuple[type, ...] = ()
    """Types of generators of random numbers."""
    modules: tuple[type, ...] = ()
    """Types of the framework's modules."""
    members: Callable[[Any], Sequence[Mapping[Any, Any]]] = lambda module: ()
    """Of a module: where it keeps its parts and parameters."""
    attributes: frozenset[str] = frozenset()
    """Of a module: attributes that the framework's code reads, by name."""
    hidden: frozenset[str] = frozenset()
    """Attributes in which objects of the framework keep what they have found out."""
