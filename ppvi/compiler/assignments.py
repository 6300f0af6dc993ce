"""Variables at every assignment of values to the lanes that they depend on, several in a row.

    x_t = f(g(z_{t-1}), z_t)        K values of g and K^2 of f, and not K^2 of both

A run of the rest for every assignment would do all operations K^width times. Here each is done once for every assignment of
the lanes that its own result depends on. That works as long as operations only move lanes: then an entry depends on lanes at
fixed distances from its own place, and its variable is a table with an axis of alternatives for each distance.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ppvi._ops import Array, Ops
from ppvi.ir import Atom, Equation, Lifted, Var, along


class Values(Protocol):
    """Where variables that do not depend on the site have their values; `ppvi.compiler.continuation.Env`."""

    values: dict[Atom, Array]

    def __getitem__(self, atom: Atom) -> Array: ...

    def __contains__(self, atom: Atom) -> bool: ...

    def run(self, equation: Equation) -> None: ...


@dataclass(frozen=True)
class Table:
    """A variable at all assignments of some lanes."""

    array: Array
    """`(K, ..., K, *shape)`, an axis of alternatives for each distance."""
    distances: tuple[int, ...]
    """In ascending order: entry t depends on the lanes at t + distance."""
    axis: int
    """The variable's axis along which the lanes lie."""

    def moved(self, axis: int, places: int) -> Table:
        return Table(self.array, tuple(distance + places for distance in self.distances), axis)

    def at(self, index: np.ndarray, ops: Ops) -> Array:
        """The variable in C runs, `(C, *shape)`, whose lanes have the alternatives of `index`, `(C, lanes)`."""
        size, count = self.array.shape[0], len(self.distances)
        shape = self.array.shape[count:]
        lanes = np.arange(shape[self.axis])[:, None] + np.asarray(self.distances)
        digits = index[:, np.clip(lanes, 0, index.shape[1] - 1)]
        rows = digits @ size ** np.arange(count)[::-1]
        return ops.choose(
            ops.reshape(self.array, (size**count, *shape)), rows.reshape(len(index), *[1] * self.axis, -1)
        )


def tabulate(
    first: Mapping[Var, Table], equations: Sequence[Equation], results: Iterable[Atom], env: Values, ops: Ops
) -> tuple[dict[Var, Table], set[Equation]]:
    """Run equations in an environment and, where they depend on these tables, as tables.

    **Returns** all tables, and which equations have been run: not those that mix lanes, or draw, or need what those give.
    """
    tables, done = dict(first), set()
    missing: set[Atom] = set()
    wanted = {atom for equation in equations for atom in equation.inputs} | set(results)
    for equation in equations:
        if missing.isdisjoint(equation.inputs) and _run(equation, tables, wanted, env, ops):
            done.add(equation)
        else:
            missing.update(equation.outputs)
    return tables, done


def _run(equation: Equation, tables: dict[Var, Table], wanted: Collection[Atom], env: Values, ops: Ops) -> bool:
    """Run an equation if it can be."""
    inputs = {i: tables[atom] for i, atom in enumerate(equation.inputs) if isinstance(atom, Var) and atom in tables}
    if equation.is_site:
        return False
    if not inputs:
        env.run(equation)
        return True
    if isinstance(equation.role, Lifted):
        return _run_anew(equation, tables, wanted, env, ops)
    moved = _moved(equation, inputs)
    if moved is None:
        return False
    distances = sorted({distance for table in moved.values() for distance in table.distances})
    others = {i: env[atom] for i, atom in enumerate(equation.inputs) if i not in moved}

    def at(arrays: Mapping[int, Array], distances: Sequence[int]) -> Any:
        if not distances:
            values = others | dict(arrays)
            return tuple(equation.run(*[values[i] for i in range(len(values))]))
        now, *later = distances
        mapped = {i: x for i, x in arrays.items() if now in moved[i].distances}
        kept = {i: x for i, x in arrays.items() if i not in mapped}
        return ops.vmap(lambda mapped: at(kept | mapped, later))(mapped)

    outs = at({i: table.array for i, table in moved.items()}, distances)
    [axis] = {table.axis for table in moved.values()}
    tables.update((var, Table(x, tuple(distances), axis)) for var, x in zip(equation.outputs, outs, strict=True))
    return True


def _run_anew(
    equation: Equation[Lifted], tables: dict[Var, Table], wanted: Collection[Atom], env: Values, ops: Ops
) -> bool:
    body, results = equation.role.anew()
    inner, _ = tabulate(tables, body, results, env, ops)
    for var, atom in zip(equation.outputs, results, strict=True):
        if isinstance(atom, Var) and atom in inner:
            tables[var] = inner[atom]
        elif atom in env:
            env.values[var] = env[atom]
        elif var in wanted:
            return False
    return True


def _moved(equation: Equation, inputs: Mapping[int, Table]) -> dict[int, Table] | None:
    """The operands' tables as they lie in the outputs; None where the operation does more to lanes than move them."""
    found: dict[int, Table] = {}
    for maps in equation.flow():
        for i, table in inputs.items():
            axes = maps[i]
            place = None if axes is None else along(axes[table.axis])
            if place is None or place.width > 1:
                return None
            moved = table.moved(place.axis, int(place.first))
            if found.setdefault(i, moved) != moved:
                return None
    return found if len({table.axis for table in found.values()}) == 1 else None
