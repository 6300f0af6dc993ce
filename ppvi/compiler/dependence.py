"""Dependence: which sites a variable depends on, and along which of its axes.

Forward dataflow. A site's *lanes* are its vectorised axes and its batch axes; its draws are independent across lanes, or, in
a loop, follow one another. For every variable and every site it depends on, each lane axis either lies *along* an axis of
the variable, so that entry i depends on the lanes from i + first to i + last only, or is *joint* (None). First and last are
0 where entries are lane by lane, -inf and 0 where they are *causal*: of a loop, what step i depends on. An operation's axis
maps say where an operand's axis goes; where they are silent the lanes are joint, which is always sound. An axis of size one
couples nothing, and counts as joint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

from ppvi.ir import Along, Atom, AxisMap, Equation, Flow, Sited, Var, along

WIDEST = 8
"""The most neighbouring lanes that a window has; a wider one reaches to the end."""

Lanes = tuple[Along | None, ...]
"""For each lane axis of a source where it lies, or None where it is joint."""

Source = TypeVar("Source", bound=Hashable)
Dependence = dict[Source, Lanes]


def join(left: Dependence[Source], right: Dependence[Source]) -> Dependence[Source]:
    """Dependence of an operation whose operands lie on top of each other: what they disagree about is joint."""
    if not left or not right:
        return left or right
    out = dict(left)
    for source, lanes in right.items():
        mine = out.get(source, lanes)
        out[source] = mine if mine == lanes else tuple(_both(a, b) for a, b in zip(mine, lanes, strict=True))
    return out


def _both(a: Along | None, b: Along | None) -> Along | None:
    if a is None or b is None or a.axis != b.axis:
        return None
    return _window(a.axis, min(a.first, b.first), max(a.last, b.last))


def push(dependence: Dependence[Source], axes: AxisMap) -> Dependence[Source]:
    """Dependence of an output on what its operand depends on. Two lanes that meet on one axis: the first keeps it."""
    places = [along(axis) for axis in axes]
    return {source: _distinct(_through(a, places) for a in lanes) for source, lanes in dependence.items()}


def _through(a: Along | None, places: list[Along | None]) -> Along | None:
    if a is None or (b := places[a.axis]) is None:
        return None
    return _window(b.axis, a.first + b.first, a.last + b.last)


def _window(axis: int, first: float, last: float) -> Along | None:
    if last - first >= WIDEST and math.isfinite(last - first):
        # What grows step by step, as in a loop, must end somewhere.
        first, last = (first, math.inf) if abs(first) <= abs(last) else (-math.inf, last)
    return None if math.isinf(first) and math.isinf(last) else Along(axis, first, last)


def _distinct(lanes: Iterable[Along | None]) -> Lanes:
    seen: set[int] = set()
    out: list[Along | None] = []
    for place in lanes:
        out.append(None if place is None or place.axis in seen else place)
        if place is not None:
            seen.add(place.axis)
    return tuple(out)


def breadth(lanes: Lanes) -> float:
    """How much of its source an entry depends on, for comparison: each joint axis counts most, then each open window."""
    return sum(4.0**WIDEST if a is None else 4.0 * WIDEST if a.width == math.inf else a.width - 1 for a in lanes)


def site_lanes(equation: Equation[Sited]) -> tuple[int, ...]:
    """Shape of a site's lanes."""
    return equation.outputs[0].shape[: equation.role.mapped + equation.role.info.ndim]


def own_lanes(site: Equation[Sited]) -> Lanes:
    """How a site's draw lies along its own lanes."""
    return own_axes(site_lanes(site))


def own_axes(shape: tuple[int, ...]) -> Lanes:
    """Every axis along itself, but those of size one."""
    return tuple(Along(axis) if size > 1 else None for axis, size in enumerate(shape))


def propagate(
    equations: Iterable[Equation],
    known: Mapping[Var, Dependence[Source]],
    source: Callable[[Equation], Dependence[Source]],
) -> dict[Var, Dependence[Source]]:
    """Dependence of every variable.

    **Arguments**

    - `known`: the dependence of the inputs that have one.
    - `source`: what a site equation adds of its own.
    """
    out: dict[Var, Dependence[Source]] = dict(known)

    for equation in equations:
        if equation.is_site:
            out[equation.outputs[0]] = join(sources_of(out, equation.inputs[0]), source(equation))
            continue
        dependences = [sources_of(out, atom) for atom in equation.inputs]
        if not any(dependences):
            continue
        for var, maps in zip(equation.outputs, equation.flow(), strict=True):
            total: Dependence[Source] = {}
            for dependence, axes in zip(dependences, maps, strict=True):
                if dependence and axes is not None:
                    total = join(total, push(dependence, axes))
            out[var] = total
    return out


def body_flow(inputs: tuple[Var, ...], equations: tuple[Equation, ...], outputs: tuple[Atom, ...]) -> Flow:
    """Axis maps of a whole body of equations, by following each axis of each input through it."""
    known = {var: {i: identity(var)} for i, var in enumerate(inputs)}
    dependence = propagate(equations, known, lambda equation: {})
    return [[sources_of(dependence, atom).get(i) for i in range(len(inputs))] for atom in outputs]


def identity(var: Var) -> Lanes:
    """Every axis along itself."""
    return tuple(Along(axis) for axis in range(len(var.shape)))


def sources_of(dependence: Mapping[Var, Dependence[Source]], atom: Atom) -> Dependence[Source]:
    """What an atom depends on; a literal on nothing."""
    return dependence.get(atom, {}) if isinstance(atom, Var) else {}
