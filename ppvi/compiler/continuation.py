"""Continuations: `k`, the rest of the objective after a site, and what strategies do to its terms.

`k(value)` is a *tail call*: nothing runs until the strategy returns it, with whatever weights it has attached, and then the
surrogate's loop goes on to the next site. A strategy that needs one run costs no recursion and no second trace of the
program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ppvi.compiler.choose import Choice, coupled
from ppvi.compiler.dependence import Lanes, site_lanes
from ppvi.compiler.ir import Along, Atom, Equation, Literal, Var, site_info
from ppvi.compiler.plan import Plan
from ppvi.ops import Array, Ops
from ppvi.strategies import Draw, Site

Group = frozenset[int]
"""Indices of terms that are estimated together."""

Estimates = tuple[dict[int, Array], Array]
"""Estimates of terms by index, and the sum of control variates."""


class Machine(Protocol):
    """What a continuation needs of whoever runs the program; `ppvi.compiler.surrogate.Machine`."""

    @property
    def plan(self) -> Plan: ...

    @property
    def ops(self) -> Ops: ...

    @property
    def states(self) -> Mapping[Equation, Any]: ...

    def estimate(self, group: Group, env: Env, position: int) -> Estimates: ...

    def draw(self, schedule: int, env: Env, position: int) -> None: ...

    def needs(self, group: Group) -> int: ...

    def read(self, i: int, env: Env) -> Array: ...


class Env:
    """Values of variables, in a scope that may shadow an outer one."""

    def __init__(self, outer: Env | None = None):
        self.values: dict[Atom, Array] = {}
        self.outer = outer

    def __getitem__(self, atom: Atom) -> Array:
        if isinstance(atom, Literal) and atom not in self.values:
            return atom.value
        scope: Env | None = self
        while scope is not None:
            if atom in scope.values:
                return scope.values[atom]
            scope = scope.outer
        raise KeyError(atom)

    def run(self, equation: Equation) -> None:
        results = equation.run(*[self[atom] for atom in equation.inputs])
        self.values.update(zip(equation.outputs, results, strict=True))


class Detached(Env):
    """A scope that sees the outer one without gradients."""

    def __init__(self, outer: Env, ops: Ops):
        super().__init__()
        self.source = outer
        self.ops = ops

    def __getitem__(self, atom: Atom) -> Array:
        if isinstance(atom, Var) and atom not in self.values:
            self.values[atom] = self.ops.stop_gradient(self.source[atom])
        return super().__getitem__(atom)


def draw_of(choice: Choice, env: Env, ops: Ops) -> Draw:
    """The draw of a site's strategy."""
    inputs = {i: env[choice.equation.inputs[i]] for i in choice.candidate.fields if i is not None}
    return choice.candidate.draw(inputs, choice.equation.mapped, ops.moveaxis)


def chain(site: Equation) -> tuple[int, bool]:
    """The lane axis along which the draws of a site in a loop follow one another, and whether they do so backwards."""
    own = site.past.get(site_info(site), ())
    found = ((axis, place.last > 0) for axis, place in enumerate(own) if place is not None and place.width > 1)
    return next(found, (0, False))


