"""Continuations: `k`, the rest of the objective after a site, and what strategies do to its terms.

`k(value)` is a *tail call*: nothing runs until the strategy returns it, with whatever weights it has attached, and then the
surrogate's loop goes on to the next site. A strategy that needs one run costs no recursion and no second trace of the
program.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ppvi._ops import Array, Ops
from ppvi.compiler.assignments import Label, Table, tabulate
from ppvi.compiler.choose import Choice, coupled
from ppvi.compiler.dependence import Lanes, site_lanes
from ppvi.compiler.estimates import Estimates, Later, Stack, Tail
from ppvi.compiler.lanewise import laid, split
from ppvi.compiler.plan import Plan
from ppvi.compiler.terms import Part
from ppvi.ir import Along, Atom, Equation, Literal, Sited, Var, union
from ppvi.strategies import Draw, Site
from ppvi.strategies.assigned import at

Group = frozenset[int]
"""Indices of terms that are estimated together."""


class Machine(Protocol):
    """What a continuation needs of whoever runs the program; `ppvi.compiler.surrogate.Machine`."""

    @property
    def plan(self) -> Plan: ...

    @property
    def ops(self) -> Ops: ...

    @property
    def states(self) -> Mapping[Equation, Any]: ...

    def estimate(self, group: Group, env: Env, position: int) -> Estimates: ...

    def draw(self, schedule: int, env: Env) -> None: ...

    def schedule(self, group: Group, position: int) -> int: ...

    def without(self, done: int) -> Machine: ...

    def plain(self, group: Group, env: Env) -> dict[int, Array]: ...

    def weighed(self, part: Part, value: Array) -> Array: ...


class Env:
    """Values of variables, in a scope that may shadow an outer one.

    **Arguments**

    - `anew`: variables that are found in this scope. What they are outside belongs to other draws, and is not seen.
    """

    def __init__(self, outer: Env | None = None, anew: Collection[Atom] = ()):
        self.values: dict[Atom, Array] = {}
        self.outer = outer
        self.anew = anew
        self.drawn = outer is None or outer.drawn
        """Whether all sites so far have their draws for values."""

    def __getitem__(self, atom: Atom) -> Array:
        if atom in self.values:
            return self.values[atom]
        if isinstance(atom, Literal):
            return atom.value
        if self.outer is None or atom in self.anew:
            raise KeyError(atom)
        return self.outer[atom]

    def __contains__(self, atom: Atom) -> bool:
        here = isinstance(atom, Literal) or atom in self.values
        return here or (self.outer is not None and atom not in self.anew and atom in self.outer)

    def run(self, equation: Equation) -> None:
        results = equation.run(*[self[atom] for atom in equation.inputs])
        self.values.update(zip(equation.outputs, results, strict=True))


class Detached(Env):
    """A scope that sees the outer one without gradients."""

    def __init__(self, outer: Env, ops: Ops, anew: Collection[Atom] = ()):
        super().__init__(anew=anew)
        self.source = outer
        self.ops = ops

    def __getitem__(self, atom: Atom) -> Array:
        if isinstance(atom, Var) and atom not in self.values and atom not in self.anew:
            self.values[atom] = self.ops.stop_gradient(self.source[atom])
        return super().__getitem__(atom)

    def __contains__(self, atom: Atom) -> bool:
        return super().__contains__(atom) or (atom not in self.anew and atom in self.source)


def draw_of(choice: Choice, env: Env, ops: Ops) -> Draw:
    """The draw of a site's strategy."""
    inputs = {i: env[choice.equation.inputs[i]] for i in choice.candidate.fields if i is not None}
    return choice.candidate.draw(inputs, choice.equation.role.mapped, ops.moveaxis)


def chain(site: Equation[Sited]) -> tuple[int, bool]:
    """The lane axis along which the draws of a site in a loop follow one another, and whether they do so backwards."""
    own = site.role.past.get(site.role.info, ())
    found = ((axis, place.last > 0) for axis, place in enumerate(own) if place is not None and place.width > 1)
    return next(found, (0, False))


