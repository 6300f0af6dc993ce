"""Operations of our own in a graph, which know by a number the Python object that they are about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

LIBRARY = torch.library.Library("ppvi", "DEF")

_registries: list[list[Any]] = [[]]
"""The objects by number; those of the staging in progress last."""


@contextmanager
def registering(things: list[Any] | None = None) -> Iterator[list[Any]]:
    """Numbers mean the things of this list."""
    _registries.append([] if things is None else things)
    try:
        yield _registries[-1]
    finally:
        _registries.pop()


def register(thing: Any) -> int:
    _registries[-1].append(thing)
    return len(_registries[-1]) - 1


def registered(number: int) -> Any:
    return _registries[-1][number]


def in_front(size: int, x: torch.Tensor, dim: int | None) -> torch.Tensor:
    """A tensor with the axis of a `vmap` in front, along which one that has none is the same."""
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