def _present(reach: Lanes, lanes: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """For every entry of a term the share that it depends on of the lanes that runs were made for."""
    share = np.ones([1] * len(shape))
    for place, size in zip(reach, lanes, strict=True):
        if place is not None and place.width > 1:
            steps = np.arange(max(place.first, -size), min(place.last, size) + 1)
            index = np.arange(shape[place.axis])[:, None] + steps
            found = ((index >= 0) & (index < size)).sum(1) / min(place.width, size)
            share = share * found.reshape([-1 if axis == place.axis else 1 for axis in range(len(shape))])
    return share


def _with(lanes: Lanes, axis: int, place: Along) -> Lanes:
    return (*lanes[:axis], place, *lanes[axis + 1 :])


class Runner(Protocol):
    """What a stack and a tail need of the `k` that they are of."""

    @property
    def ops(self) -> Ops: ...

    @property
    def lanes(self) -> tuple[int, ...]:
        """Of the site."""
        ...

    def run(self, value: Array) -> Estimates:
        """The differentiable estimate, now."""
        ...

    def along(self, i: int, weight: Array) -> Array:
        """A weight of the site's lanes laid along a term: summed over the lanes that the term couples."""
        ...

    def within(self, i: int, log_weight: Array, first: Array, runs: int) -> Array:
        """The same, of so many runs, over the lanes that the term is a function of; see `Runs.mix`."""
        ...


@dataclass(frozen=True)
class Rest:
    """`k`: the rest of the objective after a site, for a group of the terms that depend on it."""

    machine: Machine
    equation: Equation
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
        name = site_info(self.equation).name
        return Site(name, self.lanes, draw, self.ops, self.machine.states.get(self.equation), *chain(self.equation))

    def __call__(self, value: Array) -> Tail:
        return Tail(self, value)

    def each(self, values: Array, *, sequential: bool = False) -> Stack:
        ops = self.ops
        return Stack(self, *(ops.one_by_one if sequential else ops.vmap)(self.run)(values))

    def value(self, value: Array) -> Stack:
        return Stack(self, self.draw(value), 0.0)

    def value_each(self, values: Array) -> Stack:
        return Stack(self, self.ops.vmap(self.draw)(values), 0.0)

    def by_coupling(self) -> Sequence[tuple[Mapping[int, int], Rest]]:
        groups: dict[tuple[tuple[int, int], ...], Group] = {}
        for i in self.group:
            widths = tuple(coupled(self.equation, self.machine.plan.terms[i]).items())
            groups[widths] = groups.get(widths, frozenset()) | {i}
        return [(dict(widths), replace(self, group=group)) for widths, group in sorted(groups.items())]

    def run(self, value: Array) -> Estimates:
        inner = Env(self.env)
        inner.values[self.equation.outputs[0]] = value
        return self.machine.estimate(self.group, inner, self.position)

    def draw(self, value: Array) -> dict[int, Array]:
        """The terms' values with later sites simply drawn."""
        ops = self.ops
        inner = Detached(self.env, ops)
        inner.values[self.equation.outputs[0]] = ops.stop_gradient(value)
        self.machine.draw(self.machine.needs(self.group), inner, self.position)
        return {i: ops.stop_gradient(self.machine.read(i, inner)) for i in self.group}

    def along(self, i: int, weight: Array) -> Array:
        term = self.machine.plan.terms[i]
        return align(self.ops, weight, term.dependence[self.equation], term.shape)

    def within(self, i: int, log_weight: Array, first: Array, runs: int) -> Array:
        term = self.machine.plan.terms[i]
        reach, (time, backward) = term.reach[self.equation], chain(self.equation)
        place = reach[time] if len(reach) > time else None
        if place is None or not self.equation.past or math.isinf(place.width):
            found = align(self.ops, log_weight, reach, term.shape)
        else:
            start = place.last if backward else place.first
            found = align(self.ops, first, _with(reach, time, Along(place.axis, start, start)), term.shape)
            if place.width > 1:
                others = place._replace(last=start - 1) if backward else place._replace(first=start + 1)
                found = found + align(self.ops, log_weight, _with(reach, time, others), term.shape)
        # Near the ends of an axis fewer lanes are in a row than runs were made for, and several runs are the same.
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
    if math.isinf(place.width):
        forward = math.isinf(place.first)
        order = np.arange(lanes) if forward else np.arange(lanes)[::-1].copy()
        total = ops.cumsum(rows[order], 0)
        ends = np.arange(size) + place.last if forward else lanes - 1 - (np.arange(size) + place.first)
        found = _rows(ops, total, np.minimum(ends, lanes - 1).astype(int))
    else:
        steps = range(int(place.first), int(place.last) + 1)
        found = sum(_rows(ops, rows, np.arange(size) + step) for step in steps)
    return ops.moveaxis(found, 0, axis)


def _rows(ops: Ops, rows: Array, index: np.ndarray) -> Array:
    """Rows by number, zero where there is no such row."""
    inside = (index >= 0) & (index < rows.shape[0])
    found = rows[np.clip(index, 0, rows.shape[0] - 1)]
    return found if inside.all() else found * ops.array(inside.reshape(-1, *[1] * (len(found.shape) - 1)))


@dataclass(frozen=True)
class Stack:
    """Terms that have been run: one array each, or a stack of arrays with the runs in front."""

    k: Runner
    values: dict[int, Array]
    added: Array

    def scale(self, log_weight: Array) -> Stack:
        return self._weigh(log_weight, self.k.ops.exp)

    def times(self, weight: Array) -> Stack:
        return self._weigh(weight, lambda w: w)

    def mix(self, log_weights: Array, first: Array | None = None) -> Stack:
        runs, exp = log_weights.shape[0], self.k.ops.exp
        first = log_weights if first is None else first

        def one(log_weights: Array, first: Array, values: dict[int, Array]) -> dict[int, Array]:
            return {i: value * exp(self.k.within(i, log_weights, first, runs)) for i, value in values.items()}

        # A control variate has mean zero in every run whatever weight it gets, so its mean will do.
        values = self.k.ops.vmap(one)(log_weights, first, self.values)
        return replace(self, values=values, added=self.added / runs).total()

    def total(self) -> Stack:
        ops = self.k.ops
        added = self.added if isinstance(self.added, float) else ops.sum(self.added, [0])
        return replace(self, values={i: ops.sum(value, [0]) for i, value in self.values.items()}, added=added)

    def control(self, x: Array | Callable[[Array], Array]) -> Stack:
        variate: Any = x(self.credit()) if callable(x) else x
        return replace(self, added=self.added + self.k.ops.sum(variate, range(len(variate.shape))))

    def credit(self) -> Array:
        """For each lane, what the terms add up to that depend on it: their sum's coefficient of the lane's weight."""
        ops, lanes = self.k.ops, self.k.lanes
        values = {i: ops.stop_gradient(value) for i, value in self.values.items()}

        def weighed(weight: Array) -> Array:
            each = (value * self.k.along(i, weight) for i, value in values.items())
            return sum(ops.sum(x, range(len(x.shape))) for x in each)

        dtype = str(next(iter(values.values())).dtype)
        _, (credit,) = ops.linear_coefficients(weighed, [(lanes, dtype)])
        return credit

    def __mul__(self, number: float | Array) -> Stack:
        return replace(self, values={i: value * number for i, value in self.values.items()}, added=self.added * number)

    def __add__(self, other: Any) -> Stack:
        other = other.force()
        both = {i: self.values[i] + other.values[i] if i in self.values else x for i, x in other.values.items()}
        return replace(self, values=self.values | both, added=self.added + other.added)

    def force(self) -> Stack:
        return self

    def _weigh(self, weight: Array, function: Callable[[Array], Array]) -> Stack:
        stacked = len(weight.shape) > len(self.k.lanes)

        def one(weight: Array, values: dict[int, Array]) -> dict[int, Array]:
            return {i: value * function(self.k.along(i, weight)) for i, value in values.items()}

        run = self.k.ops.vmap(one) if stacked else one
        return replace(self, values=run(weight, self.values))


@dataclass(frozen=True)
class Tail:
    """One run of the rest that has not happened yet, and what is to be done to its terms."""

    k: Runner
    value: Array
    steps: tuple[Callable[[Stack], Stack], ...] = ()

    def then(self, step: Callable[[Stack], Stack]) -> Tail:
        return replace(self, steps=(*self.steps, step))

    def scale(self, log_weight: Array) -> Tail:
        return self.then(lambda terms: terms.scale(log_weight))

    def times(self, weight: Array) -> Tail:
        return self.then(lambda terms: terms.times(weight))

    def control(self, x: Array | Callable[[Array], Array]) -> Tail:
        return self.then(lambda terms: terms.control(x))

    def __mul__(self, number: float | Array) -> Tail:
        return self.then(lambda terms: terms * number)

    def __add__(self, other: Any) -> Tail:
        return self.then(lambda terms: terms + other)

    def force(self) -> Stack:
        return self.finish(Stack(self.k, *self.k.run(self.value)))

    def finish(self, terms: Stack) -> Stack:
        for step in self.steps:
            terms = step(terms)
        return terms
