"""Arguments are lent to programs: what is no tensor is a constant, known by its contents, and nothing may be changed in place.

Pyro's SVI runs a program once for each step, and what it changes in its arguments changes with it. A staged program is not run
again, so a change in place would be made when nobody expects it. It is refused, on a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import keystr, tree_flatten, tree_flatten_with_path, tree_unflatten

from ppvi.engine.arguments import Programs, constant, name_of
from ppvi.engine.contents import Constant, Reader, UnreadableError, grown
from ppvi.errors import ProgramError

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments by position and by keyword."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of a call. Made by `arguments_of`."""

    leaves: Sequence[Any]
    """Tensors, and what is none as constants."""
    tree: Any
    names: Callable[[], Sequence[str]]
    """By argument."""

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]

    @property
    def signature(self) -> Hashable:
        """What calls are told apart by."""
        return (*((x.shape, x.dtype) if isinstance(x, torch.Tensor) else x for x in self.leaves), self.tree)

    def copies(self) -> list[torch.Tensor]:
        """The tensors, for a program of which nobody knows what it does to them, each time that it runs as it is."""
        return [x if isinstance(x, torch.nn.Parameter) else x.clone() for x in self.tensors]

    @contextmanager
    def lent(self, tensors: Sequence[torch.Tensor]) -> Iterator[Call]:
        """The arguments with these tensors, to a program that must leave them as they are."""
        rest, versions = iter(tensors), list(map(_version, tensors))
        given = [leaf.copied() if isinstance(leaf, Constant) else next(rest) for leaf in self.leaves]
        args, kwargs = tree_unflatten(given, self.tree)
        yield args, kwargs
        moved = [x for x, version in zip(tensors, versions, strict=True) if _version(x) != version]
        moved += [x for leaf, x in zip(self.leaves, given, strict=True) if _is_other(leaf, x)]
        self._refuse_changes((args, kwargs), tree_unflatten(given, self.tree), moved)

    def _refuse_changes(self, now: Call, before: Call, moved: Sequence[Any]) -> None:
        for i, (left, right) in enumerate(zip(_each(*now), _each(*before), strict=True)):
            (leaves, tree), (others, shape) = tree_flatten(left), tree_flatten(right)
            same = tree == shape and all(x is y for x, y in zip(leaves, others, strict=True))
            if not same or any(x is y for x in leaves for y in moved):
                raise ProgramError(
                    f"the program changes its argument {self.names()[i]} in place, which a program that is staged would do at "
                    f"other times than one that runs at every step: change a copy, such as x.clone() or dict(x)."
                )


def arguments_of(programs: Programs, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    """The arguments of a call, if all have contents."""
    leaves, tree = tree_flatten((args, dict(kwargs)))
    known = [
        x if isinstance(x, torch.Tensor) else constant(x, own, partial(leaf_name, programs, args, kwargs, i))
        for i, x in enumerate(leaves)
    ]
    return Arguments(known, tree, partial(_names_of, programs, len(args), kwargs))


def _names_of(programs: Programs, count: int, kwargs: Mapping[str, Any]) -> list[str]:
    return [name_of(programs, False, i) for i in range(count)] + [name_of(programs, True, key) for key in kwargs]


def leaf_name(programs: Programs, args: tuple[Any, ...], kwargs: Mapping[str, Any], i: int) -> str:
    """The name of a leaf among the arguments, as in `'x'` or `'data'['y'][0]`."""
    path: Any = tree_flatten_with_path((args, dict(kwargs)))[0][i][0]
    side, place, *inner = path
    keyword = side.idx == 1
    return name_of(programs, keyword, place.key if keyword else place.idx) + keystr(tuple(inner))


def own(value: Any, reader: Reader) -> Hashable:
    """Tensors are live in a graph, which must be made anew where one changes; parameters and statistics of modules change at
    every step."""
    if isinstance(value, torch.Generator):
        raise UnreadableError("its numbers are used up by drawing")
    if isinstance(value, torch.nn.Module):
        members = [*value.parameters(recurse=False), *value.buffers(recurse=False)]
        rest = {name: x for name, x in vars(value).items() if name not in ("_parameters", "_buffers")}
        return reader.same(value), reader.read(rest), tuple(map(reader.same, members))
    return (reader.same(value), _version(value)) if isinstance(value, torch.Tensor) else None


def _version(x: torch.Tensor) -> int | None:
    """How often it has been changed in place, which nobody counts of what was made in inference mode."""
    return None if x.is_inference() else x._version


def _is_other(leaf: Any, x: Any) -> bool:
    return isinstance(leaf, Constant) and not grown(leaf.contents, Reader(own).read(x))


def _each(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    yield from args
    yield from kwargs.values()
