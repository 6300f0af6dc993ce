"""Provenance: which draws a number depends on that Python reads out of a tensor.

Every operation goes through PyTorch's dispatcher. There a mode hands on the marks of draws from operands to results, by the
memory that they lie in: views and what is done in place are followed too, whatever library's code does it and whether it has
a derivative or not. A *read* is an operation whose result is data-dependent by PyTorch's own tags, such as `item()`, or whose
shape is; `numpy()` and the like, which no dispatcher sees, say so themselves.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from ppvi.pyro import source


class Provenance(TorchDispatchMode):
    """The marks of draws, and the reads that depend on them."""

    def __init__(self) -> None:
        super().__init__()
        self.draws = 0
        self.reads: dict[int, str] = {}
        """The number of a draw -> file and line of the first read that depends on it."""
        self._paused = False
        self._marks: dict[int, tuple[StorageWeakRef, int]] = {}
        """Where a storage lies -> the draws behind it, as a bit set. A weak reference keeps the place from being used again."""

    def follow(self, draw: torch.Tensor) -> int:
        """Follow what is computed from a draw; its number."""
        number, self.draws = self.draws, self.draws + 1
        self._mark(draw, 1 << number)
        return number

    def read(self, tensors: Any) -> None:
        """Python reads numbers out of tensors."""
        behind = self._behind(tensors)
        while behind:
            number = (behind & -behind).bit_length() - 1
            behind &= behind - 1
            if number not in self.reads:
                self.reads[number] = source.here()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is computed here is not followed."""
        outer, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = outer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operands = (*args, *kwargs.values()) if kwargs else args
        behind = 0 if self._paused else self._behind(operands)
        if not behind:
            return func(*args, **(kwargs or {}))
        if _is_read(func):
            self.read(_deciding(func, args))
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors((result, *_written(func, args))):
            self._mark(tensor, behind)
        return result

    def _mark(self, tensor: torch.Tensor, draws: int) -> None:
        storage = tensor.untyped_storage()
        reference, before = self._marks.get(storage._cdata) or (StorageWeakRef(storage), 0)
        self._marks[storage._cdata] = reference, before | draws

    def _behind(self, operands: Any) -> int:
        """The draws behind these operands, as a bit set."""
        found = 0
        for tensor in _tensors(operands):
            if mark := self._marks.get(tensor.untyped_storage()._cdata):
                found |= mark[1]
        return found


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    for part in tree if isinstance(tree, list | tuple) else (tree,):
        if isinstance(part, torch.Tensor):
            if part.layout is torch.strided:
                yield part
        elif isinstance(part, list | tuple):
            yield from _tensors(part)


@functools.cache
def _is_read(func: Any) -> bool:
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}.intersection(func.tags))


def _deciding(func: Any, args: Any) -> Iterable[Any]:
    """The operands that a read depends on: of `x[mask]` and `masked_select` the mask, for the numbers stay tensors."""
    if func is torch.ops.aten.index.Tensor:
        return [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
    return args[1:2] if func is torch.ops.aten.masked_select.default else args


@functools.cache
def _writes(func: Any) -> tuple[int, ...]:
    """The places of the operands that an operation changes."""
    arguments = enumerate(func._schema.arguments)
    return tuple(i for i, x in arguments if x.alias_info is not None and x.alias_info.is_write)


def _written(func: Any, args: Any) -> list[Any]:
    return [args[i] for i in _writes(func) if i < len(args)]
