"""Variables at every assignment of values to the lanes that they depend on.

    x_t = f(g(z_{t-1}), z_t)        K values of g and K^2 of f, and not K^2 of both

A run of the rest for every assignment would do all operations K^width times. Here each is done once for every assignment of
the lanes that its own result depends on. That works as long as operations only move lanes: then an entry depends on lanes at
fixed distances from its own place, and its variable is a table with an axis of alternatives for each of them.

Of values that are the same for all lanes a table is *narrow*: of size one along the lanes' axes, for as long as nothing else
has those axes. The rates of K components are looked up K times, and not K times for each of N rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ppvi._ops import Array, Ops
from ppvi.compiler.dependence import Lanes
from ppvi.errors import ProgramError
from ppvi.ir import Along, Atom, AxisMap, Equation, Lifted, Literal, Var, along
from ppvi.strategies.assigned import at


class Values(Protocol):
    """Where variables that depend on no site have their values; `ppvi.compiler.continuation.Env`."""

    values: dict[Atom, Array]

    def __getitem__(self, atom: Atom) -> Array: ...

    def __contains__(self, atom: Atom) -> bool: ...

    def run(self, equation: Equation) -> None: ...


@dataclass(frozen=True)
class Label:
    """An axis of alternatives: those of one lane of a site, for each entry of a variable."""

    site: Equation
    lanes: Lanes
    """Where the lane lies for each lane axis of the site: along an axis of the variable, at one distance; None where it is the
    same for all entries."""
    part: tuple[int, ...] = ()
    """Which lane it is along the axes of the site that are not gone along."""

    def moved(self, axes: AxisMap) -> Label | None:
        """The label in the result of an operation; None where that mixes lanes."""
        lanes: list[Along | None] = []
        for place in self.lanes:
            there = None if place is None else along(axes[place.axis])
            if place is not None and (there is None or there.width > 1):
                return None
            lanes.append(there and Along(there.axis, place.first + there.first, place.last + there.last))  # type: ignore[union-attr]
        return Label(self.site, tuple(lanes), self.part)


@dataclass(frozen=True)
class Table:
    """A variable at all assignments of some lanes."""

    array: Array
    """`(K, ..., K, *shape)`, an axis of alternatives for each label; of size one along axes that are narrow."""
    labels: tuple[Label, ...]

    @property
    def ahead(self) -> int:
        return len(self.labels)

    def widened(self, shape: Sequence[int], narrow: Collection[int], ops: Ops) -> Array:
        """The array, of full size along all axes but these."""
        found = tuple(self.array.shape)
        sizes = [
            have if axis in narrow else size
            for axis, (have, size) in enumerate(zip(found[self.ahead :], shape, strict=True))
        ]
        wanted = (*found[: self.ahead], *sizes)
        return self.array if wanted == found else ops.broadcast(self.array, wanted)

    def narrow(self, shape: Sequence[int]) -> set[int]:
        """The axes along which all entries are the same, and one is there."""
        have = self.array.shape[self.ahead :]
        return {axis for axis, size in enumerate(shape) if have[axis] != size}

    def at(self, index: np.ndarray, ops: Ops) -> Array:
        """The variable in C runs, `(C, *shape)`, where lane i of a site, which lies along one axis, has the alternative
        `index[:, i]`, `(C, lanes)`."""
        shape, digits = self.array.shape[self.ahead :], []
        for label in self.labels:
            [place] = [place for place in label.lanes if place is not None]
            lanes = np.clip(np.arange(shape[place.axis]) + int(place.first), 0, index.shape[1] - 1)
            laid = [len(index), *(len(lanes) if axis == place.axis else 1 for axis in range(len(shape)))]
            digits.append(index[:, lanes].reshape(laid))
        return at(ops, self.array, digits)


def refuse_large(entries: float, names: Iterable[str], what: Callable[[], str]) -> None:
    """**Raises** `ProgramError` for a table with too many entries, over all values of sites with these names."""
    if entries > ENTRIES:
        raise ProgramError(
            f"{what()} takes a table of {entries:.3g} entries, over all values of {', '.join(map(repr, names))} at once, more "
            f"than {ENTRIES:.3g}. Draw one of these sites in the guide, or let fewer of them depend on one another."
        )


ENTRIES = 2.0**28
"""The most entries of a table."""


def tabulate(
    first: Mapping[Var, Table],
    equations: Sequence[Equation],
    results: Iterable[Atom],
    env: Values,
    ops: Ops,
    alike: Callable[[Atom], Collection[int]] = lambda atom: (),
) -> tuple[dict[Var, Table], set[Equation]]:
    """Run equations in an environment and, where they depend on these tables, as tables.

    **Arguments**

    - `alike`: the axes along which all entries of a variable that is no table are known to be the same.

    **Returns** all tables, and which equations have been run: not those that mix lanes, or draw, or need what those give.
    """
    tables, done = dict(first), set()
    missing: set[Atom] = set()
    wanted = {atom for equation in equations for atom in equation.inputs} | set(results)
    for equation in equations:
        if missing.isdisjoint(equation.inputs) and _run(equation, tables, wanted, env, ops, alike):
            done.add(equation)
        else:
            missing.update(equation.outputs)
    return tables, done


class Alike:
    """Along which axes all entries of variables are the same, as what is broadcast is."""

    def __init__(self, equations: Iterable[Equation]):
        self.makers = {var: equation for equation in equations for var in equation.outputs}
        self.known: dict[Atom, frozenset[int]] = {}

    def __call__(self, atom: Atom) -> frozenset[int]:
        pending = [atom]
        while pending:
            now = pending[-1]
            equation = None if isinstance(now, Literal) else self.makers.get(now)
            left = [] if equation is None else [x for x in equation.inputs if x not in self.known]
            if now in self.known or equation is None or not _fits_any_size(equation):
                self.known.setdefault(now, frozenset())
                pending.pop()
            elif left:
                pending += left
            else:
                self.known[now] = self._of(equation)
                pending.pop()
        return self.known[atom]

    def _of(self, equation: Equation) -> frozenset[int]:
        [maps], [out] = equation.flow(), equation.outputs
        repeats = equation.broadcasts or equation.op in ("broadcast_in_dim", "expand")
        found = {axis for axis, size in enumerate(out.shape) if size > 1 and repeats}
        varying: set[int] = set()
        for atom, axes in zip(equation.inputs, maps, strict=True):
            for axis, size in enumerate(atom.shape):
                place = None if axes is None else along(axes[axis])
                if size > 1 and place is None:
                    return frozenset()
                if size > 1 and place is not None:
                    same = place == Along(place.axis) and size == out.shape[place.axis] and axis in self.known[atom]
                    (found if same else varying).add(place.axis)
        return frozenset(found - varying)


def _fits_any_size(equation: Equation) -> bool:
    """Whether an operation has one result, whose entries it finds wherever along an axis that it leaves alone they are."""
    if equation.resized is None or len(equation.outputs) != 1:
        return False
    [out] = equation.outputs
    return equation.resized(out.shape) is not None


def _run(
    equation: Equation,
    tables: dict[Var, Table],
    wanted: Collection[Atom],
    env: Values,
    ops: Ops,
    alike: Callable[[Atom], Collection[int]],
) -> bool:
    """Run an equation if it can be."""
    inputs = {i: tables[atom] for i, atom in enumerate(equation.inputs) if isinstance(atom, Var) and atom in tables}
    if equation.is_site:
        return False
    if not inputs:
        env.run(equation)
        return True
    if isinstance(equation.role, Lifted):
        return _run_anew(equation, tables, wanted, env, ops)
    equation = equation.without_notes()
    inputs = {i: table for i, table in inputs.items() if i < len(equation.inputs)}
    flow = equation.flow()
    moved = _moved(flow, inputs)
    if moved is None:
        return False
    labels = list(dict.fromkeys(label for found in moved.values() for label in found))
    sizes = {label: inputs[i].array.shape[n] for i, found in moved.items() for n, label in enumerate(found)}
    names = dict.fromkeys(label.site.role.info.name for label in labels)
    refuse_large(float(math.prod(sizes.values())), names, lambda: f"{equation.op} at {equation.where()}")
    run, arrays = _laid(equation, flow, inputs, env, ops, alike)
    if equation.broadcasts:
        more = {i: len(equation.outputs[0].shape) - len(atom.shape) for i, atom in enumerate(equation.inputs)}
        [x] = run(*[_in_front(arrays[i], moved.get(i, ()), labels, more[i], ops) for i in range(len(arrays))])
        tables[equation.outputs[0]] = Table(x, tuple(labels))
        return True

    def at(arrays: Mapping[int, Array], left: Sequence[Label]) -> tuple[Array, ...]:
        if not left:
            return tuple(run(*[arrays[i] for i in range(len(arrays))]))
        now, *later = left
        places = {i: _place(moved[i], now, left) for i in moved if now in moved[i]}
        mapped = {i: ops.moveaxis(arrays[i], place, 0) if place else arrays[i] for i, place in places.items()}
        kept = {i: x for i, x in arrays.items() if i not in mapped}
        return ops.vmap(lambda mapped: at(kept | mapped, later))(mapped)

    for var, maps, x in zip(equation.outputs, flow, at(arrays, labels), strict=True):
        there = [i for i in moved if maps[i] is not None and 0 not in equation.inputs[i].shape]
        mine = {label for i in there for label in moved[i]}
        # What an output does not depend on is the same at all alternatives.
        x = x[tuple(slice(None) if label in mine else 0 for label in labels)]
        if mine:
            tables[var] = Table(x, tuple(label for label in labels if label in mine))
        else:
            env.values[var] = x
    return True


def _in_front(x: Array, mine: Sequence[Label], labels: Sequence[Label], more: int, ops: Ops) -> Array:
    """An operand with an axis for each label in front, and so many more axes than its own after these."""
    if not mine:
        return x
    order = [mine.index(label) for label in labels if label in mine]
    ahead = [*order, *range(len(mine), len(x.shape))]
    x = x if ahead == sorted(ahead) else ops.transpose(x, ahead)
    sizes = iter(x.shape)
    shape = [*(next(sizes) if label in mine else 1 for label in labels), *[1] * more, *sizes]
    return x if shape == list(x.shape) else ops.reshape(x, shape)


def _place(mine: Sequence[Label], now: Label, left: Sequence[Label]) -> int:
    """Where an operand's axis of a label is among those that are left of it."""
    return [label for label in mine if label in left].index(now)


