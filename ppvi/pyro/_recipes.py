"""A distribution as a function of the tensors that it is made of.

What is staged knows tensors and no distributions, and side by side its runs give each tensor further axes, ahead of its
own. Where those belong is known of a tensor that `expand` repeats, and of a parameter whose constraint says how many axes
a matrix or a vector has: it is laid out along the lanes, and every run is drawn at once. A distribution of which it is not
known is drawn run by run.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch.distributions import Distribution, Transform
from torch.distributions.constraints import Constraint

from ppvi.pyro._compat import BATCH_SHAPE, DERIVED, REMEMBERED, UNBROADCAST, tree_leaves, tree_map, with_lanes
from ppvi.pyro._located import is_library

How = Callable[[Any, int], torch.Tensor]
"""What is wanted of a distribution that has so many axes of runs ahead of its lanes; the result has them in front."""


class Ingredient(NamedTuple):
    """A tensor that a distribution is made of."""

    tensor: torch.Tensor
    part: Any
    """What holds it: the distribution, or one of those that the whole is made of, or a factor of it."""
    name: str
    """The attribute."""


class Recipe:
    """How a distribution is made of tensors."""

    def __init__(self, fn: Any):
        self.fn = fn
        self.ingredients = list(ingredients(fn))

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [each.tensor for each in self.ingredients]

    @property
    def library(self) -> bool:
        """Whether all of it is PyTorch's or Pyro's."""
        return all(map(is_library, parts(self.fn)))

    @functools.cached_property
    def padding(self) -> list[int | None]:
        """How many axes each tensor lacks for the lanes of its part, or None where that is not known."""
        return [_padding(self.fn, each, own) for each, own in zip(self.ingredients, _repeated(self), strict=True)]

    def axes(self, ahead: int) -> list[tuple[int | None, ...]]:
        """Where the axes of each tensor lie in draws, which have so many axes ahead of their lanes."""
        return [
            _axes(self.fn.batch_shape, each.tensor.shape, pad, ahead)
            for each, pad in zip(self.ingredients, self.padding, strict=True)
        ]

    def __call__(self, how: How, values: Sequence[torch.Tensor], runs: Sequence[int] = ()) -> torch.Tensor:
        """What is wanted of the distribution that is made of these values, which have the axes of runs in front."""
        if runs and None in self.padding:
            size, *others = runs
            return torch.stack([self(how, [value[i] for value in values], others) for i in range(size)])
        return how(self._made(values, tuple(runs)), len(runs))

    def _made(self, values: Sequence[torch.Tensor], runs: tuple[int, ...]) -> Any:
        laid = values
        if runs:
            laid = [
                value.reshape(*runs, *[1] * (pad or 0), *value.shape[len(runs) :])
                for value, pad in zip(values, self.padding, strict=True)
            ]
        return _with(self.fn, {id(old): new for old, new in zip(self.tensors, laid, strict=True)}, runs)


def expanded(fn: Any, batch_shape: Sequence[int]) -> Any | None:
    """The distribution with this batch shape, and another one than was given; None where it cannot be expanded."""
    try:
        return copy.copy(fn).expand(torch.Size(batch_shape))
    except NotImplementedError:
        return None


def ingredients(thing: Any) -> Iterator[Ingredient]:
    """The tensors that a distribution is made of."""
    for whole, name, part in _attributes(thing, _is_made):
        if isinstance(part, torch.Tensor):
            yield Ingredient(part, whole, name)


def _is_made(part: Any) -> bool:
    """Whether a thing is data that may have tensors among its attributes, as a distribution or a factor of one has."""
    if isinstance(part, torch.nn.Module):
        return False
    if isinstance(part, Distribution | Transform):
        return True
    plain = type(part).__reduce_ex__ is object.__reduce_ex__ and type(part).__reduce__ is object.__reduce__
    return plain and hasattr(part, "__dict__") and not callable(part) and not isinstance(part, Constraint | ModuleType)


def parts(thing: Any) -> Iterator[Distribution]:
    """A distribution, and those that it is made of."""
    found = {id(thing): thing}
    left = [thing]
    while left:
        for name, value in vars(left.pop()).items():
            for part in () if name == REMEMBERED or type(value) in _LEAVES else tree_leaves(value):
                if isinstance(part, Distribution) and id(part) not in found:
                    found[id(part)] = part
                    left.append(part)
    yield from found.values()


def _attributes(
    thing: Any, followed: Callable[[Any], bool], met: set[int] | None = None
) -> Iterator[tuple[Any, str, Any]]:
    """What a thing and what it is made of have as attributes, each thing once: its holder, its name and itself."""
    met = {id(thing)} if met is None else met
    for name, value in vars(thing).items():
        # What a transform remembers of the values that it was given last is no part of it.
        for part in () if name == REMEMBERED else (value,) if type(value) in _LEAVES else tree_leaves(value):
            yield thing, name, part
            if id(part) not in met and followed(part):
                met.add(id(part))
                yield from _attributes(part, followed, met)


_LEAVES = frozenset({torch.Tensor, torch.nn.Parameter, torch.Size, bool, int, float, str})
"""What holds nothing, of which no tree need be made."""


class Made(NamedTuple):
    """What a library's distribution is made of, by itself and in tensors that stand for nothing else."""

    kinds: tuple[type, ...]
    tensors: list[torch.Tensor]


