"""How programs see PyTorch: parameters and buffers that they read, tables, and what does more than to compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ppvi.engine.sessions import Session
from ppvi.pyro._buffers import batch_norm
from ppvi.pyro._compat import IDENTITY, is_functorch_wrapped_tensor, level, tree_map
from ppvi.pyro._graphs import one_hot
from ppvi.pyro._instead import put
from ppvi.pyro._refused import HOOKS, refuse_hook


class Reading(TorchFunctionMode):
    """Where a module reads a parameter of its own, it gets the session's value; and a table is read at a place that is a
    tensor without PyTorch's turning that into a number."""

    def __init__(
        self,
        session: Session,
        read: Callable[[Any], Any],
        crossed: Callable[[Any, Any, Any, Any], Any] | None = None,
    ):
        super().__init__()
        self.session = session
        self.read = read
        self.crossed = crossed
        self.own = _PLAIN if session.engine.buffers.places else _OWN
        """What nothing stands for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FACTS:
            return func(*args, **(kwargs or {}))
        own = self.own
        for x in args:
            if type(x) not in own:
                args = tuple([x if type(x) in own else _read(self.read, x) for x in args])
                break
        kwargs = _read(self.read, kwargs) if kwargs else {}
        found = self._seen(func, args, kwargs) if func in _SEEN or "out" in kwargs else func(*args, **kwargs)
        return found if self.crossed is None else self.crossed(func, args, kwargs, found)

    def _seen(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function that does more than to compute with its operands."""
        refuse_hook(func)
        if func == _DATA and is_functorch_wrapped_tensor(args[0]):
            raise RuntimeError("accessing `data` of a tensor that is traced")
        operands = (*args, *kwargs.values())
        of = operands[1:] if func == torch.Tensor.new_tensor else operands
        if func in _LEAVING or (func in _MADE_OF and not isinstance(of[0], torch.Tensor)):
            self.session.engine.effects.read_out(self.session, of)
        out = kwargs.get("out")
        if isinstance(out, torch.Tensor) and is_functorch_wrapped_tensor(out):
            found = func(*args, **{name: x for name, x in kwargs.items() if name != "out"})
            return out.copy_(found) if found.shape == out.shape else func(*args, **kwargs)
        if func in (_INSTEAD if level() else _WRITING):
            return _INSTEAD[func](*args, **kwargs)
        return func(*args, **kwargs)


def _read(read: Callable[[Any], Any], x: Any) -> Any:
    """Operands with what stands for their tensors, as by `tree_map`, which takes as long as the operation."""
    kind = type(x)
    if kind is torch.Tensor or isinstance(x, torch.Tensor):
        return read(x)
    if kind is tuple or kind is list:
        return kind([_read(read, part) for part in x])
    if kind is dict:
        return {name: _read(read, part) for name, part in x.items()} if x else x
    return x if kind in _PLAIN else tree_map(read, x)


_PLAIN = frozenset({int, float, bool, str, type(None), slice, torch.dtype, torch.device, torch.Size})
"""What has no tensors in it; of a size `tree_map` would make a tuple, which `Tensor.new` takes as numbers."""

_OWN = _PLAIN | {torch.Tensor}
"""The same, where there are no buffers."""


def _looked_up(table: torch.Tensor, index: Any) -> torch.Tensor:
    """`table[index]`, with places of no axes taken as places along an axis of size one, which is then left out."""
    items = list(index) if isinstance(index, tuple) else [index]
    single = [i for i, item in enumerate(items) if _is_place(item) and item.ndim == 0]
    if not single:
        return table[index]
    if any(_is_place(item) and item.ndim for item in items):
        return table[tuple(item[None] if i in single else item for i, item in enumerate(items))]
    for ahead in [i for i, item in enumerate(items) if item is ...]:
        named = sum(item is not None for item in items) - 1
        items[ahead : ahead + 1] = [slice(None)] * (table.ndim - named)
        single = [i for i, item in enumerate(items) if _is_place(item)]
    kept = [i for i, item in enumerate(items) if not isinstance(item, int)]
    found = table[tuple(slice(None) if i in single else item for i, item in enumerate(items))]
    for i in reversed(single):
        found = found.movedim(kept.index(i), 0)[items[i][None]][0]
    return found


def _cross_entropy(logits: torch.Tensor, target: torch.Tensor, *options: Any, **named: Any) -> torch.Tensor:
    """`binary_cross_entropy_with_logits` of each entry as the kernel has it; traced or vectorised it has three times as many
    operations."""
    if options or {name: x for name, x in named.items() if x is not None} != {"reduction": "none"}:
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, target, *options, **named)
    return (1 - target) * logits - torch.nn.functional.logsigmoid(logits)


def _squeezed(x: torch.Tensor, *dims: Any, **named: Any) -> torch.Tensor:
    """`squeeze`, of which `torch.vmap` has no rule for lanes without axes."""
    return torch.squeeze(x, *dims, **named) if x.ndim else x


def _is_place(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.dtype not in (torch.bool, torch.uint8)


_INSTEAD: dict[Any, Callable[..., Any]] = {
    torch.nn.functional.batch_norm: batch_norm,
    torch.nn.functional.one_hot: one_hot,
    torch.nn.functional.binary_cross_entropy_with_logits: _cross_entropy,
    torch.Tensor.__getitem__: _looked_up,
    torch.Tensor.__setitem__: put,
    torch.Tensor.squeeze: _squeezed,
    torch.squeeze: _squeezed,
}
"""What is called in place of a function of PyTorch's, where that is traced or vectorised."""

_WRITING = frozenset({torch.nn.functional.batch_norm})
"""Those in whose place it is called anywhere."""

_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]
"""Through which a program reads and writes past autograd, which no graph has a word for."""

_FACTS = frozenset(
    [getattr(torch.Tensor, name).__get__ for name in ("requires_grad", "shape", "dtype", "device", "layout", "ndim")]
) | {
    IDENTITY,
    torch.Tensor.size,
    torch.Tensor.dim,
    torch.Tensor.is_floating_point,
    torch.Tensor.is_complex,
    torch.Tensor.numel,
}
"""What a module's parameter and what stands for it have in common; and whether it is trained, which is the parameter's own."""

_LEAVING = frozenset({torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.__dlpack__})
"""By which numbers leave PyTorch without an operation."""

_MADE_OF = frozenset({torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor})
"""By which they do among Python's own, to come back in a new tensor."""

_SEEN = frozenset({_DATA, *HOOKS, *_LEAVING, *_MADE_OF, *_INSTEAD})
"""What does more than to compute with its operands."""
