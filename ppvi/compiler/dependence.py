"""Dependence: which sites a variable depends on, and along which of its axes.

Forward dataflow. A site's *lanes* are its vectorised axes and its batch axes; its draws are independent across lanes.
For every variable and every site it depends on, each lane axis is either *along axis a*, so that entry i depends on
lane i only, or *joint* (None). An operation's axis maps say where an operand's axis goes; where they are silent the
lanes are joint, which is always sound. An axis of size one couples nothing, and counts as joint.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

from ppvi.compiler.ir import Atom, AxisMap, Equation, Flow, Var

Lanes = tuple[int | None, ...]
"""For each lane axis of a source the axis along which it lies, or None where it is joint."""

Source = TypeVar("Source", bound=Hashable)
Dependence = dict[Source, Lanes]


def join(left: Dependence[Source], right: Dependence[Source]) -> Dependence[Source]:
    """Dependence of an operation whose operands lie on top of each other: what they disagree about is joint."""
    if not left or not right:
        return left or right
    out = dict(left)
    for source, lanes in right.items():
        mine = out.get(source, lanes)
        out[source] = mine if mine == lanes else tuple(a if a == b else None for a, b in zip(mine, lanes, strict=True))
    return out


def push(dependence: Dependence[Source], axes: AxisMap) -> Dependence[Source]:
    """Dependence of an output on what its operand depends on. Two lanes that meet on one axis: the first keeps it."""
    return {source: _distinct(None if a is None else axes[a] for a in lanes) for source, lanes in dependence.items()}


def _distinct(lanes: Iterable[int | None]) -> Lanes:
    seen: set[int] = set()
    out: list[int | None] = []
    for axis in lanes:
        out.append(None if axis in seen else axis)
        if axis is not None:
            seen.add(axis)
    return tuple(out)


def site_lanes(equation: Equation) -> tuple[int, ...]:
    """Shape of a site's lanes."""
    assert equation.site is not None
    return equation.outputs[0].shape[: equation.mapped + equation.site.ndim]


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

    def read(atom: Atom) -> Dependence[Source]:
        return out.get(atom, {}) if isinstance(atom, Var) else {}

    for equation in equations:
        if equation.site is not None:
            out[equation.outputs[0]] = join(read(equation.inputs[0]), source(equation))
            continue
        dependences = [read(atom) for atom in equation.inputs]
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
    known: dict[Var, Dependence[int]] = {var: {i: tuple(range(len(var.shape)))} for i, var in enumerate(inputs)}
    dependence = propagate(equations, known, lambda equation: {})
    return [
        [dependence.get(atom, {}).get(i) if isinstance(atom, Var) else None for i in range(len(inputs))]
        for atom in outputs
    ]
