"""What a constant says: a thing known by its contents, which can be hashed and compared.

An argument that is no array is a constant of the staged program. It is read afresh at every call, so that a config object, a
table or a list that has changed is another constant. What it says is what a copy of it would copy, by the protocol of `copy`
and `pickle`: numbers and texts by value, classes and functions by identity, everything else by its parts. What cannot be
copied, such as an open file, or is used up by reading, such as a generator, says nothing.
"""

from __future__ import annotations

import copy
import copyreg
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

Own = Callable[[Any, "Reader"], Hashable]
"""What the engine knows of things of its own, which are not copied; None for others."""


class UnreadableError(Exception):
    """A thing that has no contents, and why."""


class Same:
    """A thing that is known by its identity, and kept alive for that."""

    def __init__(self, value: Any):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value


class Constant:
    """A thing by its contents."""

    def __init__(self, value: Any, own: Own):
        reader = Reader(own)
        self.value = value
        self.contents = reader.read(value)
        self._kept = reader.kept

    def copied(self) -> Any:
        """A copy for a program, which may change it, and may keep it longer than it stays as it is."""
        return copy.deepcopy(self.value, dict(self._kept))

    def __hash__(self) -> int:
        return hash(self.contents)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self.contents == other.contents


class Attributes(tuple):
    """What the attributes of a thing say, by name."""


def grown(before: Any, after: Any) -> bool:
    """Whether a thing says what it said, and has at most further attributes, such as properties that are cached."""
    if isinstance(before, Attributes) and isinstance(after, Attributes):
        now = dict(after)
        return all(name in now and grown(value, now[name]) for name, value in before)
    if isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after):
        return all(map(grown, before, after))
    return before == after


class Reader:
    """Reads one thing."""

    def __init__(self, own: Own):
        self.own = own
        self.kept: dict[int, Any] = {}
        """What is known by its identity, by that."""
        self._path: list[int] = []

    def read(self, value: Any) -> Hashable:
        kind = type(value)
        if value is None or isinstance(value, bool | int | str | bytes):
            return kind, value
        if isinstance(value, float | complex) and not isinstance(value, np.generic):
            return kind, repr(value)  # NaN is itself, and -0.0 is not 0.0
        if id(value) in self._path:
            return "cycle", self._path.index(id(value))
        with self._inside(value):
            known = self.own(value, self)
            return self._parts(kind, value) if known is None else known

    def same(self, value: Any) -> Same:
        """The thing by its identity, of which no copy is made."""
        self.kept[id(value)] = value
        return Same(value)

    @contextmanager
    def _inside(self, value: Any) -> Iterator[None]:
        self._path.append(id(value))
        try:
            yield
        finally:
            self._path.pop()

    def _parts(self, kind: type, value: Any) -> Hashable:
        if kind is np.ndarray or isinstance(value, np.generic):
            return self._array(kind, np.asarray(value))
        if kind in (tuple, list, set, frozenset, dict):
            entries = value.items() if kind is dict else value
            parts = tuple(self.read(entry) for entry in entries)
            return kind, frozenset(parts) if kind in (set, frozenset) else parts
        if isinstance(value, FunctionType):
            cells = [cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)]
            return self.same(value), tuple(self._closed_over(x) for x in cells)
        if isinstance(value, ModuleType):
            return self.same(value)
        if isinstance(value, type | BuiltinFunctionType):
            return value
        if isinstance(value, MethodType):
            return kind, value.__func__, self.read(value.__self__)
        if callable(value) and hasattr(value, "__wrapped__"):
            return self.same(value), self.read(getattr(value, "__wrapped__"))  # noqa: B009
        return kind, self._reduced(kind, value)

    def _array(self, kind: type, array: np.ndarray) -> Hashable:
        if array.dtype.hasobject:
            return kind, array.shape, self.read(array.tolist())
        numbers = np.ascontiguousarray(array).reshape(-1).view(np.uint8)  # dates give no bytes otherwise
        return kind, array.dtype, array.shape, sha256(numbers.data).digest()

    def _closed_over(self, value: Any) -> Hashable:
        try:
            return self.read(value)
        except UnreadableError:
            return self.same(value)

    def _reduced(self, kind: type, value: Any) -> Hashable:
        within = f"its {kind.__module__}.{kind.__qualname__} " if self._path[1:] else ""
        if hasattr(kind, "__next__"):
            raise UnreadableError(f"{within or 'it '}is used up by reading it")
        if hasattr(kind, "__dlpack__") and not isinstance(value, np.ndarray):
            raise UnreadableError(f"{within or 'it '}is an array of another library; NumPy's are known to all")
        reduce = copyreg.dispatch_table.get(kind)
        try:
            found: Any = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception as error:
            raise UnreadableError(f"nothing can tell what {within or 'it '}holds") from error
        if isinstance(found, str):
            return self.same(value)
        make, arguments, state, entries, items = (*found, None, None, None)[:5]
        parts = (self.read(x) for x in (make, arguments, list(entries or ()), list(items or ())))
        return (self._state(state), *parts)

    def _state(self, state: Any) -> Hashable:
        if type(state) is dict:
            return Attributes((name, self.read(value)) for name, value in state.items())
        return tuple(map(self._state, state)) if type(state) is tuple else self.read(state)


def _is_full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a name that is not yet bound
        return False
