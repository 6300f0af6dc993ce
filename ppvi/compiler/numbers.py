"""Numbers: what an array of a program is at the parameters and the arguments that a check was given.

Only what no draw has a part in is looked at: that is the same in every run. The numbers that a finite distribution is given
by say which of its values are possible, and those that are infinite where a derivative is 0 times infinity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ppvi.compiler.infinities import poles
from ppvi.compiler.ir import Atom, Equation, Literal, Masses, Program, Var, is_float
from ppvi.ops import Ops

STEP = 1e-3
"""How far parameters are moved, to see whether a probability moves with them."""
MOVED = 1e-6


def number(atom: Atom, program: Program, values: Mapping[Var, Any]) -> np.ndarray | None:
    """An array of a program, or None where a draw has a part in it, or an input that is not known."""
    needed, behind = {atom}, []
    for equation in reversed(program.equations):
        if not needed.isdisjoint(equation.outputs):
            if _is_random(equation):
                return None
            behind.append(equation)
            needed.update(equation.inputs)
    known = _evaluated(reversed(behind), {**program.constants, **values})
    try:
        return np.asarray(_read(atom, known), float)
    except (KeyError, TypeError):  # an input without a value; or a number of a trace outside, which may be anything
        return None


def _evaluated(equations: Iterable[Equation], known: dict[Any, Any]) -> dict[Any, Any]:
    """What is known, and what follows from it."""
    for equation in equations:
        if not _is_random(equation) and all(isinstance(x, Literal) or x in known for x in equation.inputs):
            with suppress(TypeError):
                results = equation.run(*(_read(x, known) for x in equation.inputs))
                known.update(zip(equation.outputs, results, strict=True))
    return known


def _read(atom: Atom, known: Mapping[Any, Any]) -> Any:
    return atom.value if isinstance(atom, Literal) else known[atom]


def _is_random(equation: Equation) -> bool:
    return equation.site is not None or (equation.meaning is not None and equation.meaning().keyed is not None)


def forgotten(program: Program, values: Mapping[Var, Any], ops: Ops) -> Iterator[Equation]:
    """Operations that are finite where they are given an infinity, and vary as parameters move away from there.

    Their derivative is 0 times infinity, as that of exp(log(w)) at w = 0.
    """
    numbers = (number(pole.outputs[0], program, values) for pole in poles(program))
    if not any(x is not None and np.isinf(x).any() for x in numbers):
        return
    starts = (values, *(_moved(program, values, step) for step in (STEP, -STEP)))
    here, *moved = (_evaluated(program.equations, {**program.constants, **start}) for start in starts)
    for equation in program.equations:
        if any(is_float(out) and out in here for out in equation.outputs):
            given = [(atom, _read(atom, here)) for atom in equation.inputs]
            met = any(is_float(atom) and _is_infinite(x) for atom, x in given)
            if met and any(_varies(equation, given, there, ops) for there in moved):
                yield equation


def _varies(equation: Equation, given: Sequence[tuple[Atom, Any]], there: Mapping[Any, Any], ops: Ops) -> bool:
    """Whether its value is finite, and another where what is infinite in its operands has moved."""

    def mixed(atom: Atom, x: Any) -> Any:
        return ops.where(abs(x) < math.inf, x, _read(atom, there)) if is_float(atom) and _is_infinite(x) else x

    before = equation.run(*(x for _, x in given))
    after = equation.run(*(mixed(atom, x) for atom, x in given))
    pairs = ((np.asarray(x, float), np.asarray(y, float)) for x, y in zip(before, after, strict=True))
    with np.errstate(invalid="ignore"):
        return any((np.isfinite(x) & np.isfinite(y) & (abs(x - y) > MOVED)).any() for x, y in pairs)


def _is_infinite(x: Any) -> bool:
    return bool(np.isinf(np.asarray(x, float)).any())


def probabilities(masses: Masses, x: np.ndarray) -> np.ndarray:
    """Of each value, `(*lanes, K)`, up to a factor, from what a distribution is given by."""
    with np.errstate(all="ignore"):
        if masses == "logits":
            return np.exp(x - x.max(-1, keepdims=True))
        if masses == "coin logits":
            return np.stack([1 / (1 + np.exp(x)), 1 / (1 + np.exp(-x))], -1)
        return x if masses == "probs" else np.stack([1 - x, x], -1)


def possible(masses: Masses, x: np.ndarray) -> np.ndarray:
    """Which values have a probability that is not zero, `(*lanes, K)`."""
    if masses == "logits":
        return x > -np.inf
    if masses == "coin logits":
        return np.stack([x < np.inf, x > -np.inf], -1)
    return probabilities(masses, x) > 0


def becoming(masses: Masses, atom: Atom, program: Program, values: Mapping[Var, Any]) -> np.ndarray:
    """Which values are impossible, and possible as soon as parameters move, `(K,)`; empty where all are possible."""
    here = number(atom, program, values)
    if here is None or possible(masses, here).all():
        return np.zeros(0, bool)
    now = probabilities(masses, here)
    moved = (number(atom, program, _moved(program, values, step)) for step in (STEP, -STEP))
    rises = [(now == 0) & (probabilities(masses, there) > MOVED) for there in moved if there is not None]
    return np.any(np.reshape(rises, (-1, now.shape[-1])), 0)


def _moved(program: Program, values: Mapping[Var, Any], step: float) -> dict[Var, Any]:
    """Parameters moved, each by something else."""
    order = [var for var in values if var in program.params]
    return {**values, **{var: values[var] * (1 + step) + step / (1 + i) for i, var in enumerate(order)}}
