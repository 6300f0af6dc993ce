"""Around what is traced: where it stands in the user's code, whose code it is, and what a graph has no words for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ppvi._session import holding
from ppvi.ir import Origin
from ppvi.pyro import _source as source
from ppvi.pyro._compat import (
    TorchDispatchMode,
    disable_current_modes,
    get_innermost_proxy_mode,
    is_functionaltensor,
    noting as noting,
    tree_leaves,
    tree_map_only,
    writes,
)
from ppvi.pyro._graphs import is_traced
from ppvi.pyro._refused import Seed

Numbers = list[tuple[torch.Tensor, torch.Tensor]]
"""Tensors that Python numbers were read out of, and what was in them."""


_origin: ContextVar[Origin] = ContextVar("origin", default=Origin.OTHER)
"""Whose code is running."""


@contextmanager
def code_of(origin: Origin, owner: Any) -> Iterator[None]:
    """What runs here is a library's code with this purpose, if the owner is of a library's class."""
    with within(origin if is_library(owner) else Origin.OTHER):
        yield


def within(origin: Origin) -> AbstractContextManager[Origin]:
    """What runs here is code of this origin."""
    return holding(_origin, origin)


def origin() -> Origin:
    """Whose code is running."""
    return _origin.get()


def is_library(thing: Any) -> bool:
    """Whether its class is PyTorch's or Pyro's."""
    return type(thing).__module__.partition(".")[0] in ("torch", "pyro")


class Located(TorchFunctionMode):
    """Notes the user's line at every node of the graph that is being traced, and that what is computed without gradients is
    constant, which a graph has no other word for."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.operation = "unknown", "it"
        """The line that ran last, and its function."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if get_innermost_proxy_mode() is None:
            return func(*args, **kwargs)
        self.last, self.operation = source.here(), getattr(func, "__name__", "it")
        with noting(where=self.last, origin=origin()):
            if torch.is_grad_enabled():
                return func(*args, **kwargs)
            # The operands as well, for what is written into is no result: `out`, or else perhaps the first.
            first = _constant(args[:1]) if "out" in kwargs else args[:1]
            named = {name: x if name == "out" else _constant(x) for name, x in kwargs.items()}
            return _constant(func(*first, *_constant(args[1:]), **named))


class Noting(TorchDispatchMode):
    """Notes what is read out of tensors by operations whose result depends on it, or the shape of whose result does; and sees
    to it that what is drawn is not seeded by the program.

    What is computed from whole numbers of arguments that are constants, such as the longest of some lengths, may become a
    number of Python's: it is computed, and is not traced either.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seed = Seed()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not READING.isdisjoint(func.tags):
            note((args, kwargs))
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.seed.refuse_another()
        if _are_known(func, args, kwargs):
            note((args, kwargs))
            with disable_current_modes():
                return tree_map_only(torch.Tensor, as_known, func(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _are_known(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation is a function of a few whole numbers that are not traced, some of which are known constants."""
    if writes(func) or torch.Tag.nondeterministic_seeded in func.tags:
        return False
    operands = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    return any(hasattr(x, "is_known") for x in operands) and all(is_whole(x) and not is_traced(x) for x in operands)


def as_known(x: torch.Tensor) -> torch.Tensor:
    """A tensor whose numbers are constants of what is staged."""
    x.is_known = True  # type: ignore[attr-defined]
    return x


def is_whole(x: torch.Tensor) -> bool:
    """Whether a tensor is of whole numbers, and few enough to be told apart by what they are."""
    return not x.is_floating_point() and not x.is_complex() and x.numel() <= FEW


FEW = 1024


@contextmanager
def numbers_noted(numbers: Numbers) -> Iterator[None]:
    """What Python reads out of tensors that are not traced is noted here."""
    with holding(_numbers, numbers), Noting():
        yield


def note(tensors: Any) -> None:
    """Python reads numbers out of tensors."""
    numbers, read = (
        _numbers.get(),
        [x for x in tree_leaves(tensors) if isinstance(x, torch.Tensor) and not is_traced(x)],
    )
    with disable_current_modes():
        numbers += [(x, x.detach().clone()) for x in read]


_numbers: ContextVar[Numbers] = ContextVar("numbers")

READING = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})


def _constant(tree: Any) -> Any:
    """A tree whose tensors have no gradient."""

    def constant(x: torch.Tensor) -> torch.Tensor:
        return x.detach() if is_functionaltensor(x) and x.is_floating_point() else x

    return tree_map_only(torch.Tensor, constant, tree)
