"""Numbers: what arrays of a program are at the parameters and the arguments that a check was given.

What no draw has a part in is the same in every run; of the rest some runs are looked at. The numbers that a finite
distribution is given by say which of its values are possible, and those that are infinite where a derivative is 0 times
infinity.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppvi.compiler.infinities import Edges
from ppvi.compiler.ir import Atom, Equation, Literal, Masses, Program, Var, is_float
from ppvi.ops import Ops, as_numpy

RUNS = 8
"""How many runs are looked at."""
STEP = 1e-3
"""How far parameters are moved, to see whether a probability moves with them."""
MOVED = 1e-6
SMALLEST = float(np.finfo(np.float32).tiny)
"""What is positive may be 0 below it."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of a program.

    **Arguments**

    - `values`: the values of its inputs, less its key.
    - `drawing`: a context in which it draws from a seed, which gives the key.
    """

    program: Program
    values: Mapping[Var, Any]
    ops: Ops
    drawing: Callable[[int], AbstractContextManager[Any]]

    def of(self, atom: Atom, seed: int | None = None, step: float = 0.0) -> np.ndarray | None:
        """An array; None where an input is not known, or where a draw has a part in it and there is no seed.

        **Arguments**

        - `step`: how far parameters are moved, with the draws of finite sites as they were.
        """
        known = self._runs.get((seed, step), {})
        try:
            if atom not in known:  # what has been found is not looked for again
                known = self._run(_behind(atom, self.program), seed, step)
            return as_numpy(_read(atom, known), float)
        except (KeyError, TypeError):  # not found; or a number of a trace outside, which may be anything
            return None

    def together(self, *atoms: Atom, runs: int = RUNS) -> Iterator[tuple[int | None, list[np.ndarray]]]:
        """Arrays in one run after the other, by seed; one run where no draw has a part in them, none where they are unknown."""
        for seed in (None, *range(runs)):
            found = [self.of(atom, seed) for atom in atoms]
            known = [x for x in found if x is not None]
            if len(known) == len(found):
                yield seed, known
                if seed is None:
                    return

    def becoming(self, masses: Masses, atom: Atom) -> np.ndarray:
        """Which values are impossible, and possible as soon as parameters move, `(K,)`; empty where all are possible."""
        found = np.zeros(0, bool)
        for seed, [here] in self.together(atom) if self.may_bar(masses, atom) else ():
            now = probabilities(masses, here)
            for step in () if possible(masses, here).all() else (STEP, -STEP):
                there = self.of(atom, seed, step)
                if there is not None and self._is_of_same_draws(seed, step):
                    rises = ((now == 0) & (probabilities(masses, there) > MOVED)).reshape(-1, now.shape[-1]).any(0)
                    found = rises | found if found.size else rises
        return found

    def may_bar(self, masses: Masses, atom: Atom) -> bool:
        """Whether a distribution may have values of probability zero, as far as ranges tell, which do not look into loops."""
        if any(_is_loop(equation) for equation in _behind(atom, self.program)):
            return True
        if masses.endswith("logits"):
            return isinstance(atom, Literal) or atom in self._edges.infinite
        low, high = self._edges.range(atom)
        return low <= SMALLEST or (masses != "probs" and high >= 1)

    def forgotten(self) -> Iterator[Equation]:
        """Operations that are finite where they are given an infinity, and vary as parameters move away from there.

        Their derivative is 0 times infinity, as that of exp(log(w)) at w = 0.
        """
        equations = self.program.equations
        poles = [equation.outputs[0] for equation in equations if self._edges.is_pole(equation)]
        here = self._run(equations, None, 0.0) if poles else {}
        if not any(pole in here and _is_infinite(here[pole]) for pole in poles):
            return
        moved = [self._run(equations, None, step) for step in (STEP, -STEP)]
        for equation in equations:
            if any(is_float(out) and out in here for out in equation.outputs):
                given = [(atom, _read(atom, here)) for atom in equation.inputs]
                met = any(is_float(atom) and _is_infinite(x) for atom, x in given)
                if met and any(_varies(equation, given, there, self.ops) for there in moved):
                    yield equation

    @functools.cached_property
    def _edges(self) -> Edges:
        return Edges.of(self.program, self.ops)

    @functools.cached_property
    def _runs(self) -> dict[tuple[int | None, float], dict[Any, Any]]:
        """What has been found so far, by seed and step."""
        return {}

    def _run(self, equations: Iterable[Equation], seed: int | None, step: float) -> dict[Any, Any]:
        known = self._runs.setdefault((seed, step), {})
        if seed is None:
            if not known:
                known |= {**self.program.constants, **_moved(self.program, self.values, step)}
            _evaluate((equation for equation in equations if equation.outputs and not _is_random(equation)), known)
        else:
            known |= self._run(equations, None, step)  # what no draw has a part in
            known |= {var: x for var, x in self._draws(seed) if step and var not in known}
            with self.drawing(seed) as key:
                known |= {var: key for var in self.program.inputs if var not in self.values}
                _evaluate(equations, known)
        return known

    def _draws(self, seed: int) -> list[tuple[Atom, Any]]:
        """The draws of finite sites, and the sites' values, in the run of a seed."""
        sites = (e for e in self.program.equations if e.site is not None and e.site.masses is not None)
        here = self._runs[seed, 0.0]
        return [(var, here[var]) for site in sites for var in (site.inputs[0], *site.outputs) if var in here]

    def _is_of_same_draws(self, seed: int | None, step: float) -> bool:
        """Whether a loop, which draws anew where parameters have moved, has drawn the same."""
        if seed is None:
            return True
        there = self._runs[seed, step]
        return all(np.array_equal(as_numpy(x), as_numpy(there[var])) for var, x in self._draws(seed))