def _present(reach: Lanes, lanes: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """For every entry of a term the share that it depends on of the lanes that runs were made for."""
    share = np.ones([1] * len(shape))
    for place, size in zip(reach, lanes, strict=True):
        if place is not None and (place.first, place.last) != (0, 0):
            steps = np.arange(max(place.first, -size), min(place.last, size) + 1)
            index = np.arange(shape[place.axis])[:, None] + steps
            found = ((index >= 0) & (index < size)).sum(1) / min(place.width, size)
            share = share * found.reshape([-1 if axis == place.axis else 1 for axis in range(len(shape))])
    return share


def _with(lanes: Lanes, axis: int, place: Along) -> Lanes:
    return (*lanes[:axis], place, *lanes[axis + 1 :])


@dataclass(frozen=True)
class Rest:
    """`k`: the rest of the objective after a site, for a group of the terms that depend on it."""

    machine: Machine
    equation: Equation[Sited]
    group: Group
    env: Env
    position: int

    @property
    def ops(self) -> Ops:
        return self.machine.ops

    @property
    def lanes(self) -> tuple[int, ...]:
        return site_lanes(self.equation)

    @property
    def site(self) -> Site:
        choice = self.machine.plan.choices[self.equation]
        draw = draw_of(choice, self.env, self.machine.ops)
        name = self.equation.role.info.name
        return Site(name, self.lanes, draw, self.ops, self.machine.states.get(self.equation), *chain(self.equation))

    def __call__(self, value: Array) -> Tail:
        return Tail(self, lambda: self.run(value), value=value)

    def each(self, values: Array, *, sequential: bool = False) -> Stack:
        ops = self.ops
        return Stack(self, *(ops.one_by_one if sequential else ops.vmap)(self.run)(values))

    def assign(self, values: Array, index: np.ndarray, *, sequential: bool = False) -> Stack:
        coupled = [axis for axis, size in enumerate(index.shape[1:]) if size > 1]
        if sequential or len(coupled) != 1:
            return self.each(at(self.ops, values, [index]), sequential=sequential)
        # What depends on fewer lanes than a term is run at fewer assignments.
        [axis] = coupled
        machine, equations = self.machine, self.machine.plan.equations
        schedule, inner = machine.schedule(self.group, self.position), Env(self.env, self._later)
        after = {equation: 1 << i for i, equation in enumerate(equations) if schedule >> i & 1}
        drawn = self.equation.outputs[0]
        label = Label(self.equation, tuple(Along(i) if i == axis else None for i in range(len(self.lanes))))
        first = {drawn: Table(values, (label,))}
        tables, done = tabulate(first, list(after), self._results, inner, self.ops)
        left = after.keys() - done
        wanted = {atom for equation in left for atom in equation.inputs} | self._results
        rows = index.reshape(len(index), -1)
        stacks = {var: table.at(rows, self.ops) for var, table in tables.items() if var in wanted}
        rest = machine.without(union(after[equation] for equation in done))

        def run(values: list[Array]) -> Estimates:
            here = Env(inner)
            here.values.update(zip(stacks, values, strict=True))
            return rest.estimate(self.group, here, self.position)

        return Stack(self, *self.ops.vmap(run)(list(stacks.values())))

    def value(self, value: Array) -> Later:
        return Later(self, lambda: (self.draw(value), 0.0))

    def value_each(self, values: Array) -> Later:
        return Later(self, lambda: (self.ops.vmap(self.draw)(values), 0.0))

    def value_where(self, value: Array, values: Array, chosen: np.ndarray) -> Later:
        return Later(self, lambda: (self._drawn_where(value, values, chosen), 0.0))

    def _drawn_where(self, value: Array, values: Array, chosen: np.ndarray) -> dict[int, Array]:
        # Where the lanes are still apart, one run with all of them at an alternative serves every stack of runs.
        ops, machine = self.ops, self.machine
        axes = [axis for axis, size in enumerate(chosen.shape[1:]) if size > 1]
        parts = split(self.equation, machine.plan.equations, self._early, axes, self._early_results)
        mixed = {var: lanes for var, lanes in parts.frontier.items() if lanes is not None}

        def near(value: Array, wanted: Collection[Var]) -> list[Array]:
            at = self._drawn_at(value, parts.near, wanted)
            return [at[var] for var in wanted]

        here = dict(zip(parts.frontier, near(value, parts.frontier), strict=True))
        others = ops.vmap(lambda value: near(value, mixed))(values)
        masks = [ops.array(laid(chosen, lanes, axes, len(var.shape))) > 0 for var, lanes in mixed.items()]

        def far(masks: list[Array], others: list[Array]) -> dict[int, Array]:
            inner = Detached(self.env, ops, self._later)
            at = {var: ops.where(mask, x, here[var]) for var, mask, x in zip(mixed, masks, others, strict=True)}
            inner.values |= here | at
            machine.draw(parts.far, inner)
            return self._plain(inner)

        runs = ops.vmap(lambda masks: ops.vmap(lambda others: far(masks, others))(others))(masks)
        return {i: ops.reshape(x, (-1, *x.shape[2:])) for i, x in runs.items()}

    def by_coupling(self) -> Sequence[tuple[Mapping[int, int], Rest]]:
        groups: dict[tuple[tuple[int, int], ...], Group] = {}
        for i in self.group:
            widths = tuple(coupled(self.equation, self.machine.plan.terms[i]).items())
            groups[widths] = groups.get(widths, frozenset()) | {i}
        return [(dict(widths), replace(self, group=group)) for widths, group in sorted(groups.items())]

    def run(self, value: Array) -> Estimates:
        inner = Env(self.env, self._later)
        inner.values[self.equation.outputs[0]] = value
        return self.machine.estimate(self.group, inner, self.position)

    def draw(self, value: Array) -> dict[int, Array]:
        """The terms' values with later sites simply drawn, but those summed over that are enumerated together."""
        return self._plain(self._drawn_at(value, self._early, self._early_results))

    def _drawn_at(self, value: Array, schedule: int, wanted: Collection[Atom]) -> Detached:
        """Where these atoms have their values with later sites simply drawn, which may be what the program's run has found."""
        drawn = self.equation.outputs[0]
        is_run = self.env.drawn and self.env.values.get(drawn) is value
        if is_run and all(atom in self.env for atom in wanted):
            return Detached(self.env, self.ops)
        inner = Detached(self.env, self.ops, self._later)
        inner.values[drawn] = self.ops.stop_gradient(value)
        self.machine.draw(schedule, inner)
        return inner

    @property
    def _later(self) -> set[Atom]:
        """What is found after the site: at another of its values, it is something else."""
        equations, schedule = self.machine.plan.equations, self.machine.schedule(self.group, self.position)
        return {var for i, equation in enumerate(equations) if schedule >> i & 1 for var in equation.outputs}

    @property
    def _results(self) -> set[Atom]:
        return {part.atom for i in self.group for part in self.machine.plan.terms[i].parts}

    @property
    def _early(self) -> int:
        """The equations after the site, up to those that depend on sites which are enumerated together."""
        return self.machine.schedule(self.group, self.position) & ((1 << self.machine.plan.late) - 1)

    @property
    def _early_results(self) -> set[Atom]:
        """What is needed of them, by the terms and by the others."""
        plan, schedule = self.machine.plan, self.machine.schedule(self.group, self.position)
        late = [e for i, e in enumerate(plan.equations) if schedule >> i & 1 and i >= plan.late]
        made = {var for equation in late for var in equation.outputs}
        return {atom for equation in late for atom in equation.inputs}.union(self._results) - made

    def _plain(self, inner: Detached) -> dict[int, Array]:
        """The terms' values, where all has run that depends on no site which is enumerated together with others."""
        return {i: self.ops.stop_gradient(x) for i, x in self.machine.plain(self.group, inner).items()}

    def along(self, i: int, weight: Array) -> Array:
        term = self.machine.plan.terms[i]
        return align(self.ops, weight, term.dependence[self.equation], term.shape)

    def within(self, i: int, log_weight: Array, first: Array, runs: int) -> Array:
        term = self.machine.plan.terms[i]
        reach, (time, backward) = term.reach[self.equation], chain(self.equation)
        place = reach[time] if len(reach) > time else None
        if place is None or not self.equation.role.past or math.isinf(place.width):
            found = align(self.ops, log_weight, reach, term.shape)
        else:
            start = place.last if backward else place.first
            found = align(self.ops, first, _with(reach, time, Along(place.axis, start, start)), term.shape)
            if place.width > 1:
                others = place._replace(last=start - 1) if backward else place._replace(first=start + 1)
                found = found + align(self.ops, log_weight, _with(reach, time, others), term.shape)
        # Near the ends of an axis there are fewer lanes than runs were made for, or none, and several runs are the same. Of
        # K^2 runs for pairs (z_i, z_{i+1}) the last entry, which has z_i alone, meets each value K times: its sum is K times
        # what it should be, so that log K is subtracted; an entry that has no lane counts in all K^2 and loses log K^2.
        missing = _present(reach, self.lanes, term.shape) - 1
        return found + self.ops.array(math.log(runs) * missing) if missing.any() else found


def align(ops: Ops, weight: Array, lanes: Lanes, shape: Sequence[int]) -> Array:
    """Lay lane weights along the axes of a term, each entry with the sum of the weights of the lanes it depends on."""
    joint = [i for i, place in enumerate(lanes) if place is None]
    kept = [place for place in lanes if place is not None]
    summed = ops.sum(weight, joint) if joint else weight
    for i, place in enumerate(kept):
        summed = window_sum(ops, summed, i, place, shape[place.axis])
    if [place.axis for place in kept] == list(range(len(shape))):
        return summed
    sizes = [1] * len(shape)
    for i, place in enumerate(kept):
        sizes[place.axis] = summed.shape[i]
    order = sorted(range(len(kept)), key=lambda i: kept[i].axis)
    return ops.reshape(ops.transpose(summed, order), sizes)


def window_sum(ops: Ops, x: Array, axis: int, place: Along, size: int) -> Array:
    """Along an axis, entry i of `size` the sum of the entries from i + first to i + last, as far as there are any.

    An open window is a cumulative sum, from the side on which it is open.
    """
    lanes = x.shape[axis]
    if (place.first, place.last) == (0, 0) and lanes == size:
        return x
    rows = ops.moveaxis(x, axis, 0)
    if not math.isinf(place.width):
        found = sum(_shifted(ops, rows, step, size, 0.0) for step in range(int(place.first), int(place.last) + 1))
    elif math.isinf(place.first):
        total = ops.cumsum(rows, 0)
        found = _shifted(ops, total, int(place.last), size, total[-1:])
    else:
        total = ops.cumsum(rows[np.arange(lanes)[::-1].copy()], 0)
        found = _shifted(ops, total, lanes - size - int(place.first), size, total[-1:])
        found = found[np.arange(size)[::-1].copy()]
    return ops.moveaxis(found, 0, axis)


def _shifted(ops: Ops, rows: Array, first: int, size: int, beyond: Array | float) -> Array:
    """So many rows from a first one on: zero before there is one, and `beyond` after the last."""
    count = rows.shape[0]
    before, after = (min(max(0, n), size) for n in (-first, first + size - count))
    parts = [rows[first + before : max(first, 0) + size - before - after]]
    if before:
        parts.insert(0, ops.zeros((before, *rows.shape[1:]), rows))
    if after:
        parts.append(ops.zeros((after, *rows.shape[1:]), rows) + beyond)
    return ops.concatenate(parts) if len(parts) > 1 else parts[0]
