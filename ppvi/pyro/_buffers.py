"""Buffers of modules, such as the running statistics of a BatchNorm: a gradient changes them once, and nothing else does.

While a session runs, a copy stands for each buffer that is read, and it is the copy that modules change in place, or put
another tensor in the place of. In a graph what a copy is at the end is one operation more, a *write*, whose value is that of
a plain run of the program: whoever computes a gradient puts it into the buffer. Runs side by side have a copy each, and leave
their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch

from ppvi._session import holding
from ppvi.errors import ProgramError
from ppvi.pyro._compat import WeakIdKeyDictionary, is_functionaltensor, is_lazy, level, wrap_functional_tensor
from ppvi.pyro._trees import lowered


class Place(NamedTuple):
    """Where a buffer is kept."""

    path: str
    module: torch.nn.Module
    key: str
    tensor: torch.Tensor


class Modules(WeakIdKeyDictionary):
    """Parameters that belong to modules, and their names, for as long as the modules live; and the buffers of those within
    reach."""

    places: Sequence[Place] = ()

    def __init__(self) -> None:
        super().__init__()
        self.shared: set[str] = set()
        """Names that modules of both programs give to parameters of their own."""
        self.aliases: dict[str, str] = {}
        """Further names of a parameter -> the first, under which it is known."""

    def tell_apart(self, name: str) -> None:
        """Parameters of this name have the program's name in front from now on."""
        self.shared.add(name)
        for parameter in [parameter for parameter, known in self.items() if known == name]:
            del self[parameter]


def named_again(state: Any, aliases: Mapping[str, str]) -> Any:
    """A state for Pyro's store, in which parameters of modules that have several names have all of them, as in Pyro."""
    return {
        kind: {**{alias: entries[name] for alias, name in aliases.items() if name in entries}, **entries}
        for kind, entries in state.items()
    }


class SharedNameError(ProgramError):
    """Modules give one name to two parameters."""

    def __init__(self, name: str, role: str, where: str):
        super().__init__(
            f"modules have two parameters named {name!r}, the second in the {role} at {where}: register one of the modules "
            f"under a name of its own, as in pyro.module('decoder', net), or make it an attribute of a PyroModule."
        )
        self.name = name


def places_in(modules: Iterable[tuple[str, Any]]) -> Sequence[Place]:
    return [
        Place(f"{path}.{key}", module, key, buffer)
        for path, module in modules
        for key, buffer in module._buffers.items()
        if buffer is not None and not is_lazy(buffer)
    ]


Written = list[tuple[torch.Tensor, torch.Tensor]]
"""Buffers, and what is to be in them."""


class Buffers:
    """What stands for buffers in one session."""

    def __init__(self, places: Sequence[Place]):
        self.places = {id(place.tensor): place for place in places}
        self.copies: list[dict[int, torch.Tensor]] = [{}]
        """Of the session, and of the runs side by side around, the innermost last."""
        self.keys: list[torch.Tensor] = []
        self.level = level()

    def read(self, x: Any) -> Any:
        """What stands for a tensor, which is a buffer or none."""
        return self._copy(id(x), len(self.copies) - 1) if id(x) in self.places else x

    def _copy(self, number: int, depth: int) -> torch.Tensor:
        copies, place = self.copies[depth], self.places[number]
        if number in copies:
            return copies[number]
        if depth == 0:
            copies[number] = self._outermost(place.tensor)
        elif not place.module.training:
            return self._copy(number, depth - 1)
        else:
            outer, key = self._copy(number, depth - 1), self.keys[depth - 1]
            copies[number] = outer + (0 * key).to(outer.dtype)
        return copies[number]

    def _outermost(self, x: torch.Tensor) -> torch.Tensor:
        with lowered(level() - self.level):
            probe = torch.empty(())
            return wrap_functional_tensor(x, self.level) if is_functionaltensor(probe) else x.clone()

    @contextmanager
    def side_by_side(self, key: torch.Tensor) -> Iterator[Callable[[], Written]]:
        """Within runs of which each has a copy of its own; gives what they have `ended` with."""
        before = {number: place.module._buffers.get(place.key) for number, place in self.places.items()}
        self.keys.append(key)
        self.copies.append({})
        try:
            yield lambda: self.ended(before)
        finally:
            self.keys.pop()
            self.copies.pop()

    def ended(self, before: Mapping[int, torch.Tensor | None] | None = None) -> Written:
        """Buffers, each with what is in its place at the end; where is then again what was there before, or the buffer."""
        found = []
        for number, place in self.places.items():
            now, first = place.module._buffers.get(place.key), before[number] if before else place.tensor
            place.module._buffers[place.key] = first
            if now is not first and now is not None:
                found.append((place.tensor, now))
            elif number in self.copies[-1]:
                found.append((place.tensor, self.copies[-1][number]))
        return found


Writes = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""Buffers, and what is to be in them, by the buffer's identity."""

_writes: ContextVar[Writes | None] = ContextVar("writes", default=None)


def writing() -> AbstractContextManager[Writes]:
    """What is written in here is collected."""
    return holding(_writes, {})


def written(buffer: torch.Tensor, value: torch.Tensor, mapped: int) -> torch.Tensor:
    """Note what is to be in a buffer, the mean over as many axes of runs."""
    writes = _writes.get()
    if writes is not None:
        flat = value.detach().flatten(0, mapped - 1) if mapped else value.detach()[None]
        writes[id(buffer)] = (buffer, flat.mean(0) if flat.is_floating_point() else flat[0])
    return value


def changed(writes: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Those that are no longer what is in the buffer: one that stays as it is may be in a graph that is to go backwards."""
    return ((x, now) for x, now in writes if x.dtype != now.dtype or not torch.equal(x, now))


@torch.no_grad()
def put(writes: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for buffer, value in writes:
        buffer.copy_(value)


@contextmanager
def unchanged(places: Sequence[Place]) -> Iterator[None]:
    """Buffers are afterwards what they were."""
    before = [(place.tensor, place.tensor.clone()) for place in places]
    try:
        yield
    finally:
        put(changed(before))


def batch_norm(
    x: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    """PyTorch's, which changes running statistics unknown to autograd and to graphs."""
    if not training or running_mean is None or running_var is None:
        return torch.nn.functional.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    with torch.no_grad():
        var, mean = torch.var_mean(x, [axis for axis in range(x.ndim) if axis != 1])
        running_mean.mul_(1 - momentum).add_(momentum * mean)
        running_var.mul_(1 - momentum).add_(momentum * var)
    return torch.nn.functional.batch_norm(x, None, None, weight, bias, True, momentum, eps)
