"""Numbers: what arrays of a program are at the parameters and the arguments that a check was given.

What no draw has a part in is the same in every run; of the rest some runs are looked at. The numbers that a finite
distribution is given by say which of its values are possible, and those that are infinite where a derivative is 0 times
infinity.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ppvi._ops import as_numpy
from ppvi.compiler.infinities import Edges
from ppvi.ir import Atom, Density, Equation, Literal, Looped, Masses, Program, Var, is_float, union
from ppvi.proofs.masses import possible, probabilities

RUNS, OF_LOOPS = 8, 2
"""How many runs are looked at, and how many where there is a loop, which draws in every round."""
TURNS = 16
"""In how many more runs, at most, finite sites take each of their values in turn: each combination of them where that are no
more, else each value of a site, all sites together and then in combinations at random; and of more values so many."""
STEP = 1e-3
"""How far parameters are moved, to see whether a probability moves with them."""
MOVED = 1e-6
SMALLEST = float(np.finfo(np.float32).tiny)
"""What is positive may be 0 below it."""


class Run(NamedTuple):
    """One run of a program."""

    seed: int | None = None
    """Of its draws; None of what no draw has a part in."""
    step: float = 0.0
    """How far parameters are moved, with the draws of finite sites as they were."""
    turn: int | None = None
    """In which finite sites take values in turn."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of a program.

    **Arguments**

    - `edges`: where its values may be infinite.
    - `values`: the values of its inputs, less its key.
    - `drawing`: a context in which it draws from a seed, which gives the key.
    - `like`: NumPy's numbers as an array of the engine's, or of the kind of another.
    """

    program: Program
    edges: Edges
    values: Mapping[Var, Any]
    drawing: Callable[[int], AbstractContextManager[Any]]
    like: Callable[..., Any]

    def of(self, atom: Atom, run: Run) -> np.ndarray | None:
        """An array; None where an input is not known, or where a draw has a part in it and there is no seed."""
        known = self._runs.get(run, {})
        try:
            if atom not in known:  # what has been found is not looked for again
                known = self._run(self._behind(atom), run)
            return as_numpy(_read(atom, known), float)
        except (KeyError, TypeError):  # not found; or a number of a trace outside, which may be anything
            return None

    def all(self, seed: int) -> dict[Any, Any]:
        """All numbers in the run of a seed."""
        return dict(self._run(self.program.equations, Run(seed)))

    def together(self, *atoms: Atom, runs: int = RUNS) -> Iterator[tuple[int | None, list[np.ndarray]]]:
        """Arrays in one run after the other, by seed; one run where no draw has a part in them, none where they are unknown."""
        loops = any(isinstance(equation.role, Looped) for atom in atoms for equation in self._behind(atom))
        for seed in (None, *range(min(runs, OF_LOOPS) if loops else runs)):
            found = [self.of(atom, Run(seed)) for atom in atoms]
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
                there = self.of(atom, Run(seed, step))
                if there is not None and self._is_of_same_draws(seed, step):
                    rises = ((now == 0) & (probabilities(masses, there) > MOVED)).reshape(-1, now.shape[-1]).any(0)
                    found = rises | found if found.size else rises
        return found

    def may_bar(self, masses: Masses, atom: Atom) -> bool:
        """Whether a distribution may have values of probability zero, as far as ranges tell; they see no branches."""
        if any(_is_closed(equation) for equation in self._behind(atom)):
            return True
        if masses.endswith("logits"):
            return isinstance(atom, Literal) or atom in self.edges.infinite
        low, high = self.edges.range(atom)
        return low <= SMALLEST or (masses != "probs" and high >= 1)

    def forgotten(self) -> Iterator[Equation]:
        """Operations that are finite where they are given an infinity, and vary as parameters move away from there.

        Their derivative is 0 times infinity, as that of exp(log(w)) at w = 0.
        """
        equations = self.program.equations
        poles = [equation.outputs[0] for equation in equations if self.edges.is_pole(equation)]
        here = self._run(equations, Run()) if poles else {}
        if not any(pole in here and _is_infinite(here[pole]) for pole in poles):
            return
        moved = [self._run(equations, Run(step=step)) for step in (STEP, -STEP)]
        for equation in equations:
            if any(is_float(out) and out in here for out in equation.outputs):
                given = [(atom, _read(atom, here)) for atom in equation.inputs]
                met = any(is_float(atom) and _is_infinite(x) for atom, x in given)
                if met and any(_varies(equation, given, there, self.like) for there in moved):
                    yield equation

    @functools.cached_property
    def turns(self) -> list[dict[Equation, int]]:
        """Which of its values each finite site takes in each of some runs, where that is possible there."""
        values = [np.unique(np.linspace(0, _most(site), TURNS, dtype=int)) for site in self._finite]
        sizes = [len(each) for each in values]
        if math.prod(sizes) <= TURNS:
            taken = itertools.product(*values)
        else:
            rng = np.random.default_rng(0)
            mixed = (rng.permutation(np.resize(each, TURNS)) for each in values)
            ways = (np.append(np.resize(x, max(sizes)), y)[:TURNS] for x, y in zip(values, mixed, strict=True))
            taken = zip(*ways, strict=True)
        return [dict(zip(self._finite, map(int, each), strict=True)) for each in taken] if values else []

    def not_finite(self, atom: Atom) -> Iterator[tuple[np.ndarray, Run]]:
        """What is infinite or NaN in one run, or as finite sites take their values in turn."""
        for seed, _ in self.together(atom, runs=1):
            turns = () if seed is None else range(len(self.turns))
            for run in (Run(seed), *(Run(seed, turn=i) for i in turns)):
                value = self.of(atom, run)
                if value is not None and not np.isfinite(value).all() and self.can_be(run):
                    yield value, run

    def said(self, run: Run) -> str:
        """The values that finite sites take in a run, where it was chosen for these."""
        taken = {} if run.turn is None else self.turns[run.turn]
        values = ", ".join(f"{site.role.info.name!r} is {value}" for site, value in list(taken.items())[:3])
        return f", where {values}" if values else ""

    def can_be(self, run: Run) -> bool:
        """Whether what is drawn in it has a density there, as far as the program says: values that are taken may exclude each
        other."""
        if run.turn is None:
            return True
        own = (
            e for e in self.program.equations if isinstance(e.role, Density) and e.role.at in ("draw", "credited draw")
        )
        found = (self.of(equation.outputs[0], run) for equation in own)
        return all(x is None or np.isfinite(x).all() for x in found)

    @functools.cached_property
    def _finite(self) -> list[Equation]:
        return [e for e in self.program.equations if e.is_site and e.role.info.masses is not None]

    @functools.cached_property
    def _runs(self) -> dict[Run, dict[Any, Any]]:
        """What has been found so far."""
        return {}

    def _run(self, equations: Sequence[Equation], run: Run) -> dict[Any, Any]:
        known = self._runs.setdefault(run, {})
        if run.seed is None:
            if not known:
                known |= {**self.program.constants, **_moved(self.program, self.values, run.step)}
            if run.step:
                known |= self._left(equations, Run(), self.program.params)
            _evaluate((e for e in equations if e.outputs and not _is_random(e)), known)
            return known
        known |= self._run(equations, Run(step=run.step))  # what no draw has a part in
        if run.step:
            known |= self._left(equations, Run(run.seed), self.program.params)
            known |= {var: x for var, x in self._draws(run.seed) if var not in known}
        if run.turn is not None:
            known |= self._left(equations, Run(run.seed), {site.outputs[0] for site in self._finite})
        with self.drawing(run.seed) as key:
            known |= {var: key for var in self.program.inputs if var not in self.values}
            _evaluate(equations, known, self._wanted, {} if run.turn is None else self.turns[run.turn], self.like)
        return known

    def _left(self, equations: Sequence[Equation], before: Run, changed: Collection[Atom]) -> dict[Any, Any]:
        """What is as it was in another run, where these are others."""
        after = self._after(frozenset(changed))
        return {var: x for var, x in self._run(equations, before).items() if var not in after}

    def _draws(self, seed: int) -> list[tuple[Atom, Any]]:
        """The draws of finite sites, and the sites' values, in the run of a seed."""
        here = self._runs[Run(seed)]
        return [(var, here[var]) for site in self._finite for var in (site.inputs[0], *site.outputs) if var in here]

    def _is_of_same_draws(self, seed: int | None, step: float) -> bool:
        """Whether a loop, which draws anew where parameters have moved, has drawn the same."""
        if seed is None:
            return True
        there = self._runs[Run(seed, step)]
        return all(np.array_equal(as_numpy(x), as_numpy(there[var])) for var, x in self._draws(seed))

    def _behind(self, atom: Atom) -> list[Equation]:
        """What it is made by."""
        bits = self._makers.get(atom, 0)
        return [equation for i, equation in enumerate(self.program.equations) if bits >> i & 1]

    @functools.cached_property
    def _makers(self) -> dict[Atom, int]:
        """For each variable the equations that it needs, as a bit set."""
        found: dict[Atom, int] = {}
        for i, equation in enumerate(self.program.equations):
            found |= dict.fromkeys(equation.outputs, union(found.get(atom, 0) for atom in equation.needs) | 1 << i)
        return found

    @functools.cached_property
    def _wanted(self) -> set[Atom]:
        """What another value is made of, and what notes say."""
        equations = self.program.equations
        return {
            self.program.output,
            *(x for e in equations for x in (e.inputs if isinstance(e.role, Density) else e.needs)),
        }

    def _after(self, changed: frozenset[Atom]) -> set[Atom]:
        """What depends on these, which are among it."""
        if changed not in self._found_after:
            found = set(changed)
            for equation in self.program.equations:
                if not found.isdisjoint(equation.needs):
                    found.update(equation.outputs)
            self._found_after[changed] = found
        return self._found_after[changed]

    @functools.cached_property
    def _found_after(self) -> dict[frozenset[Atom], set[Atom]]:
        return {}


