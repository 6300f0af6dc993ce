"""How large the numbers are that a value is a sum of: their last digits, and not its own, are what it is wrong by.

    |(1e6 + x) - 1e6 - x| <= eps 1e6,    however small x is

The value's program is run operation by operation, and each result knows the largest number that was added to get it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ppvi.numpyro import _compat
from ppvi.numpyro._compat import Literal

ADDING = frozenset("add add_any sub reduce_sum cumsum".split())
PICKING = frozenset(
    """neg reshape broadcast_in_dim squeeze transpose convert_element_type slice concatenate copy select_n stop_gradient
    optimization_barrier""".split()
)
"""Operations whose results are entries of what they are given, and add nothing to it."""

Sized = tuple[Any, Callable[[], jax.Array]]
"""A value, and the largest number that was added to get it, which few have to tell."""


def with_summands(function: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """A function that returns the largest number that was added to get its value, too."""

    def sized(*args: Any) -> tuple[jax.Array, jax.Array]:
        leaves, structure = jax.tree.flatten(args)
        closed = jax.make_jaxpr(lambda *leaves: function(*jax.tree.unflatten(structure, leaves)))(*leaves)
        [(value, size)] = _run(closed.jaxpr, [_alone(x) for x in (*closed.consts, *leaves)])
        return value, size()

    return sized


def _run(jaxpr: Any, inputs: Sequence[Sized]) -> list[Sized]:
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), inputs, strict=True))

    def read(atom: Any) -> Sized:
        return _alone(atom.val) if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        given, name = [read(atom) for atom in equation.invars], equation.primitive.name
        body = _compat.body(equation) if name in _compat.ONE_RUN else None
        if body is not None:
            results = _run(body.jaxpr, [*map(_alone, body.consts), *given])
        else:
            values = _compat.bind(equation, [x for x, _ in given])
            results = [(x, functools.cache(functools.partial(_added, name, given, x))) for x in values]
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _alone(x: Any) -> Sized:
    return x, lambda: _largest(x)


def _added(name: str, given: Sequence[Sized], result: Any) -> jax.Array:
    """The largest number that was added to get a result: by the operation itself, or before, where that is greater than what
    it has become."""
    sizes = [_largest(result)]
    if name in ADDING:
        sizes += [size() for _, size in given]
    elif name in PICKING:
        sizes += [_cancelled(operand) for operand in given]
    elif name == "mul":
        sizes += [_cancelled(one) * _largest(other) for one, (other, _) in zip(given, given[::-1], strict=True)]
    return functools.reduce(jnp.maximum, sizes)


def _cancelled(operand: Sized) -> jax.Array:
    value, size = operand
    return jnp.where(size() > _largest(value), size(), 0)


def _largest(x: Any) -> jax.Array:
    """The largest finite number in an array; 0 of what holds none."""
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating) or not jnp.size(x):
        return jnp.zeros(())
    return jnp.where(jnp.isfinite(x), jnp.abs(x), 0).max()
