"""The arguments of a call: arrays, which are traced, and the rest, which is constant."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppvi.compiler.ir import Support, Var
from ppvi.engine.arguments import Programs, constant, name_of
from ppvi.engine.contents import Reader
from ppvi.numpyro.distributions import support_of


class Structure(NamedTuple):
    """The arguments of a call less their arrays: hashable, so that JAX can tell calls apart by it."""

    tree: Any
    static: tuple[Any, ...]
    world: Any = None
    """Stands for what programs read outside of their arguments."""


def part(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], fixed: Collection[int] = (), programs: Programs = ()
) -> tuple[list[Any], Structure]:
    """Arguments as arrays, which are traced, and the rest, which is constant, as are leaves `fixed` that are not JAX's own."""
    leaves, tree = jax.tree.flatten((args, dict(kwargs)))
    traced = [_is_array(x) and (i not in fixed or isinstance(x, jax.Array)) for i, x in enumerate(leaves)]

    def name(i: int) -> Callable[[], str]:
        return lambda: leaf_name(programs, args, kwargs, i)

    static = (
        _ARRAY if free else constant(x, _own, name(i)) for i, (x, free) in enumerate(zip(leaves, traced, strict=True))
    )
    structure = Structure(tree, tuple(static))
    return [leaf for leaf, free in zip(leaves, traced, strict=True) if free], structure


def join(arrays: Sequence[Any], structure: Structure) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments from their parts."""
    rest = iter(arrays)
    leaves = [next(rest) if leaf is _ARRAY else leaf.copied() for leaf in structure.static]
    return jax.tree.unflatten(structure.tree, leaves)


def leaf_name(programs: Programs, args: tuple[Any, ...], kwargs: Mapping[str, Any], i: int) -> str:
    """The name of a leaf among the arguments, as in `'x'` or `'data'['y'][0]`."""
    path: Any = jax.tree_util.tree_leaves_with_path((args, dict(kwargs)))[i][0]
    side, place, *inner = path
    keyword = side.idx == 1
    return name_of(programs, keyword, place.key if keyword else place.idx) + jax.tree_util.keystr(tuple(inner))


class _Array:
    """Stands for an array among the arguments of a call."""


_ARRAY = _Array()


def _is_array(leaf: Any) -> bool:
    """Whether JAX has such arrays: not those of texts, dates or objects."""
    if isinstance(leaf, np.ndarray | np.generic):
        return any(jnp.issubdtype(leaf.dtype, kind) for kind in (np.number, np.bool_))
    return isinstance(leaf, jax.Array | float)


def _own(value: Any, reader: Reader) -> Hashable:
    return reader.same(value) if isinstance(value, jax.Array) else None


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