def _evaluate(
    equations: Iterable[Equation],
    known: dict[Any, Any],
    wanted: set[Atom] | None = None,
    taken: Mapping[Equation, int] | None = None,
    like: Callable[[np.ndarray, Any], Any] = np.asarray,
) -> None:
    """Add what follows from what is known, with some sites at the values that are taken."""
    with np.errstate(all="ignore"):
        for equation in equations:
            outputs, needs = equation.outputs, equation.needs
            places = None if wanted is None else frozenset([i for i, var in enumerate(outputs) if var in wanted])
            new = any(var not in known for i, var in enumerate(outputs) if places is None or i in places)
            if not new or any(x not in known and not isinstance(x, Literal) for x in needs):
                continue
            operands = [_read(x, known) for x in needs]
            try:
                if taken and equation in taken:
                    operands[0] = _taking(equation, taken[equation], operands, like)
                found = equation.some_at(places, *operands)
            except TypeError:  # of what is no array
                continue
            except RuntimeError:
                if not _is_random(equation):
                    raise
                continue  # PyTorch draws from no probability that has moved below 0
            known.update((var, x) for var, x in zip(outputs, found, strict=True) if x is not None)


def _most(site: Equation) -> int:
    """The last of a site's values; of numbers of successes, which the program does not say, so many."""
    info = site.role.info
    if info.masses in ("probs", "logits"):
        return site.inputs[-1].shape[-1] - 1
    return TURNS - 1 if info.masses == "count probs" else 1