def _behind(atom: Atom, program: Program) -> list[Equation]:
    """What it is made by."""
    needed, found = {atom}, []
    for equation in reversed(program.equations):
        if not needed.isdisjoint(equation.outputs):
            found.append(equation)
            needed.update(equation.inputs)
    return found[::-1]


def _evaluate(equations: Iterable[Equation], known: dict[Any, Any]) -> None:
    """Add what follows from what is known."""
    for equation in equations:
        new = any(var not in known for var in equation.outputs)
        if new and all(isinstance(x, Literal) or x in known for x in equation.inputs):
            with suppress(TypeError):
                results = equation.run(*(_read(x, known) for x in equation.inputs))
                known.update(zip(equation.outputs, results, strict=True))


def _read(atom: Atom, known: Mapping[Any, Any]) -> Any:
    return atom.value if isinstance(atom, Literal) else known[atom]


def _is_random(equation: Equation) -> bool:
    return equation.site is not None or (equation.meaning is not None and equation.meaning().keyed is not None)


def _is_loop(equation: Equation) -> bool:
    return equation.op in ("cond", "rest") or (equation.meaning is not None and equation.meaning().loop is not None)


def _varies(equation: Equation, given: Sequence[tuple[Atom, Any]], there: Mapping[Any, Any], ops: Ops) -> bool:
    """Whether its value is finite, and another where what is infinite in its operands has moved."""

    def mixed(atom: Atom, x: Any) -> Any:
        return ops.where(abs(x) < math.inf, x, _read(atom, there)) if is_float(atom) and _is_infinite(x) else x

    before = equation.run(*(x for _, x in given))
    after = equation.run(*(mixed(atom, x) for atom, x in given))
    pairs = ((as_numpy(x, float), as_numpy(y, float)) for x, y in zip(before, after, strict=True))
    with np.errstate(invalid="ignore"):
        return any((np.isfinite(x) & np.isfinite(y) & (abs(x - y) > MOVED)).any() for x, y in pairs)


def _is_infinite(x: Any) -> bool:
    return bool(np.isinf(as_numpy(x, float)).any())


def probabilities(masses: Masses, x: np.ndarray) -> np.ndarray:
    """Of each value, `(*lanes, K)`, up to a positive factor, from what a distribution is given by."""
    with np.errstate(all="ignore"):
        if masses == "logits":
            return np.exp(x - x.max(-1, keepdims=True))
        if masses == "coin logits":
            return np.stack([1 / (1 + np.exp(x)), 1 / (1 + np.exp(-x))], -1)
        if masses == "count probs":
            p, n = x[..., :1], x[..., 1:]
            k = np.arange(1 + int(n.max()))
            return np.where(k > 0, p, 1) * np.where(k < n, 1 - p, 1) * (k <= n)
        return x if masses == "probs" else np.stack([1 - x, x], -1)


def possible(masses: Masses, x: np.ndarray) -> np.ndarray:
    """Which values have a probability that is not zero, `(*lanes, K)`."""
    if masses == "logits":
        return x > -np.inf
    if masses == "coin logits":
        return np.stack([x < np.inf, x > -np.inf], -1)
    return probabilities(masses, x) > 0


def _moved(program: Program, values: Mapping[Var, Any], step: float) -> dict[Var, Any]:
    """Parameters moved, each by something else."""
    order = [var for var in values if var in program.params]
    return {**values, **{var: values[var] * (1 + step) + step / (1 + i) for i, var in enumerate(order)}}
