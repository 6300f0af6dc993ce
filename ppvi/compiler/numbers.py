"""Numbers: what an array of a program is at the parameters and the arguments that a check was given.

Only what no draw has a part in is looked at: that is the same in every run. The numbers that a finite distribution is given
by say which of its values are possible.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppvi.compiler.ir import Atom, Equation, Literal, Masses, Program, Var

STEP = 1e-3
"""How far parameters are moved, to see whether a probability moves with them."""
MOVED = 1e-6


def number(atom: Atom, program: Program, values: Mapping[Var, Any]) -> np.ndarray | None:
    """An array of a program, or None where a draw has a part in it, or an input that is not known."""
    needed, behind = {atom}, []
    for equation in reversed(program.equations):
        if needed.isdisjoint(equation.outputs):
            continue
        if _is_random(equation):
            return None
        behind.append(equation)
        needed.update(equation.inputs)
    known = {**program.constants, **values}

    def read(atom: Atom) -> Any:
        return atom.value if isinstance(atom, Literal) else known[atom]

    try:
        for equation in reversed(behind):
            known.update(zip(equation.outputs, equation.run(*map(read, equation.inputs)), strict=True))
        return np.asarray(read(atom), float)
    except (KeyError, TypeError):  # an input without a value; or a number of a trace outside, which may be anything
        return None


def _is_random(equation: Equation) -> bool:
    return equation.site is not None or (equation.meaning is not None and equation.meaning().keyed is not None)


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
