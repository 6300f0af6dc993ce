"""Loops whose rounds need not wait for one another.

    s_t = h(z_t),    y_t = f(s_{t-1}, z_t)

Where all draws of a state are given, a loop hands on nothing but functions of them, and perhaps counters and keys in which no
draw plays a part. Then what every round starts from is known before the first of them, and all rounds are run side by side:
straight-line code, in which a term depends on the draws of two rounds and no more, instead of a loop to be run anew for every
pair of their values.

Where states are labels, the first round is run apart from the others: what a loop starts with is no draw, and without it what
rounds find at a label may be the same in all of them, for the compiler to find once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ppvi.numpyro import _compat
from ppvi.numpyro._compat import ClosedJaxpr, Literal, jaxpr_as_fun
from ppvi.numpyro._draws_ahead import evaluated
from ppvi.numpyro._semantics import is_of_a_distribution

Step = Callable[[list[Any], Any], tuple[list[Any], Any]]


def run(step: Step, init: list[Any], rounds: Sequence[Any], given: int, **how: Any) -> tuple[list[Any], Any]:
    """`lax.scan`, side by side where that can be. What is the same in all rounds is found once, and repeated.

    **Arguments**

    - `given`: how many of the `rounds`, the first, are given values of sites.
    - `how`: as for `lax.scan`.
    """
    carried = len(init)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), rounds)
    closed, (_, shapes) = jax.make_jaxpr(step, return_shape=True)(init, like)
    structure, outs = jax.tree.structure(shapes), range(carried, len(closed.out_avals))
    fixed = [number for number in outs if not _only(closed, [number])[1]]
    moving = [number for number in outs if number not in fixed]
    same = [jnp.broadcast_to(x, (how["length"], *x.shape)) for x in _only(closed, fixed)[0]({})]
    values = range(carried, carried + len(jax.tree.leaves(rounds[:given])))
    beside = _side_by_side(closed, init, rounds, values, moving, how) if init and values else None
    if beside is None:
        advance, _ = _only(closed, [*range(carried), *moving])

        def rest(carry: list[Any], entry: Any) -> tuple[list[Any], list[Any]]:
            found = advance(dict(enumerate([*carry, *jax.tree.leaves(entry)])))
            return found[:carried], found[carried:]

        beside = lax.scan(rest, init, rounds, **how)
    carry, stacks = beside
    found = dict(zip(moving, stacks, strict=True)) | dict(zip(fixed, same, strict=True))
    return carry, jax.tree.unflatten(structure, [found[number] for number in outs])


def _side_by_side(
    closed: ClosedJaxpr,
    init: list[Any],
    rounds: Sequence[Any],
    values: Collection[int],
    wanted: Sequence[int],
    how: dict[str, Any],
) -> tuple[list[Any], list[Any]] | None:
    """What is carried out, and these outputs of all rounds; None where they wait for one another."""
    carried = len(init)
    uses = [_only(closed, [number])[1] for number in range(carried)]
    settled = _settled(uses, carried)
    others = [number for number in range(carried) if number not in settled]
    known = {*settled, *values}
    hands_on_values = any(not uses[number].isdisjoint(values) for number in settled)
    if not hands_on_values or any(uses[number] & known for number in others) or _has_branches(closed.jaxpr):
        return None
    entries = dict(enumerate(jax.tree.leaves(rounds), carried))

    def count(carry: list[Any], entry: dict[int, Any]) -> tuple[list[Any], list[Any]]:
        return advance(dict(zip(others, carry, strict=True)) | entry), carry

    advance, used = _only(closed, others)
    state, found = lax.scan(count, [init[i] for i in others], {i: x for i, x in entries.items() if i in used}, **how)
    before, after = dict(zip(others, found, strict=True)), dict(zip(others, state, strict=True))
    backward, starts = how.get("reverse", False), dict[int, list[Any]]()
    for number in settled:
        [stack] = jax.vmap(_only(closed, [number])[0])(before | entries)
        start = jnp.asarray(init[number])[None]
        starts[number] = [stack[1:], start] if backward else [start, stack[:-1]]
        before[number] = jnp.concatenate(starts[number])
        after[number] = stack[0 if backward else -1]
    state = [after[number] for number in range(carried)]
    labels = all(jnp.issubdtype(closed.in_avals[number].dtype, jnp.integer) for number in settled)
    if labels and how["length"] > 1 and all(uses[number].isdisjoint(settled) for number in settled):
        return state, _apart(closed, wanted, starts, before | entries)
    return state, jax.vmap(_only(closed, wanted)[0])(before | entries)


def _apart(
    closed: ClosedJaxpr, wanted: Sequence[int], starts: dict[int, list[Any]], inputs: dict[int, Any]
) -> list[Any]:
    """These outputs, of which those that a state plays a part in are found for the round that starts from the loop's own
    and for the others apart: there they are a function of labels, which may be the same in all of these rounds.

    **Arguments**

    - `starts`: of the states by number what rounds start from, of the one and of the others as they come in the loop.
    - `inputs`: everything, of all rounds.
    """
    jaxpr = closed.jaxpr
    states = {jaxpr.invars[number]: xs for number, xs in starts.items()}
    stacks = {jaxpr.invars[number]: x for number, x in inputs.items() if number not in starts}
    fixed, early, late = _in_order(jaxpr.eqns, set(stacks), set(states))
    known = evaluated(fixed, dict(zip(jaxpr.constvars, closed.consts, strict=True)))

    def found(eqns: Sequence[Any], ends: Sequence[Any], stacks: dict[Any, Any]) -> dict[Any, Any]:
        def run(*entries: Any) -> list[Any]:
            values = evaluated(eqns, known | dict(zip(stacks, entries, strict=True)))
            return [values[x] for x in ends]

        return dict(zip(ends, jax.vmap(run)(*stacks.values()), strict=True)) if ends else {}

    outs = [jaxpr.outvars[number] for number in wanted]
    needed = {x for eqn in late for x in eqn.invars if not isinstance(x, Literal)} | set(outs)
    stacks |= found(early, [x for eqn in early for x in eqn.outvars if x in needed], stacks)
    ends = [x for x in dict.fromkeys(outs) if x not in stacks]
    parts, begin = [], 0
    for number, size in enumerate(len(x) for x in next(iter(states.values()))):
        rows = {x: stack[begin : begin + size] for x, stack in stacks.items() if x in needed}
        parts.append(found(late, ends, rows | {x: xs[number] for x, xs in states.items()}))
        begin += size
    stacks |= {x: jnp.concatenate([part[x] for part in parts]) for x in ends}
    return [stacks[x] for x in outs]


def _in_order(eqns: Sequence[Any], varying: set[Any], late: set[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """The equations that none of these variables plays a part in, those that no late one does, and the others."""
    parts: tuple[list[Any], list[Any], list[Any]] = [], [], []
    for eqn in eqns:
        operands = {x for x in eqn.invars if not isinstance(x, Literal)}
        kind = 2 if operands & late else 1 if operands & varying else 0
        parts[kind].append(eqn)
        if kind:
            (varying, late)[kind - 1].update(eqn.outvars)
    return parts


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
