"""Provenance: on which draws a number depends that Python reads out of a tensor, or that jumps.

Every operation goes through PyTorch's dispatcher. There a mode hands on the marks of draws from operands to results, by the
memory that they lie in: views and what is done in place are followed too, whatever library's code does it and whether it has
a derivative or not.

A *read* is an operation whose result is data-dependent by PyTorch's own tags, such as `item()`, or whose shape is; `numpy()`
and the like, which no dispatcher sees, say so themselves. A *jump* is one that rounds a real number, or that makes something
of a number that is none, such as a comparison's or an index, and depends on a draw. Nothing jumps in a library's own density
or sampler, whose selections leave out what is impossible, nor in a `torch.autograd.Function`, which states its derivative.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from ppvi.ir import Origin
from ppvi.pyro import _source as source
from ppvi.pyro._compat import StorageWeakRef, TorchDispatchMode, arguments_of, memory_of, name_of
from ppvi.pyro._located import READING, origin


class Marks:
    """Sets of numbers by the memory that tensors lie in, each as the bits of an int."""

    def __init__(self) -> None:
        self._marks: dict[int, tuple[StorageWeakRef, int]] = {}
        """Where a storage lies -> its numbers. A weak reference keeps the place from being used again."""

    def __bool__(self) -> bool:
        return bool(self._marks)

    def add(self, tensor: torch.Tensor, numbers: int) -> None:
        storage = tensor.untyped_storage()
        reference, before = self._marks.get(memory_of(storage)) or (StorageWeakRef(storage), 0)
        self._marks[memory_of(storage)] = reference, before | numbers

    def behind(self, operands: Any) -> int:
        """The numbers of any of these operands."""
        found = 0
        for tensor in strided(operands) if self._marks else ():
            if mark := self._marks.get(memory_of(tensor.untyped_storage())):
                found |= mark[1]
        return found


def each(numbers: int) -> Iterator[int]:
    """The numbers of a set."""
    while numbers:
        yield (numbers & -numbers).bit_length() - 1
        numbers &= numbers - 1


class Provenance(TorchDispatchMode):
    """The marks of draws, and the reads and jumps that depend on them."""

    def __init__(self) -> None:
        super().__init__()
        self.draws = 0
        self.given = 0
        """The bits of what is followed and is no draw."""
        self.reads: dict[int, str] = {}
        """The number of a draw -> file and line of the first read or jump that depends on it."""
        self.learns = False
        """Whether it is noted what operations do on whatever they are done."""
        self.worst = SMOOTH
        """What they have done since this was last set."""
        self._made: Sequence[torch.Tensor] = ()
        """The results of the last operation."""
        self.is_paused = False
        self._marks = Marks()

    def follow(self, draw: torch.Tensor, is_draw: bool = True) -> int:
        """Follow what is computed from a draw, or from a parameter; its number."""
        number, self.draws = self.draws, self.draws + 1
        self.given |= 0 if is_draw else 1 << number
        self._marks.add(draw, 1 << number)
        return number

    def read(self, tensors: Any) -> None:
        """Python reads numbers out of tensors, or they jump; those that depend on draws, for the draws alone."""
        behind = self._marks.behind(tensors)
        for number in each(behind & ~self.given or behind):
            if number not in self.reads:
                self.reads[number] = source.here()

    def behind(self, tensor: torch.Tensor) -> set[int]:
        """The draws that a tensor depends on."""
        return set(each(self._marks.behind(tensor)))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is computed here is not followed."""
        outer, self.is_paused = self.is_paused, True
        try:
            yield
        finally:
            self.is_paused = outer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.is_paused or not (self._marks or self.learns):
            return func(*args, **kwargs)
        kind = kind_of(func)
        operands = strided((*args[kind.first :], *kwargs.values()) if kwargs else args[kind.first :])
        behind = self._marks.behind(operands)
        if not behind and not self.learns:
            return func(*args, **kwargs)
        users, rounds = origin() is Origin.OTHER, kind.rounds or bool(kwargs.get("rounding_mode"))
        if behind and (kind.reads or (users and rounds)):
            self.read(operands)
        result = func(*args, **kwargs)
        results = strided(result)
        if self.learns:
            jumps = rounds or (any(map(is_real, operands)) and not all(map(is_real, results)))
            # To keep a result for its derivative autograd detaches it right away.
            stops = (kind.stops and not any(args[0] is x for x in self._made)) or not torch.is_grad_enabled()
            self._made = self._made if kind.stops else results
            self.worst = max(self.worst, READS if kind.reads else JUMPS if jumps else STOPS if stops else SMOOTH)
        if behind:
            self._mark([*results, *strided([args[i] for i in kind.writes if i < len(args)])], operands, behind, users)
        return result

    def _mark(
        self, results: Sequence[torch.Tensor], operands: Sequence[torch.Tensor], behind: int, users: bool
    ) -> None:
        if results and (chosen := [x for x in operands if not is_real(x)]):
            self.read(chosen)
        for tensor in results:
            if users or is_real(tensor):
                self._marks.add(tensor, behind)


SMOOTH, STOPS, JUMPS, READS = range(4)
"""What an operation does, whatever it is of: nothing of what follows; a constant is made; it jumps; Python reads its result."""


def strided(tree: Any) -> list[torch.Tensor]:
    """The tensors of lists and tuples that lie in memory."""
    found: list[torch.Tensor] = []
    for part in tree if isinstance(tree, list | tuple) else (tree,):
        if isinstance(part, torch.Tensor):
            if part.layout is torch.strided:
                found.append(part)
        elif isinstance(part, list | tuple):
            found += strided(part)
    return found


def is_real(x: torch.Tensor) -> bool:
    return x.dtype.is_floating_point or x.dtype.is_complex


class Kind(NamedTuple):
    """What is known of an operation."""

    name: str
    """In ATen, without overload, whether or not it changes its operand in place."""
    reads: bool
    rounds: bool
    stops: bool
    """Whether its result is a constant."""
    first: int
    """The first of its operands of which it takes more than shape and dtype."""
    writes: tuple[int, ...]
    """The places of the operands that it changes."""


@functools.cache
def kind_of(func: Any) -> Kind:
    name = name_of(func).rstrip("_")
    arguments = enumerate(arguments_of(func))
    return Kind(
        name=name,
        reads=name not in _MASKED and not READING.isdisjoint(func.tags),
        rounds=name in _ROUNDING,
        stops=name == "detach",
        first=int(name in ("fill", "copy") or name.startswith("new_") or name.endswith("_like")),
        writes=tuple(i for i, x in arguments if x.alias_info is not None and x.alias_info.is_write),
    )


_MASKED = frozenset({"index", "masked_select"})
"""Operations of whose operands only masks decide how many entries they give."""

_ROUNDING = frozenset(
    """sign sgn round floor ceil trunc fix frac fmod remainder floor_divide heaviside copysign nextafter frexp hardshrink
    threshold histc bernoulli poisson binomial""".split()
)
"""Operations from real numbers to real numbers that jump."""
