"""Witnesses: places where the value of a whole program is seen to jump as a parameter moves, and with it what is drawn.

What jumps on the way may have cancelled behind it, as in sign(z) + sign(-z): only a jump of the end makes a gradient biased for
certain. A source is moved along a line, the random numbers as they were, and where a switch turns is found by halving.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ppvi._ops import as_numpy
from ppvi.analysis.inlined import Step
from ppvi.analysis.ranges import pole_of
from ppvi.ir import Atom, Equation, Literal, Var
from ppvi.proofs.constants import moved
from ppvi.proofs.numbers import Numbers
from ppvi.proofs.smoothness import Analysis, Jump, Source

NEAR, FAR = np.linspace(0.013, 4, 24), np.geomspace(5, 1e3, 10)
GRID = np.concatenate([-FAR[::-1], -NEAR[::-1], NEAR, FAR])
"""Places on a line, of which the source is at 0: so near that noise is not lost in rounding."""
PLACES = 4
"""Of a switch that are looked at on a line, the nearest first."""
HALVINGS = 50
NEARBY = 64
"""A side of a place begins so many roundings away from it, and there the value hardly changes up to so many times as far."""


class Operation(NamedTuple):
    inputs: Sequence[Atom]
    outputs: Sequence[Var]
    run: Callable[..., Sequence[Any]]


@dataclass(frozen=True)
class Line:
    """Values of a program as functions of the place of one source on a line."""

    source: Var
    start: Any
    direction: Any
    known: Mapping[Var, Any]
    """What the source has no part in, or is held."""
    operations: tuple[Operation, ...]
    """Those that it has a part in, in order."""

    def to(self, *atoms: Atom) -> Line:
        """With no more operations than these need."""
        needed, found = set(atoms), []
        for operation in reversed(self.operations):
            if not needed.isdisjoint(operation.outputs):
                found.append(operation)
                needed.update(operation.inputs)
        return replace(self, operations=tuple(found[::-1]))

    def at(self, place: float, *atoms: Atom) -> list[np.ndarray]:
        known = {**self.known, self.source: self.start + self.direction * place}
        for inputs, outputs, run in self.operations:
            known.update(zip(outputs, run(*_read(inputs, known)), strict=True))
        return [as_numpy(x, float) for x in _read(atoms, known)]

    def within(self, low: float, high: float) -> list[float]:
        """Places where the source is within bounds."""
        start, direction = (np.ravel(as_numpy(x, float)) for x in (self.start, self.direction))
        values = start + direction * GRID[:, None]
        return GRID[((values > low) & (values < high)).all(1)].tolist()


@dataclass(frozen=True)
class Witnesses:
    """Of a program: what is known of it, and its numbers."""

    analysis: Analysis
    numbers: Numbers

    def show(self, jump: Jump, output: Var, sources: Iterable[Source]) -> bool:
        """Whether the output jumps where a step does, as one of the sources moves.

        Draws that carry gradients move with parameters: what jumps in sign(z - loc) does not, of z = loc + noise.
        """
        found = [source.outputs[0] if isinstance(source, Equation) else source for source in sources]
        moving = [x for x in found if isinstance(x, Var) and x not in self.analysis.through]
        try:
            with np.errstate(all="ignore"):
                return jump.certain and any(self._shows(source, jump.step, output) for source in moving)
        except (KeyError, TypeError, RuntimeError):  # an operation that does not run outside of its program
            return False

    def _shows(self, source: Var, jump: Step, output: Var) -> bool:
        line = self._line(source, self.numbers.program.equations).to(output)
        if not line.operations:
            return False
        rounding = NEARBY * float(np.finfo(as_numpy(line.start).dtype).eps)
        for low, high in itertools.islice(self._turns(source, jump), PLACES):
            near = rounding * max(1.0, abs(low))
            far = NEARBY * near
            beyond, left, right, past = (
                float(line.at(x, output)[0]) for x in (low - far, low - near, high + near, high + far)
            )
            if math.isfinite(left) != math.isfinite(right):
                return True
            if abs(left - right) > abs(left - beyond) + abs(right - past) + rounding * abs(left):
                return True
        return False

    def _turns(self, source: Var, jump: Step) -> Iterator[tuple[float, float]]:
        """Neighbouring places between which a switch turns."""
        read = (*jump.inputs, *jump.outputs)
        state, line = _state_of(jump), self._line(source, self.analysis.flat.steps).to(*jump.inputs, *jump.outputs)

        def at(place: float) -> np.ndarray:
            return np.asarray(state(*line.at(place, *read)))

        grid = line.within(*self.analysis.ranges.of(source)) if line.operations else []
        states = list(map(at, grid))
        turns = [i for i in range(len(grid) - 1) if not np.array_equal(states[i], states[i + 1])]
        for i in sorted(turns, key=lambda i: abs(grid[i])):
            low, high = grid[i], grid[i + 1]
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                low, high = (middle, high) if np.array_equal(at(middle), states[i]) else (low, middle)
            yield low, high

    def _line(self, source: Var, code: Sequence[Equation] | Sequence[Step]) -> Line:
        """A line through the value of a source in a run."""
        known = self.numbers.all(0)
        start = known[source] * 1.0
        direction = 1 + 0.37 * start + 0.11 * start**2  # another one for every number
        moving: set[Atom] = {source}
        operations = []
        seeds = {var: i for i, equation in enumerate(self.numbers.program.equations) for var in equation.outputs}
        for step in code:
            operation = self._operation(step, sum(seeds.get(var, 0) for var in step.outputs))
            equation = step if isinstance(step, Equation) else step.equation
            held = equation.is_site and step.outputs[0] not in self.analysis.through
            if not held and source not in step.outputs and not moving.isdisjoint(step.inputs):
                moving.update(step.outputs)
                operations.append(operation)
            elif any(var not in known for var in step.outputs):
                known.update(zip(step.outputs, operation.run(*_read(step.inputs, known)), strict=True))
        return Line(source, start, direction, known, tuple(operations))

    def _operation(self, step: Equation | Step, seed: int) -> Operation:
        """One that gives the same random numbers whenever it is run."""
        equation = step if isinstance(step, Equation) else step.equation

        def run(*values: Any) -> Sequence[Any]:
            try:
                return equation.at(*(self.numbers.like(x) if isinstance(x, np.ndarray) else x for x in values))
            except AssertionError:  # of a body that is written for the checks alone
                found = None if isinstance(step, Equation) else _of_numbers(step, list(map(as_numpy, values)))
            if found is None:
                raise TypeError
            return [found]

        def again(*values: Any) -> Sequence[Any]:
            with self.numbers.drawing(seed):
                return run(*values)

        random = equation.meaning is not None and equation.meaning().keyed is False
        return Operation(step.inputs, step.outputs, again if random else run)


def _of_numbers(step: Step, values: Sequence[np.ndarray]) -> np.ndarray | None:
    if step.meaning.moves:
        return moved(values[0], step)
    function = step.meaning.entrywise
    with np.errstate(all="ignore"):
        return None if function is None else np.array(np.broadcast_to(function(*values), step.outputs[0].shape))


def _state_of(jump: Step) -> Callable[..., Any]:
    """What changes where it turns, of its operands and what it returns."""
    pole = pole_of(jump)
    if pole is not None:
        return lambda *xs: pole.side(*xs[: len(jump.inputs)])
    return (lambda x, y, _: np.trunc(x / y)) if jump.meaning.name == "rem" else lambda *xs: xs[-1]


def _read(atoms: Iterable[Atom], known: Mapping[Var, Any]) -> list[Any]:
    return [atom.value if isinstance(atom, Literal) else known[atom] for atom in atoms]
