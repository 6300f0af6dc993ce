"""What a class says of its objects: whose it is, which attributes they may have, and how they are pickled."""

from __future__ import annotations

import copyreg
import functools
import pickle
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ppvi.engine.code import is_framework, is_library, names_in_class
from ppvi.engine.snapshots import Content


class Kind(NamedTuple):
    """What is known of a class."""

    is_users: bool
    is_framework: bool
    named: frozenset[str]
    """Attributes of the class, which an object may hide by its own."""
    read: frozenset[str]
    """What the methods that it has from a library's class name."""
    slots: tuple[str, ...]
    pickler: str | None
    """The module of the class that says how its objects are pickled, if one does."""


@functools.lru_cache(4096)
def kind_of(kind: type) -> Kind:
    bases = kind.__mro__[:-1]
    named = frozenset(name for name in dir(kind) if not is_dunder(name))
    read = frozenset().union(*(names_in_class(base) for base in bases if is_library(base.__module__)))
    slots = tuple(name for base in bases for name in _slots(base))
    return Kind(not is_library(kind.__module__), is_framework(kind.__module__), named, read, slots, _pickler(kind))


def _slots(kind: type) -> Iterator[str]:
    slots = vars(kind).get("__slots__", ())
    for name in (slots,) if isinstance(slots, str) else slots:
        if not is_dunder(name):
            yield f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") else name


def _pickler(kind: type) -> str | None:
    if kind in copyreg.dispatch_table:
        return kind.__module__
    for base in kind.__mro__[:-1]:
        says = any(name in vars(base) for name in ("__reduce_ex__", "__reduce__", "__getstate__"))
        if says and base is not types.SimpleNamespace:  # which says what an object without it would
            return base.__module__
    return None


def is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def with_subclasses(kind: type) -> Iterator[str]:
    """The names of a class and of those that are made like it."""
    yield kind.__name__
    for other in type.__subclasses__(kind):
        yield from with_subclasses(other)


NEW: Any = vars(copyreg)["__newobj__"]
"""By what a pickle makes most things."""


def reduced(x: Any) -> Any:
    """What a pickle holds of a thing; None if no more than which thing it is; or the error that there was."""
    reduce = copyreg.dispatch_table.get(type(x))
    try:
        found: Any = reduce(x) if reduce else x.__reduce_ex__(4)
        if isinstance(found, str) or (found[0] is NEW and not any(found[2:])):
            return None if isinstance(found, str) or len(found[1]) == 1 else found
        return (*found[:3], *(list(entries or ()) for entries in (*found, None, None, None)[3:5]))
    except Exception as error:
        return error


class Pickle:
    """A thing pickled, by which it is soon seen whether it has changed."""

    def __init__(self, x: Any):
        self.x = x
        self.bytes, arrays = self._pickled()
        self.contents = list(map(Content, arrays))

    def is_current(self) -> bool:
        now, arrays = self._pickled()
        alike = now == self.bytes and len(arrays) == len(self.contents)
        return alike and all(content.seems_in(array) for content, array in zip(self.contents, arrays, strict=True))

    def _pickled(self) -> tuple[bytes, list[np.ndarray]]:
        """The bytes, and the memory of arrays that is not copied into them."""
        buffers: list[pickle.PickleBuffer] = []
        found = pickle.dumps(self.x, 5, buffer_callback=buffers.append)
        return found, [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
