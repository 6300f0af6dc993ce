"""The arguments of a call: arrays, which are traced, and the rest, which is static."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ppvi.compiler.ir import Support, Var
from ppvi.errors import ProgramError
from ppvi.numpyro.distributions import support_of


class Structure(NamedTuple):
    """The arguments of a call less their arrays: hashable, so that JAX can tell calls apart by it."""

    tree: Any
    static: tuple[Any, ...]
    world: Any = None
    """Stands for what programs read outside of their arguments."""


def part(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[list[Any], Structure]:
    """Arguments as arrays, which are traced, and the rest, which is static."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    arrays = [leaf for leaf in leaves if _is_array(leaf)]
    static = tuple(_ARRAY if _is_array(leaf) else leaf for leaf in leaves)
    try:
        hash(static)
    except TypeError:
        bad = next(leaf for leaf in static if not _hashable(leaf))
        raise ProgramError(
            f"an argument holds {bad!r}, of type {type(bad).__name__}, which is neither an array nor hashable: pass arrays, "
            f"trees of arrays, or hashable constants."
        ) from None
    return arrays, Structure(tree, static)


def join(arrays: Sequence[Any], structure: Structure) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments from their parts."""
    rest = iter(arrays)
    return jax.tree.unflatten(structure.tree, [next(rest) if leaf is _ARRAY else leaf for leaf in structure.static])


class _Array:
    """Stands for an array among the arguments of a call."""


_ARRAY = _Array()


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | float)


def _hashable(leaf: Any) -> bool:
    try:
        hash(leaf)
    except TypeError:
        return False
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
