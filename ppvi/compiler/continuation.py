"""Continuations: `k`, the rest of the objective after a site, and what strategies do to its terms.

`k(value)` is a *tail call*: nothing runs until the strategy returns it, with whatever weights it has attached, and then the
surrogate's loop goes on to the next site. A strategy that needs one run costs no recursion and no second trace of the
program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ppvi.compiler.choose import Choice, coupled_axes
from ppvi.compiler.dependence import Lanes, site_lanes
from ppvi.compiler.ir import Atom, Equation, Literal, Var, site_info
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
    """The draw of a site's strategy: stacks, which vectorisation has moved inwards, with their stack axis in front."""
    fields = [None if i is None else env[choice.equation.inputs[i]] for i in choice.candidate.fields]
    draw = Draw(*fields)
    mapped = choice.equation.mapped
    if not mapped:
        return draw
    stacks = {name: x for name in ("values", "log_probs", "weights") if (x := getattr(draw, name)) is not None}
    return draw._replace(**{name: ops.moveaxis(x, mapped, 0) for name, x in stacks.items()})


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
        return Site(name, self.lanes, draw, self.ops, self.machine.states.get(self.equation))

    def __call__(self, value: Array) -> Tail:
        return Tail(self, value)

    def each(self, values: Array, *, sequential: bool = False) -> Stack:
        ops = self.ops
        return Stack(self, *(ops.one_by_one if sequential else ops.vmap)(self.run)(values))

    def value(self, value: Array) -> Stack:
        return Stack(self, self.draw(value), 0.0)

    def value_each(self, values: Array) -> Stack:
        return Stack(self, self.ops.vmap(self.draw)(values), 0.0)

    def by_coupling(self) -> Sequence[tuple[tuple[int, ...], Rest]]:
        groups: dict[tuple[int, ...], Group] = {}
        for i in self.group:
            axes = coupled_axes(self.equation, self.machine.plan.terms[i])
            groups[axes] = groups.get(axes, frozenset()) | {i}
        return [(axes, replace(self, group=group)) for axes, group in sorted(groups.items())]

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
        return align(self.ops, weight, term.dependence[self.equation], len(term.shape))


def align(ops: Ops, weight: Array, lanes: Lanes, ndim: int) -> Array:
    """Sum lane weights over joint lanes and lay the others along the axes of a term of that many axes."""
    joint = [i for i, axis in enumerate(lanes) if axis is None]
    kept = [(axis, i) for i, axis in enumerate(axis for axis in lanes if axis is not None)]
    summed = ops.sum(weight, joint) if joint else weight
    if len(kept) == ndim and all(axis == i for axis, i in kept):
        return summed
    shape = [1] * ndim
    for axis, i in kept:
        shape[axis] = summed.shape[i]
    return ops.reshape(ops.transpose(summed, [i for _, i in sorted(kept)]), shape)


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

    def mix(self, log_weights: Array) -> Stack:
        # A control variate has mean zero in every run whatever weight it gets, so its mean will do.
        return replace(self, added=self.added / log_weights.shape[0]).scale(log_weights).total()

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
