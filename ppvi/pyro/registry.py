"""Operations of our own in a graph, which know by a number the Python object that they are about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

LIBRARY = torch.library.Library("ppvi", "DEF")

_things: ContextVar[list[Any]] = ContextVar("things")
"""The objects by number, of the staging in progress."""


@contextmanager
def registering(things: list[Any] | None = None) -> Iterator[list[Any]]:
    """Numbers mean the things of this list."""
    token = _things.set([] if things is None else things)
    try:
        yield _things.get()
    finally:
        _things.reset(token)


def register(thing: Any) -> int:
    _things.get().append(thing)
    return len(_things.get()) - 1


def registered(number: int) -> Any:
    return _things.get()[number]


def in_front(size: int, x: torch.Tensor, dim: int | None) -> torch.Tensor:
    """A tensor with the axis of a `vmap` in front, along which one that has none is the same."""
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
