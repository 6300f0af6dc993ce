"""A program's own `torch.autograd.Function`: one operation of the graph, whose derivative is the one that it states.

Transformations of functions refuse most of them. Where a program is staged or vectorised, a call is therefore noted down
whole, and made where the program is run, on autograd's tape and on tensors of the shapes that its author had in mind: side
by side runs are called one after the other.

Programs keep the bound method, as in `square = Square.apply`, so that it is the code of `apply` that is another one, from the
import of this module on. It does what it did, but in a session, of which every thread has its own. (In PyTorch 2.14 it
has no code but C's: there another method is in its place, which programs find that bind theirs after the import.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.overrides import handle_torch_function

from ppvi._session import holding
from ppvi.errors import EngineError
from ppvi.ir import AxisMap, Origin
from ppvi.pyro import _source as source
from ppvi.pyro._compat import (
    CheckpointFunction,
    TransformType,
    in_place_of_apply,
    in_place_of_scripts,
    interpreter,
    is_batchedtensor,
    is_functionaltensor,
    is_mode_around,
    level,
    tree_flatten,
    tree_map,
    tree_unflatten,
)
from ppvi.pyro._located import within
from ppvi.pyro._registry import LIBRARY, in_front, register, registered
from ppvi.pyro._trees import lowered

_TENSOR = object()

LIBRARY.define("call(Tensor[] inputs, int number) -> Tensor[]")


@dataclass(frozen=True)
class Call:
    """A call of a function, as a function of the tensors among its arguments."""

    function: type[torch.autograd.Function]
    arguments: Sequence[Any]
    """The leaves, with anything in the place of tensors."""
    tree: Any
    places: Sequence[int]
    result: list[Any]
    """What it returned: the leaves, with a mark in the place of tensors, and their tree."""
    runs: int = 0
    """How many axes of runs the tensors have in front."""

    def __call__(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.runs:
            one = replace(self, runs=self.runs - 1)
            runs = [one(*entries) for entries in zip(*tensors, strict=True)]
            return tuple(map(torch.stack, zip(*runs, strict=True)))
        args, kwargs = tree_unflatten(_filled(self.arguments, self.places, tensors), self.tree)
        leaves, tree = tree_flatten(_native(self.function, *args, **kwargs))
        found = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        self.result[:] = [_TENSOR if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], tree
        return tuple(found)

    def returned(self, tensors: Sequence[torch.Tensor]) -> Any:
        """What the call returns, with these tensors."""
        leaves, tree = self.result
        places = [i for i, leaf in enumerate(leaves) if leaf is _TENSOR]
        return tree_unflatten(_filled(leaves, places, tensors), tree)

    def flow(self, inputs: Sequence[Any], outputs: int) -> list[list[AxisMap]]:
        """Runs stay apart; the function may mix everything else."""
        runs = tuple(range(self.runs))
        return [[(*runs, *[None] * (len(x.shape) - self.runs)) for x in inputs]] * outputs


def _filled(leaves: Sequence[Any], places: Sequence[int], tensors: Sequence[torch.Tensor]) -> list[Any]:
    filled = list(leaves)
    for place, tensor in zip(places, tensors, strict=True):
        filled[place] = tensor
    return filled


def call(made: Call, inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """The tensors that a call returns: one operation where it is staged. Otherwise it runs, on autograd's tape."""
    if any(map(is_batchedtensor, inputs)):
        return _Vectorised.apply(made, *inputs)
    if any(map(is_functionaltensor, inputs)):
        return torch.ops.ppvi.call(list(inputs), register(made))
    with lowered(level()):
        return made(*inputs)


def _call(inputs: list[torch.Tensor], number: int) -> list[torch.Tensor]:
    return [out.clone() for out in registered(number)(*inputs)]


LIBRARY.impl("call", _call, "CompositeExplicitAutograd")


class _Vectorised(torch.autograd.Function):
    """A call under `vmap` is one of further runs, whose derivative is on the tape outside."""

    @staticmethod
    def forward(made: Call, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(made(*tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
        made, *tensors = args
        inputs = [in_front(info.batch_size, x, d) for x, d in zip(tensors, in_dims[1:], strict=True)]
        outs = tuple(call(replace(made, runs=made.runs + 1), inputs))
        return outs, (0,) * len(outs)


def applied(cls: Any, args: Any, kwargs: Any) -> Any:
    """What `apply` does: in a session, calls are noted down where a transformation is around."""
    read = _read.get()
    if read is None:
        return _native(cls, *args, **kwargs)
    is_ours = cls.__module__.startswith("ppvi.")
    if not is_ours:
        args, kwargs = tree_map(read, (args, kwargs))
    if is_ours or not level():
        with within(Origin.OTHER if cls is CheckpointFunction else Origin.SPECIAL):
            return _native(cls, *args, **kwargs)
    if cls is CheckpointFunction:  # to save memory is the business of whoever runs the graph
        function, _, *others = args
        return function(*others)
    _refuse_transformed(cls)
    leaves, tree = tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    made = Call(cls, [None if i in places else leaf for i, leaf in enumerate(leaves)], tree, places, [])
    return made.returned(call(made, [leaves[i] for i in places]))


Read = Callable[[Any], Any]

_read: ContextVar[Read | None] = ContextVar("read", default=None)
"""What stands for a parameter of a module, in the session that runs."""


def calls_noted(read: Read) -> AbstractContextManager[Read]:
    """Functions are applied as a session does; `read` says what stands for a parameter of a module."""
    return holding(_read, read)


class _Session:
    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # pyright: ignore[reportSelfClsParameterName]
        __class__  # noqa: B018  # pyright: ignore[reportUnusedExpression]  (a free variable, as the code replaced has)
        from ppvi.pyro import _functions as functions

        return functions.applied(cls, args, kwargs)


_native = in_place_of_apply(_Session.apply)


def _scripted(native: Callable[..., Any]) -> Callable[..., Any]:
    """What `torch.jit` has made is called as other functions are: in a session, modes see it, as they otherwise do not."""

    def scripted(script: Any, *args: Any, **kwargs: Any) -> Any:
        if _read.get() is None or not is_mode_around():
            return native(script, *args, **kwargs)
        return handle_torch_function(scripted, (), script, *args, **kwargs)

    return scripted


SCRIPTED = in_place_of_scripts(_scripted)


def _refuse_transformed(cls: type) -> None:
    if interpreter().key() in (TransformType.Grad, TransformType.Jvp):
        raise EngineError(
            f"{cls.__name__}, a torch.autograd.Function, is called at {source.here()} under a derivative of torch.func, which "
            f"does not know its own. Write the derivative out, or the function in PyTorch's operations."
        )