def _laid(
    equation: Equation,
    flow: Sequence[Sequence[AxisMap | None]],
    inputs: Mapping[int, Table],
    env: Values,
    ops: Ops,
    alike: Callable[[Atom], Collection[int]],
) -> tuple[Callable[..., Sequence[Array]], dict[int, Array]]:
    """How an equation is run, and on what: narrow where all that has an axis is, and it can be."""
    shapes = [atom.shape for atom in equation.inputs]
    others = {i: env[atom] for i, atom in enumerate(equation.inputs) if i not in inputs}
    narrow = {i: table.narrow(shapes[i]) for i, table in inputs.items()}

    def laid(kept: Mapping[int, Collection[int]]) -> dict[int, Array]:
        return others | {i: table.widened(shapes[i], kept.get(i, ()), ops) for i, table in inputs.items()}

    if len(equation.outputs) > 1 or not any(narrow.values()):
        return equation.run, laid({})
    if equation.without_rows is not None and narrow.get(0) and not any(narrow.get(i) for i in inputs if i):
        ahead, rows = inputs[0].ahead, sorted(narrow[0])
        if (run := equation.without_rows(rows)) is not None:
            at = tuple(slice(None) if i < ahead or i - ahead not in rows else 0 for i in range(ahead + len(shapes[0])))
            return run, laid({0: narrow[0]}) | {0: inputs[0].array[at]}
    [(maps, out)] = zip(flow, equation.outputs, strict=True)
    narrow |= {i: set(alike(equation.inputs[i])) for i in others}
    into: dict[int, bool] = {}
    for i, axes in enumerate(maps):
        for axis, place in enumerate(map(along, axes or ())):
            if place is not None and shapes[i][axis] > 1:
                straight = place == Along(place.axis) and shapes[i][axis] == out.shape[place.axis]
                is_narrow = straight and axis in narrow[i]
                into[place.axis] = into.get(place.axis, True) and is_narrow
    small = {axis for axis, is_narrow in into.items() if is_narrow}
    shape = tuple(1 if axis in small else size for axis, size in enumerate(out.shape))
    run = equation.resized(shape) if small and equation.resized is not None else None
    if run is None:
        return equation.run, laid({})
    kept = {
        i: {axis for axis in axes if (place := along((maps[i] or ())[axis])) is not None and place.axis in small}
        for i, axes in narrow.items()
    }
    for i, x in others.items():
        if kept[i]:
            others[i] = x[tuple(slice(1) if axis in kept[i] else slice(None) for axis in range(len(shapes[i])))]
    return run, laid(kept)


def _run_anew(
    equation: Equation[Lifted],
    tables: dict[Var, Table],
    wanted: Collection[Atom],
    env: Values,
    ops: Ops,
) -> bool:
    body, results = equation.role.anew()
    inner, _ = tabulate(tables, body, results, env, ops, Alike(body))
    for var, atom in zip(equation.outputs, results, strict=True):
        if isinstance(atom, Var) and atom in inner:
            tables[var] = inner[atom]
        elif atom in env:
            env.values[var] = env[atom]
        elif var in wanted:
            return False
    return True


def _moved(
    flow: Sequence[Sequence[AxisMap | None]], inputs: Mapping[int, Table]
) -> dict[int, tuple[Label, ...]] | None:
    """The operands' labels as they lie in the outputs; None where the operation does more to lanes than move them."""
    found: dict[int, tuple[Label, ...]] = {}
    for maps in flow:
        for i, table in inputs.items():
            axes = maps[i]
            if axes is None:
                continue
            moved = tuple(there for label in table.labels if (there := label.moved(axes)) is not None)
            if len(set(moved)) < len(table.labels) or found.setdefault(i, moved) != moved:
                return None
    return found if found.keys() == inputs.keys() else None  # an operand may be for more than its value
