"""Operations of our own in a graph, which know by a number the Python object that they are about."""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

import torch

from ppvi._session import holding

LIBRARY = torch.library.Library("ppvi", "DEF")

_things: ContextVar[list[Any]] = ContextVar("things")
"""The objects by number, of the staging in progress."""


def registering(things: list[Any] | None = None) -> AbstractContextManager[list[Any]]:
    """Numbers mean the things of this list."""
    return holding(_things, [] if things is None else things)


def register(thing: Any) -> int:
    _things.get().append(thing)
    return len(_things.get()) - 1


def registered(number: int) -> Any:
    return _things.get()[number]


def in_front(size: int, x: torch.Tensor, dim: int | None) -> torch.Tensor:
    """A tensor with the axis of a `vmap` in front, along which one that has none is the same."""
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
