"""What the rounds of a loop draw, ahead of the loop where nothing but keys decides it.

    e_t = g(k_t),    s_t = f(s_{t-1}, e_t)

The keys of all rounds are known before the first of them, and so are random bits, and normals made of them: drawn at once they
take a fraction of the time that they take one after the other, and are the same ones. It is few draws a round of which that
is so; of many the rounds take as long, in the memory of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from ppvi.numpyro._compat import Literal, are_threefry, bind, operations, user_context

Step = Callable[[list[Any], Any], tuple[list[Any], Any]]

DRAWING = frozenset(("random_bits", "random_gamma"))
"""Operations that take most of the time of a draw."""
MOST = 10**5
"""Numbers that are drawn ahead of a loop."""


def drawn_ahead(step: Step, init: list[Any], rounds: tuple[Any, ...], keys: int) -> tuple[Step, tuple[Any, ...]]:
    """A step and the entries of its rounds, those draws among them.

    **Arguments**

    - `keys`: which of the `rounds` has the keys.
    """
    entry = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), rounds)
    closed, shapes = jax.make_jaxpr(step, return_shape=True)(init, entry)
    jaxpr, structure = closed.jaxpr, jax.tree.structure(shapes)
    before = len(init) + len(jax.tree.leaves(entry[:keys]))
    inputs = jaxpr.invars[before : before + len(jax.tree.leaves(entry[keys]))]
    ahead, free, later = _parted(jaxpr.eqns, inputs)
    if DRAWING.isdisjoint(operations(ahead)) or not are_threefry(x.aval for x in inputs):
        return step, rounds
    needed = {x for eqn in later for x in eqn.invars if not isinstance(x, Literal)}
    needed |= {x for x in jaxpr.outvars if not isinstance(x, Literal)}
    made = [x for eqn in ahead for x in eqn.outvars if x in needed]
    length = jax.tree.leaves(rounds)[0].shape[0]
    if length * sum(math.prod(x.aval.shape) for x in made) > MOST:
        return step, rounds

    def draw(entry: Any) -> list[Any]:
        values = _run([*free, *ahead], dict(zip(inputs, jax.tree.leaves(entry), strict=True)))
        return [values[x] for x in made]

    def rest(carry: list[Any], entry: tuple[Any, ...]) -> tuple[list[Any], Any]:
        *given, drawn = entry
        known = dict(zip(jaxpr.constvars, closed.consts, strict=True)) | dict(zip(made, drawn, strict=True))
        known |= zip(jaxpr.invars, jax.tree.leaves((carry, given)), strict=True)
        values = _run(later, known)
        found = [x.val if isinstance(x, Literal) else values[x] for x in jaxpr.outvars]
        return jax.tree.unflatten(structure, found)

    return rest, (*rounds, jax.vmap(draw)(rounds[keys]))


class Parted(NamedTuple):
    """The equations of a round."""

    ahead: list[Any]
    """Those of which nothing but keys decides the results."""
    free: list[Any]
    """Those of which nothing does."""
    later: list[Any]
    """All but the first."""


def _parted(eqns: Sequence[Any], keys: Iterable[Any]) -> Parted:
    known, settled, found = set(keys), set[Any](), Parted([], [], [])
    for eqn in eqns:
        operands = {x for x in eqn.invars if not isinstance(x, Literal)}
        is_plain = not (eqn.effects or eqn.primitive.name.startswith("ppvi_"))
        if is_plain and operands <= settled:
            settled.update(eqn.outvars)
            found.free.append(eqn)
        elif is_plain and operands <= known | settled:
            known.update(eqn.outvars)
            found.ahead.append(eqn)
            continue
        found.later.append(eqn)
    return found


def _run(eqns: Sequence[Any], known: Mapping[Any, Any]) -> dict[Any, Any]:
    """The values of variables after equations."""
    values = dict(known)
    for eqn in eqns:
        with user_context(eqn.source_info.traceback, name_stack=eqn.source_info.name_stack):
            outs = bind(eqn, [x.val if isinstance(x, Literal) else values[x] for x in eqn.invars])
        values.update(zip(eqn.outvars, outs, strict=True))
    return values
