"""Axis maps of JAX's operations that have bodies: loops, branches, calls.

A branch is what its bodies agree about. In a loop the carry makes a step depend on those before it: seen as arrays over all
rounds, the carry of round i is what the body made of round i - 1, and the least solution of that is found by going round
until nothing changes. What a carry forgets after some rounds is a window of that many; what it never forgets is causal.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ppvi.compiler.dependence import Dependence, body_flow, join, push
from ppvi.ir import Along, AxisMap, Flow, along, further
from ppvi.numpyro import _compat, _rules as rules
from ppvi.numpyro._compat import ClosedJaxpr


def flow(eqn: Any, reader: Callable[[], Any]) -> Flow:
    """The axis maps of an equation, whose bodies fresh readers read."""
    name, body = eqn.primitive.name, _compat.body(eqn)
    if name == "scan":
        return scan_flow(eqn, of_body(_compat.scan(eqn).body, reader))
    if name == "cond":
        return _branches(eqn, [of_body(branch, reader) for branch in _compat.branches(eqn)])
    return of_body(body, reader) if body is not None and name in _compat.ONE_RUN else rules.flow(eqn)


def of_body(body: ClosedJaxpr, reader: Callable[[], Any]) -> Flow:
    """The axis maps of a body, read into equations."""
    inner = reader()
    inputs = tuple(inner.variable(var) for var in body.jaxpr.invars)
    inner.bind(body, inputs)
    inner.read(body.jaxpr)
    return body_flow(inputs, tuple(inner.equations), tuple(inner.atom(var) for var in body.jaxpr.outvars))


def _branches(eqn: Any, flows: Sequence[Flow]) -> Flow:
    chosen = rules.joint(eqn, 0)
    return [[chosen, *(_either(maps) for maps in zip(*outs, strict=True))] for outs in zip(*flows, strict=True)]


def _either(maps: Sequence[AxisMap | None]) -> AxisMap | None:
    found = [{0: tuple(map(along, axes))} for axes in maps if axes is not None]
    return functools.reduce(join, found)[0] if found else None


def scan_flow(eqn: Any, body: Flow) -> Flow:
    """The axis maps of a loop, from those of its body."""
    _, fixed, carried, how = _compat.scan(eqn)
    step = Along(0, 1, 1) if how["reverse"] else Along(0, -1, -1)
    ndims = [len(var.aval.shape) for var in eqn.invars]
    # Everything is seen as an array over all rounds, whose leading axis is the round.
    seen: list[Dependence[int]] = [
        {i: tuple(Along(axis + (i < fixed + carried)) for axis in range(n))} for i, n in enumerate(ndims)
    ]
    start = seen[fixed : fixed + carried]
    while True:
        outs = [_joined(seen, maps) for maps in body]
        before = [_shifted(out, step) for out in outs[:carried]]
        carry = [join(first, later) for first, later in zip(start, before, strict=True)]
        if carry == seen[fixed : fixed + carried]:
            break
        seen[fixed : fixed + carried] = carry
    last = [push(out, [None, *range(_rank(out))]) for out in outs[:carried]]
    return [[out.get(i) for i in range(len(ndims))] for out in (*last, *outs[carried:])]


def _joined(seen: Sequence[Dependence[int]], maps: Sequence[AxisMap | None]) -> Dependence[int]:
    rounds = [(here, [0, *map(further, axes)]) for here, axes in zip(seen, maps, strict=True) if axes is not None]
    return functools.reduce(join, (push(here, axes) for here, axes in rounds), {})


def _shifted(dependence: Dependence[int], step: Along) -> Dependence[int]:
    return push(dependence, [step, *range(1, _rank(dependence))])


def _rank(dependence: Dependence[int]) -> int:
    return 1 + max((place.axis for lanes in dependence.values() for place in lanes if place is not None), default=0)
