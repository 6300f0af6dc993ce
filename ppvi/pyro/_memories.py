"""What optimisers and schedulers of PyTorch remember, as named tensors."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch.optim.lr_scheduler import LRScheduler

from ppvi._doors import described
from ppvi._trees import mapped
from ppvi.errors import EngineError, ProgramError
from ppvi.pyro import _compat

Named = dict[str, torch.Tensor]


@dataclass
class Memory:
    """That of what moves some tensors."""

    step: Callable[..., Any]
    """Moves them by their `.grad`, on the step's data."""
    parts: Callable[[], Sequence[Any]]
    """Optimisers and schedulers, each with its `state_dict`."""
    hooked: bool = False
    """Whether something hangs on the steps whose own memory nobody sees."""
    fresh: dict[int, Any] = field(default_factory=dict)
    """By the part's number, what it began with."""

    def __post_init__(self) -> None:
        self.fresh |= {i: copy.deepcopy(part.state_dict()) for i, part in enumerate(self.parts())}

    def arrays(self) -> Named:
        """What is in tensors, and the numbers that have changed since the beginning."""
        found: Named = {}
        for i, part in enumerate(self.parts()):
            now, kind = part.state_dict(), type(part).__name__
            before = _leaves(self.fresh[i], kind)
            for path, x in _leaves(now, kind).items():
                if isinstance(x, torch.Tensor):
                    found[f"{i}/{kind}/tensors/{path}"] = x.detach().clone()
                elif x != before.get(path):
                    dtype = torch.float64 if isinstance(x, float) else None  # bools and ints have their own
                    found[f"{i}/{kind}/numbers/{path}"] = torch.tensor(x, dtype=dtype)
        return found

    def load(self, arrays: Named) -> None:
        """Remember this again."""
        by_part: dict[int, dict[str, Any]] = {}
        kinds: dict[int, str] = {}
        for name, x in arrays.items():
            number, kind, what, path = name.split("/", 3)
            by_part.setdefault(int(number), {})[path] = x.clone() if what == "tensors" else x.item()
            kinds[int(number)] = kind
        parts = self.parts()
        for i, kind in kinds.items():
            mine = type(parts[i]).__name__ if i < len(parts) else "nothing"
            if mine != kind:
                raise ProgramError(
                    f"fit: the state to go on from has what {kind} remembers, and this fit's optimizer has {mine} there: go on "
                    f"with the optimizer that the state was made with, or begin anew with params=."
                )
        for i, part in enumerate(parts):
            part.load_state_dict(_filled(copy.deepcopy(self.fresh[i]), _nested(by_part.get(i, {}))))


def memory_of(optimizer: Any, leaves: list[torch.Tensor]) -> Memory:
    """That of an optimiser of these tensors: of `pyro.optim`, or what is made by a function of them."""
    if isinstance(optimizer, PyroOptim):
        return _of_pyro(optimizer, leaves)
    # Those of pyro.optim that are no PyroOptim make none of tensors.
    makes = callable(optimizer) and not str(getattr(optimizer, "__module__", "")).startswith("pyro.")
    try:
        made: Any = optimizer(leaves) if makes else None
    except TypeError:
        made = None
    moving, *schedulers = made if isinstance(made, tuple) and made else (made,)
    if not isinstance(moving, torch.optim.Optimizer) or not all(isinstance(x, LRScheduler) for x in schedulers):
        raise ProgramError(
            f"fit: the optimizer must be the step size of Adam, or make an optimiser of the tensors that it is given, as "
            f"functools.partial(torch.optim.Adam, lr=0.01) does, or an optimiser and its scheduler, or be one of pyro.optim, "
            f"as pyro.optim.Adam({{'lr': 0.01}}) is, and not {described(optimizer)}."
        )

    def step(*data: Any) -> None:
        for part in (moving, *schedulers):
            part.step()

    _refuse_needy((moving, *schedulers))
    return Memory(step, lambda: (moving, *schedulers), _compat.is_hooked(moving))


def _of_pyro(given: PyroOptim, leaves: list[torch.Tensor]) -> Memory:
    """That of an optimiser for each leaf, made anew: another fit's is not this one's. A scheduler moves at every step."""
    optimizer: Any = copy.copy(given)
    optimizer.optim_objs = {leaf: _compat.optimizer_of(optimizer, leaf) for leaf in leaves}
    optimizer.grad_clip = {leaf: _compat.clipping_of(optimizer, leaf) for leaf in leaves}
    schedulers = [made for made in optimizer.optim_objs.values() if isinstance(made, LRScheduler)]

    parts = [*optimizer.optim_objs.values(), *(scheduler.optimizer for scheduler in schedulers)]
    _refuse_needy(parts)

    def step(*data: Any) -> None:
        optimizer(leaves)
        for scheduler in schedulers:
            scheduler.step()

    return Memory(step, lambda: parts)


def _leaves(tree: Any, kind: str) -> dict[str, Any]:
    """The tensors and numbers of what a part remembers, by where they are."""
    found: dict[str, Any] = {}

    def keep(path: str, x: Any) -> None:
        if isinstance(x, torch.Tensor | int | float):
            found[path] = x
        elif not isinstance(x, str):
            raise EngineError(
                f"fit: {kind} remembers a {type(x).__name__} at {path}, which a fit cannot keep as numbers: use another "
                f"optimizer."
            )

    mapped(tree, keep)
    return found


def _refuse_needy(parts: Sequence[Any]) -> None:
    """What cannot step without being told more than gradients."""
    for part in parts:
        _, *arguments = inspect.signature(type(part).step).parameters.values()
        needs = [x.name for x in arguments if x.default is x.empty]
        if needs:
            raise ProgramError(
                f"fit: a step of {type(part).__name__} needs its {needs[0]}, and a fit gives an optimizer a gradient, which is "
                f"of other draws at every step, and a scheduler nothing: take an optimizer such as Adam, or a scheduler that "
                f"goes by the number of steps; `until=ppvi.Plateau()` stops where the loss no longer falls."
            )


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, x in leaves.items():
        *before, last = path.split("/")
        inside = tree
        for step in before:
            inside = inside.setdefault(step, {})
        inside[last] = x
    return tree


def _filled(tree: Any, values: Any) -> Any:
    """A tree with other values where there are some, and with those that it lacks."""
    if not isinstance(values, dict):
        return tree if values is None else values
    if isinstance(tree, list | tuple):
        return type(tree)(_filled(x, values.get(str(i))) for i, x in enumerate(tree))
    known = {str(key): key for key in tree} if isinstance(tree, dict) else {}
    more = {known.get(step, int(step) if step.isdigit() else step): step for step in values}
    kept = {key: tree[key] for key in known.values() if key not in more}
    return kept | {key: _filled(tree.get(key) if known else None, values[step]) for key, step in more.items()}