def ingredients_of_library(fn: Any) -> Made | None:
    """What a distribution is made of; None of one that is not all a library's, or has tensors elsewhere than as attributes."""
    kinds, tensors = list[type](), list[torch.Tensor]()
    while is_library(fn):
        kinds.append(type(fn))
        for name, value in vars(fn).items():
            if type(value) is torch.Tensor:
                tensors.append(value)
            elif name != "base_dist" and type(value) not in _NUMBERS:
                return None
        if (fn := getattr(fn, "base_dist", None)) is None:
            return Made(tuple(kinds), tensors)
    return None


_NUMBERS = frozenset({torch.Size, bool, int, float, str, type(None)})


def _repeated(recipe: Recipe) -> list[bool | None]:
    """Whether `expand` repeats a tensor, which then has the lanes in front; None where it changes more than tensors."""
    fn = recipe.fn
    other = expanded(fn, (2, *fn.batch_shape))
    if other is None or not _alike(fn, other):
        return [None] * len(recipe.ingredients)
    tensors = [each.tensor for each in ingredients(other)]
    if len(tensors) != len(recipe.ingredients):
        return [False] * len(recipe.ingredients)
    return [new.shape == (2, *old.shape) for old, new in zip(recipe.tensors, tensors, strict=True)]


def _alike(thing: Any, other: Any, met: frozenset[int] = frozenset()) -> bool:
    """Whether two distributions differ in tensors and batch shapes only."""
    if not isinstance(thing, Distribution):
        return isinstance(thing, torch.Tensor | list | tuple | Transform) or thing == other
    names, met = vars(thing).keys() & vars(other).keys() - {BATCH_SHAPE}, met | {id(thing)}
    pairs = ((vars(thing)[name], vars(other)[name]) for name in names)
    return type(thing) is type(other) and all(_alike(x, y, met) for x, y in pairs if id(x) not in met)


def _padding(fn: Any, ingredient: Ingredient, repeated: bool | None) -> int | None:
    tensor, part, name = ingredient
    if repeated or repeated is None:
        return 0 if repeated else None
    if isinstance(part, Transform) or not is_library(part) or part.batch_shape[: len(fn.batch_shape)] != fn.batch_shape:
        return None
    if not part.batch_shape:
        return 0
    own = _own_axes(part, name.removeprefix(UNBROADCAST))
    return None if own is None else len(part.batch_shape) - (tensor.ndim - own)


def _own_axes(part: Any, name: str) -> int | None:
    """How many axes a parameter has for itself."""
    if name in DERIVED:
        return DERIVED[name]
    try:
        return part.arg_constraints[name.removeprefix("_")].event_dim
    except (KeyError, NotImplementedError):
        return None


def _axes(lanes: Sequence[int], shape: Sequence[int], pad: int | None, ahead: int) -> tuple[int | None, ...]:
    if pad is None:
        return (None,) * len(shape)
    places = range(pad, pad + len(shape))
    return tuple(
        ahead + place if place < len(lanes) and size == lanes[place] else None
        for place, size in zip(places, shape, strict=True)
    )


def _with(thing: Any, places: dict[int, Any], runs: tuple[int, ...]) -> Any:
    """The distribution with other things in these places: tensors that it is made of, and what has been made anew already."""
    if id(thing) in places or not _is_made(thing):
        return places.get(id(thing), thing)
    other: Any = copy.copy(thing)
    places[id(thing)] = other
    other.__dict__ = tree_map(lambda part: _with(part, places, runs), vars(thing))
    if isinstance(thing, Distribution):
        with_lanes(other, runs)
    return other
