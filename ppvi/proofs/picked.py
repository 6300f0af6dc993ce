"""Entries picked by their order: z[argsort(z)] is z in order, and z[argmax(z)] the greatest entry.

Where two entries are equal their places are exchanged, which nobody sees of the entries themselves, or of a function of each.
What else is looked up by such places jumps there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ppvi.analysis.inlined import Flat, Step
from ppvi.ir import Atom, Var, straight

PICKING = frozenset({"gather", "dynamic_slice"})
ORDERING = {"sort": 1, "top_k": 1, "greatest": 1, "argmax": 0, "argmin": 0}
"""Operations that give places in an order of their first operand, from this output on."""
INJECTIVE = frozenset("neg add sub mul div exp logistic tanh".split())
"""Operations by a number that give equal entries for equal entries only."""

Places = tuple[int | None, ...]


def is_in_order(step: Step, flat: Flat, constant: Callable[[Atom], np.ndarray | None]) -> bool:
    """Whether an operation picks entries of its first operand by their order."""
    if step.meaning.name not in PICKING or len(step.inputs) != 2:
        return False
    table, places = step.inputs
    kept, along = (straight(axes or ()) for axes in step.equation.flow()[0][:2])
    while (maker := _maker(flat, places)) is not None and maker.meaning.name not in ORDERING:
        i = 1 if maker.meaning.name == "select_n" and _is_wrapped(flat, maker) else 0
        if not (i or maker.meaning.moves or maker.meaning.name == "convert_element_type"):
            return False
        along = _through(along, straight(maker.equation.flow()[0][i] or ()))
        places = maker.inputs[i]
    if maker is None or not _gives_places(maker, places, constant):
        return False
    key = maker.inputs[0]
    axes = straight(maker.equation.flow()[maker.outputs.index(places)][0] or ())
    behind = _through(along, axes) if places.shape else (None,) * len(axes)
    alike = key.shape == table.shape and kept == behind and kept.count(None) == 1
    return alike and _is_function(flat, table, _base(flat, key))


def _maker(flat: Flat, atom: Atom) -> Step | None:
    return flat.makers.get(atom) if isinstance(atom, Var) else None


def _through(places: Places, axes: Places) -> Places:
    return tuple(None if a is None else places[a] for a in axes)


def _is_wrapped(flat: Flat, step: Step) -> bool:
    """Whether it selects a place, or where that is negative the one that is counted from the end."""
    other = _maker(flat, step.inputs[2])
    return other is not None and other.meaning.name == "add" and other.inputs[0] is step.inputs[1]


def _gives_places(step: Step, places: Atom, constant: Callable[[Atom], np.ndarray | None]) -> bool:
    number = step.outputs.index(places) if isinstance(places, Var) else -1
    if step.meaning.name != "sort":
        return number >= ORDERING[step.meaning.name]
    value, axes = constant(step.inputs[number]), straight(step.equation.flow()[0][0] or ())
    if not number or value is None or axes.count(None) != 1:
        return False
    shape = [size if axis is None else 1 for axis, size in zip(axes, value.shape, strict=True)]
    return bool((value == np.arange(max(shape)).reshape(shape)).all())


def _base(flat: Flat, atom: Atom) -> Atom:
    """What the entries of a key are injective functions of."""
    atom = flat.same(atom)
    while (step := _maker(flat, atom)) is not None and step.meaning.name in INJECTIVE:
        others = [x for x in step.inputs if flat.constant(x) is None]
        if len(others) != 1 or any(flat.constant(x) == 0 for x in step.inputs if x is not others[0]):
            break
        atom = flat.same(others[0])
    return atom


def _is_function(flat: Flat, atom: Atom, base: Atom) -> bool:
    """Whether each entry of a value is a function of that entry of the base, the same for all."""
    while (atom := flat.same(atom)) is not base:
        step = _maker(flat, atom)
        if step is None or step.meaning.entrywise is None or step.meaning.moves:
            return False
        others = [x for x in step.inputs if flat.constant(x) is None]
        if len(set(others)) != 1:
            return False
        atom = others[0]
    return True
