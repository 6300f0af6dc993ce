"""The arguments of a call: arrays, which are traced, and the rest, which is constant."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppvi._doors import described
from ppvi.engine.arguments import Constants, Programs, copied, name_of, named
from ppvi.engine.looking import SCALARS
from ppvi.engine.stagings import Recent
from ppvi.engine.world import World, scalar
from ppvi.errors import ProgramError
from ppvi.ir import Support, Var
from ppvi.numpyro import _source as source
from ppvi.numpyro._compat import Tracer
from ppvi.numpyro._regions import support_of


class Structure:
    """The arguments of a call less their arrays, in one state of the world: JAX tells calls apart by which one it is."""

    def __init__(self, tree: Any, leaves: Sequence[Any], constants: Constants, world: World):
        self.tree = tree
        self._made: Recent[Hashable, dict[Hashable, Any]] = Recent(source.here)
        self._leaves = [n if n in (ARRAY, THING) else x for n, x in zip(constants.numbers, leaves, strict=True)]
        self._kept = world.kept() if constants.things else {}
        self._things = copied(constants.things, self._kept)

    def holds(self) -> bool:
        return True

    def uses(self, array: object) -> bool:
        return not isinstance(array, Tracer)  # one that an earlier trace has left behind

    def made(self, *arrays: Any) -> dict[Hashable, Any]:
        """What was made for trees of arrays of these shapes: plans and compiled functions, which are dropped with this."""
        leaves, tree = jax.tree.flatten(arrays)
        return self._made.get((tree, *map(jax.typeof, leaves)), dict)

    def joined(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with these arrays."""
        traced, things = iter(arrays), iter(copied(self._things, self._kept))
        leaves = [next(traced) if x is ARRAY else next(things) if x is THING else x for x in self._leaves]
        return jax.tree.unflatten(self.tree, leaves)


ARRAY, THING = object(), object()
"""Stand for an array, and for what is neither an array nor a number."""

_ARRAYS = {float}
"""Types of arrays that have been met."""


def part(leaves: Sequence[Any], fixed: Collection[int], name_of: Callable[[int], str]) -> tuple[list[Any], Constants]:
    """Arguments as arrays, which are traced, and the rest, which is constant, as are leaves `fixed` that are not JAX's own."""
    arrays, numbers, things, places = [], [], [], []
    for i, x in enumerate(leaves):
        if is_array(x) and (i not in fixed or isinstance(x, jax.Array)):
            arrays.append(x)
            numbers.append(ARRAY)
        elif type(x) in SCALARS:
            numbers.append(scalar(x))
        else:
            numbers.append(THING)
            things.append(x)
            places.append(i)
    return arrays, Constants(tuple(numbers), things, places, name_of)


def leaf_name(programs: Programs, args: tuple[Any, ...], kwargs: Mapping[str, Any], i: int) -> str:
    """The name of a leaf among the arguments, as in `'x'` or `'data'['y'][0]`."""
    path: Any = jax.tree_util.tree_leaves_with_path((args, dict(kwargs)))[i][0]
    side, place, *inner = path
    keyword = side.idx == 1
    return name_of(programs, keyword, place.key if keyword else place.idx) + jax.tree_util.keystr(tuple(inner))


def is_array(leaf: Any) -> bool:
    """Whether JAX has such arrays: not those of texts, dates or objects."""
    if type(leaf) in _ARRAYS:
        return True
    if isinstance(leaf, np.ndarray | np.generic):
        return any(jnp.issubdtype(leaf.dtype, kind) for kind in (np.number, np.bool_))
    if not isinstance(leaf, jax.Array | float):
        return False
    if not isinstance(leaf, Tracer):
        kind: Any = type(leaf)
        _ARRAYS.add(kind)
    return True


def names_of(inputs: Sequence[Var], params: Any) -> dict[Var, str]:
    """The names of the parameters by their variables, which come first among a staged program's inputs."""
    return {var: jax.tree_util.keystr(path, simple=True, separator=".") for var, path in _places(inputs, params)}


def supports_of(inputs: Sequence[Var], params: Any, constraints: Mapping[str, Any]) -> dict[Var, Support]:
    """What the parameters' constraints allow their variables."""
    known = {name: support_of(constraint) for name, constraint in constraints.items()}
    return {var: known[path[0].key] for var, path in _places(inputs, params) if path[0].key in known}


def _places(inputs: Sequence[Var], params: Any) -> Iterable[tuple[Var, Any]]:
    paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(params))
    return zip(inputs, paths, strict=False)


def refuse_without_gradient(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters, which are floating point."""
    for name, value in named(params).items():
        for leaf in jax.tree.leaves(value):
            if not has_gradient(leaf):
                raise ProgramError(
                    f"parameter {name!r} is {described(leaf)}, which has no gradient: make it floating point."
                )
    return dict(params)


def has_gradient(leaf: Any) -> bool:
    return _is_inexact(leaf.dtype) if hasattr(leaf, "dtype") else type(leaf) is float


@functools.cache
def _is_inexact(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact)
