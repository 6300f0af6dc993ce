"""Loops whose rounds need not wait for one another.

    s_t = h(z_t),    y_t = f(s_{t-1}, z_t)

Where all draws of a state are given, a loop hands on nothing but functions of them, and perhaps counters and keys in which no
draw plays a part. Then what every round starts from is known before the first of them, and all rounds are run side by side:
straight-line code, in which a term depends on the draws of two rounds and no more, instead of a loop to be run anew for every
pair of their values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ppvi.numpyro import _compat
from ppvi.numpyro._compat import ClosedJaxpr, jaxpr_as_fun
from ppvi.numpyro._semantics import is_of_a_distribution

Step = Callable[[list[Any], Any], tuple[list[Any], Any]]


def run(step: Step, init: list[Any], rounds: Sequence[Any], given: int, **how: Any) -> tuple[list[Any], Any]:
    """`lax.scan`, side by side where that can be.

    **Arguments**

    - `given`: how many of the `rounds`, the first, are given values of sites.
    - `how`: as for `lax.scan`.
    """
    carried = len(init)
    values = range(carried, carried + len(jax.tree.leaves(rounds[:given])))
    if not init or not values:
        return lax.scan(step, init, rounds, **how)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), rounds)
    closed, (_, shapes) = jax.make_jaxpr(step, return_shape=True)(init, like)
    uses = [_only(closed, [number])[1] for number in range(carried)]
    settled = _settled(uses, carried)
    others = [number for number in range(carried) if number not in settled]
    known = {*settled, *values}
    hands_on_values = any(not uses[number].isdisjoint(values) for number in settled)
    if not hands_on_values or any(uses[number] & known for number in others) or _has_branches(closed.jaxpr):
        return lax.scan(step, init, rounds, **how)
    entries = dict(enumerate(jax.tree.leaves(rounds), carried))

    def count(carry: list[Any], entry: dict[int, Any]) -> tuple[list[Any], list[Any]]:
        return advance(dict(zip(others, carry, strict=True)) | entry), carry

    advance, used = _only(closed, others)
    state, found = lax.scan(count, [init[i] for i in others], {i: x for i, x in entries.items() if i in used}, **how)
    before, after = dict(zip(others, found, strict=True)), dict(zip(others, state, strict=True))
    for number in settled:
        [stack] = jax.vmap(_only(closed, [number])[0])(before | entries)
        start = jnp.asarray(init[number])[None]
        backward = how.get("reverse", False)
        before[number] = jnp.concatenate([stack[1:], start] if backward else [start, stack[:-1]])
        after[number] = stack[0 if backward else -1]
    structure = jax.tree.structure(shapes)
    outs = jax.vmap(_only(closed, range(carried, carried + structure.num_leaves))[0])(before | entries)
    return [after[number] for number in range(carried)], jax.tree.unflatten(structure, outs)


def _settled(uses: Sequence[set[int]], carried: int) -> list[int]:
    """What is carried on that is a function of the entries of the last few rounds alone, in an order in which it can be found:
    that of the last round, then what has been handed on once, and so on."""
    found: list[int] = []
    while True:
        more = [
            number
            for number in range(carried)
            if number not in found and uses[number].isdisjoint(set(range(carried)) - set(found))
        ]
        if not more:
            return found
        found += more


def _only(closed: ClosedJaxpr, wanted: Collection[int]) -> tuple[Callable[[dict[int, Any]], list[Any]], set[int]]:
    """Some of the outputs as a function of the inputs that they need, and which these are."""
    part, used = _compat.only(closed, wanted)
    return lambda inputs: jaxpr_as_fun(part)(*[inputs[number] for number in used]), set(used)


def _has_branches(jaxpr: Any) -> bool:
    """Whether a program may leave something undone, which rounds side by side would all do; of a sampler they may."""
    return any(
        eqn.primitive.name in ("cond", "while") or any(map(_has_branches, _compat.bodies_in(eqn.params)))
        for eqn in jaxpr.eqns
        if not is_of_a_distribution(eqn)
    )
