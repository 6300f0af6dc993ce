"""Arguments are lent to programs: what is no tensor is a constant, known by what is in it, and nothing may be changed in place.

Pyro's SVI runs a program once for each step, and what it changes in its arguments changes with it. A staged program is not run
again, so a change in place would be made when nobody expects it. It is refused, on a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch

from ppvi.engine.arguments import Constants, Programs, copied, name_of
from ppvi.engine.looking import SCALARS
from ppvi.engine.world import Fact, World, scalar
from ppvi.errors import ProgramError
from ppvi.pyro._compat import keystr, kind_of, tree_flatten, tree_flatten_with_path, tree_unflatten
from ppvi.pyro._located import as_known, is_whole

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments by position and by keyword."""

Look = Callable[[Constants], World]


class Arguments:
    """The arguments of a call."""

    def __init__(
        self,
        programs: Programs,
        look: Look,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        read: Collection[int] = (),
    ):
        self._look = look
        self._read = read
        """The places among the leaves of tensors that are constants."""
        self._programs = programs
        self.given = args, kwargs = args, dict(kwargs)
        self.are_plain = not kwargs and not read and all(type(x) is torch.Tensor for x in args)
        """Whether they are tensors by position, of which no tree need be made."""
        self._tree: Any
        self.leaves, self._tree = (args, len(args)) if self.are_plain else tree_flatten((args, kwargs))
        self.tensors = [x for i, x in enumerate(self.leaves) if isinstance(x, torch.Tensor) and i not in read]
        self.constants = Constants() if self.are_plain else self._constants()
        self.kind = kind_of(self._tree), *[(x.shape, x.dtype) for x in self.tensors]
        """What calls are told apart by, beside constants."""

    def _constants(self) -> Constants:
        numbers = [scalar(x) if type(x) in SCALARS else isinstance(x, torch.Tensor) for x in self.leaves]
        for i in self._read:
            numbers[i] = "tensor", self.leaves[i].dtype, repr(self.leaves[i].tolist())
        places = [i for i, number in enumerate(numbers) if number is False]
        return Constants(tuple(numbers), [self.leaves[i] for i in places], places, self._leaf_name)

    @property
    def floats(self) -> dict[int, float]:
        """The floats, by their places among the leaves."""
        return {} if self.are_plain else {i: x for i, x in enumerate(self.leaves) if type(x) is float}

    def with_tensors(self, places: Collection[int]) -> Arguments:
        """The same with tensors in these places."""
        leaves = [torch.tensor(x) if i in places else x for i, x in enumerate(self.leaves)]
        return Arguments(self._programs, self._look, *self._call(leaves))

    @property
    def whole(self) -> list[int]:
        """The places of tensors of a few whole numbers, the smallest first."""
        found = {i: x.numel() for i, x in enumerate(self.leaves) if isinstance(x, torch.Tensor) and is_whole(x)}
        return sorted(found, key=found.__getitem__)

    def with_numbers(self, places: Collection[int]) -> Arguments:
        """The same with these tensors as constants."""
        leaves = [as_known(x.clone()) if i in places else x for i, x in enumerate(self.leaves)]
        return Arguments(self._programs, self._look, *self._call(leaves), places)

    def _call(self, leaves: Sequence[Any]) -> Call:
        return (tuple(leaves), {}) if self.are_plain else tree_unflatten(leaves, self._tree)

    def _leaf_name(self, i: int) -> str:
        """The name of a leaf among the arguments, as in `'x'` or `'data'['y'][0]`."""
        path: Any = tree_flatten_with_path(self.given)[0][i][0]
        side, place, *inner = path
        keyword = side.idx == 1
        return name_of(self._programs, keyword, place.key if keyword else place.idx) + keystr(tuple(inner))

    def copies(self) -> list[torch.Tensor]:
        """The tensors, for a program of which nobody knows what it does to them, each time that it runs as it is."""
        return [x if isinstance(x, torch.nn.Parameter) else x.clone() for x in self.tensors]

    @contextmanager
    def lent(self, tensors: Sequence[torch.Tensor]) -> Iterator[Call]:
        """The arguments with these tensors, to a program that must leave them as they are."""
        versions = list(map(_version, tensors))
        if self.are_plain:
            yield tuple(tensors), {}
            given: Sequence[Any] = tensors
        else:
            rest, things = iter(tensors), iter(self._borrowed[0])
            known = zip(self.constants.numbers, self.leaves, strict=True)
            given = [next(rest) if kind is True else next(things) if kind is False else leaf for kind, leaf in known]
            args, kwargs = tree_unflatten(given, self._tree)
            yield args, kwargs
            self._refuse_others(given, args, kwargs)
        moved = [x for x, version in zip(tensors, versions, strict=True) if _version(x) != version]
        if moved:
            raise self._changed(next(self._argument_of(i) for i, x in enumerate(given) if any(x is y for y in moved)))

    def _refuse_others(self, given: Sequence[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuse a change of containers, or of what is no tensor."""
        before = tree_unflatten(given, self._tree)
        (old, tree), (new, shape) = tree_flatten(before), tree_flatten((args, kwargs))
        if tree != shape or any(x is not y for x, y in zip(old, new, strict=True)):
            raise self._changed(self._first_changed(before, args, kwargs))
        if self.constants.things:
            _, world, versions = self._borrowed
            if not world.watch.holds() or versions != list(map(_version, _tensors_in(world))):
                self._refuse_changed_things()

    def _first_changed(self, before: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        for (name, old), new in zip(self._by_name(*before), (*args, *kwargs.values()), strict=True):
            (leaves, tree), (others, shape) = tree_flatten(old), tree_flatten(new)
            if tree != shape or any(x is not y for x, y in zip(leaves, others, strict=True)):
                return name
        raise AssertionError("what has changed is in an argument")

    def _refuse_changed_things(self) -> None:
        things, before, versions = self._borrowed
        moved = {id(x) for x, version in zip(_tensors_in(before), versions, strict=True) if _version(x) != version}
        now = _by_place(self._look(self.constants._replace(things=things)).facts)
        roots = {self.constants.name(i): i for i in self.constants.places}
        for place, fact in _by_place(before.facts).items():
            if fact.path.root not in roots or fact.kind in (
                "again",
                "names",
                "attributes",
            ):  # of which there may be more
                continue
            if place not in now or not fact.same(now[place]) or id(fact.value) in moved:
                raise self._changed(self._argument_of(roots[fact.path.root]))

    @cached_property
    def _borrowed(self) -> tuple[Sequence[Any], World, list[int | None]]:
        """Copies of what is neither tensor nor number, what is in them, and how often tensors in them were changed."""
        constants = self.constants
        if not constants.things:
            return (), World(), []
        things = copied(list(constants.things), self._look(constants).kept())
        world = self._look(constants._replace(things=things))
        return things, world, list(map(_version, _tensors_in(world)))

    def _by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        yield from ((name_of(self._programs, False, i), x) for i, x in enumerate(args))
        yield from ((name_of(self._programs, True, key), x) for key, x in kwargs.items())

    def _argument_of(self, i: int) -> str:
        """The name of the argument in which a leaf is."""
        ends = 0
        for name, x in self._by_name(*self.given):
            ends += len(tree_flatten(x)[0])
            if i < ends:
                return name
        raise AssertionError("every leaf is in an argument")

    def _changed(self, name: str) -> ProgramError:
        return ProgramError(
            f"the program changes its argument {name} in place, which a program that is staged would do at other times than "
            f"one that runs at every step: change a copy, such as x.clone() or dict(x)."
        )


def _by_place(facts: Sequence[Fact]) -> dict[tuple[str, str], Fact]:
    return {(str(fact.path), fact.kind): fact for fact in facts}


def _tensors_in(world: World) -> list[torch.Tensor]:
    return [fact.value for fact in world.facts if fact.kind == "array"]


def _version(x: torch.Tensor) -> int | None:
    """How often it has been changed in place, which nobody counts of what was made in inference mode."""
    return None if x.is_inference() else x._version