def _taking(site: Equation, value: int, operands: Sequence[Any], like: Callable[[np.ndarray, Any], Any]) -> Any:
    """A value of a site in the lanes where it is possible, what is drawn in others."""
    info, drawn = site.role.info, as_numpy(operands[0])
    assert info.masses is not None
    there, one = possible(info.masses, as_numpy(operands[-1], float)), np.asarray(value)
    size, is_vector = there.shape[-1], info.distribution.startswith("OneHot")
    there = there[..., value] if value < size else np.asarray(False)
    lanes = drawn.ndim - is_vector
    there = there.all(tuple(range(lanes, there.ndim)))  # whatever value was drawn before, where it depends on that
    if is_vector:
        one, there = np.eye(size)[value], np.expand_dims(there, -1)
    laid = np.where(there, one, drawn)
    return like(laid, operands[0]) if laid.shape == drawn.shape else operands[0]


def _read(atom: Atom, known: Mapping[Any, Any]) -> Any:
    return atom.value if isinstance(atom, Literal) else known[atom]


def _is_random(equation: Equation) -> bool:
    return equation.is_site or (equation.meaning is not None and equation.meaning().keyed is not None)


def _is_closed(equation: Equation) -> bool:
    """Whether it has a body that is not looked into."""
    loop = (
        not isinstance(equation.role, Looped) and equation.meaning is not None and equation.meaning().loop is not None
    )
    return loop or equation.op in ("cond", "rest")


def _varies(
    equation: Equation,
    given: Sequence[tuple[Atom, Any]],
    there: Mapping[Any, Any],
    like: Callable[[np.ndarray, Any], Any],
) -> bool:
    """Whether its value is finite, and another where what is infinite in its operands has moved."""

    def mixed(atom: Atom, x: Any) -> Any:
        if not (is_float(atom) and _is_infinite(x)):
            return x
        here = as_numpy(x)
        return like(np.where(np.isinf(here), as_numpy(_read(atom, there)), here), x)

    with np.errstate(all="ignore"):
        before = equation.at(*(x for _, x in given))
        after = equation.at(*(mixed(atom, x) for atom, x in given))
    pairs = ((as_numpy(x, float), as_numpy(y, float)) for x, y in zip(before, after, strict=True))
    with np.errstate(invalid="ignore"):
        return any((np.isfinite(x) & np.isfinite(y) & (abs(x - y) > MOVED)).any() for x, y in pairs)


def _is_infinite(x: Any) -> bool:
    return bool(np.isinf(as_numpy(x, float)).any())


def _moved(program: Program, values: Mapping[Var, Any], step: float) -> dict[Var, Any]:
    """Parameters moved, each by something else."""
    order = [var for var in values if var in program.params]
    return {**values, **{var: values[var] * (1 + step) + step / (1 + i) for i, var in enumerate(order)}}
