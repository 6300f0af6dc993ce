"""Borders: whether draws are read or jump, seen at the functions that a program calls and not at every operation.

What depends on a draw that carries its own gradient has a gradient itself, for as long as nothing severs it: a number that
Python gets, a tensor of integers, a constant. So a function whose result has a gradient has severed nothing, unless one of its
own operations has, beneath its border. Which functions do that is learnt: in the first runs `ppvi.pyro._provenance` watches all
operations. A run that severs what depends on a draw, or calls a function that none of those has called, is begun anew
with the same random numbers and watched in the same way, so that what is cheap to see decides nothing.

Three kinds of functions do not say by themselves what they do: what `torch.jit` has made and derivatives, which others decide,
and what writes into memory in which other tensors lie, too. They are watched wherever they meet a draw.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Any

import torch

from ppvi.ir import Origin
from ppvi.pyro._compat import is_forward, is_shared, level
from ppvi.pyro._functions import SCRIPTED
from ppvi.pyro._located import origin
from ppvi.pyro._provenance import READS, SMOOTH, STOPS, Provenance, is_real, strided

Crossed = Callable[[Any, Any, Any, Any], Any]
"""Told of a function, its operands and its result, which it returns."""


class AnewError(BaseException):
    """A run has to be watched more closely than was known when it began, and need not go on.

    No `Exception`, so that it is none of those that a program catches; of one that catches all, `Replay.surrogate` sees that it
    was not watched as is known by then.
    """


class Known:
    """What runs of a program have shown, by which later ones are watched the less."""

    def __init__(self) -> None:
        self.follows = False
        """Whether they have draws of which it matters whether they are read."""
        self.severs = False
        """Whether something severs what depends on such a draw."""
        self.learns = True
        """Whether the next run is watched for what its functions do."""
        self.lessons = 0
        """How often one was."""
        self.functions: dict[Hashable, int] = {}
        """The functions called of what has a gradient, and the worst that is among their operations."""

    @property
    def watches_all(self) -> bool:
        """Whether the next run is watched at every operation."""
        return self.follows and (self.severs or self.learns)


class Borders:
    """What crosses the borders of functions in a run."""

    def __init__(self, known: Known, provenance: Provenance):
        self.known = known
        self.provenance = provenance

    def crossed(self) -> Crossed | None:
        """What the next run tells of its functions, if anything."""
        if not self.known.follows or self.known.severs:
            return None
        return self._learn if self.known.learns else self._cross

    def read(self, tensors: Any) -> None:
        """Python gets numbers out of tensors, or they jump."""
        if self.known.watches_all:
            self.provenance.read(tensors)
        elif self.known.follows:
            self._sever(tensors)

    def follow(self, draw: torch.Tensor) -> int | None:
        """A draw is followed from here on; its number, where all operations are watched."""
        if not self.known.follows:
            self.known.follows = True
            raise AnewError
        return self.provenance.follow(draw) if self.known.watches_all else None

    def ended(self) -> None:
        """A gradient has been computed."""
        if self.known.watches_all:
            self.known.learns = False
            self.known.lessons += 1
            self.known.severs = self.known.severs or bool(self.provenance.reads) or self.known.lessons > MOST

    def _learn(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        worst, self.provenance.worst = self.provenance.worst, SMOOTH
        if not self.provenance.is_paused and _differentiable((args, kwargs)):
            if worst == STOPS and not torch.is_grad_enabled():  # which is no doing of the function's
                worst = SMOOTH
            key = _key(func, args, kwargs)
            self.known.functions[key] = max(self.known.functions.get(key, SMOOTH), worst)
        return result

    def _cross(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        if self.provenance.is_paused:
            return result
        plain, records = not kwargs and type(func) is not FunctionType, torch.is_grad_enabled()
        worst = self.known.functions.get(func if plain else _key(func, args, kwargs))
        is_new = not args or result is not args[0]
        if worst == SMOOTH and records and is_new and type(result) is torch.Tensor and result.requires_grad:
            return result
        name = getattr(func, "__name__", "")
        # After the one nothing shows what there was; within the others nothing shows what there is.
        if name == "detach_" or level() or is_forward():
            self.known.severs = True
            raise AnewError
        if not any(map(_may_differentiate, args)) and not kwargs:
            return result
        writes = name == "__setitem__" or (name.endswith("_") and not is_new)  # `float()` returns its operand, too
        if func in _DECIDED_BY_OTHERS or (writes and any(map(is_shared, strided(args[:1])))):
            self._sever((args, kwargs))
            return result
        if worst is None and _differentiable((args, kwargs)):
            self.known.learns = True
            raise AnewError
        users = origin() is Origin.OTHER
        if worst == READS or (worst != SMOOTH and users) or not records or _severs(name, args, result, users):
            is_of_form = name.endswith("_like") or (name.startswith("new_") and name != "new_tensor")
            self._sever((args[1:] if is_of_form else args, kwargs))
        return result

    def _sever(self, operands: Any) -> None:
        if _depends_on_draws(operands):
            self.known.severs = True
            raise AnewError


MOST = 16
"""Lessons; whoever calls functions that are others each time is watched at every operation."""


def _key(func: Any, args: Any, kwargs: Any) -> Hashable:
    """A function with the options that it is called with, by which those in Python choose between operations."""
    options = (*args, *kwargs.values()) if type(func) is FunctionType else kwargs.values()
    return (func, *kwargs, *(x if _chooses(x) else ... for x in options)) if options else func


def _chooses(x: Any) -> bool:
    """Whether an option may be looked at, as a flag or another function is, and is not computed with."""
    return type(x) not in _COMPUTED and isinstance(x, Hashable) and not isinstance(x, torch.Tensor)


_COMPUTED = frozenset({torch.Tensor, float, tuple, list, dict})

_DECIDED_BY_OTHERS = frozenset({torch.autograd.grad, *SCRIPTED})
"""Functions that do what a graph or a script says."""


def _may_differentiate(x: Any) -> bool:
    return x.requires_grad if type(x) is torch.Tensor else type(x) not in _PLAIN


_PLAIN = frozenset({int, float, bool, str, type(None), torch.dtype, torch.Size})


def _severs(name: str, args: Any, result: Any, users: bool) -> bool:
    """Whether something in a result is without gradient; of a library's own density only what is real."""
    if name == "__setitem__":
        return not args[0].requires_grad
    if name == "broadcast_tensors":  # each is one of the operands
        return False
    parts = result if isinstance(result, tuple | list) else (result,)
    return any(not isinstance(x, torch.Tensor) or (not x.requires_grad and (users or is_real(x))) for x in parts)


def _depends_on_draws(operands: Any) -> bool:
    """Whether a draw that carries its own gradient is behind operands, which all have a gradient if one is."""
    left, met = [x.grad_fn for x in _differentiable(operands)], set[Any]()
    while left:
        node = left.pop()
        if node is None or node in met:
            continue
        if hasattr(node, "undecided"):
            return True
        met.add(node)
        left += [before for before, _ in node.next_functions]
    return False


def _differentiable(tree: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, tuple | list) else (tree,):
        if isinstance(part, torch.Tensor):
            if part.requires_grad:
                found.append(part)
        elif isinstance(part, tuple | list | dict):
            found += _differentiable(part)
    return found
