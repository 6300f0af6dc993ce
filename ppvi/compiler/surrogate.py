"""The surrogate: a scalar whose value is the estimate and whose native gradient is the unbiased gradient.

The planned program runs in continuation-passing style. At a credited site the strategy is called with `k`, the rest of
the objective restricted to the terms that depend on the site, and returns their estimate; terms that do not depend on
it go on without it, so independent sites never multiply.

`k(value)` is a *tail call*: nothing runs until the strategy returns it, with whatever weights it has attached, and then
the same loop goes on to the next site. A strategy that needs one run costs no recursion and no second trace of the
program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ppvi.compiler.choose import Choice, coupled_axes
from ppvi.compiler.dependence import Lanes, site_lanes
from ppvi.compiler.ir import Atom, Equation, Literal, Var, site_info
from ppvi.compiler.plan import Plan
from ppvi.ops import Array, Ops
from ppvi.strategies import Draw, Site

Group = frozenset[int]
"""Indices of terms that are estimated together."""


def surrogate(plan: Plan, ops: Ops, inputs: Sequence[Array]) -> Array:
    """Run a planned program on its inputs: value the estimate, native gradient the gradient estimate."""
    env = Env()
    env.values |= plan.program.constants
    env.values.update(zip(plan.program.inputs, inputs, strict=True))
    for equation in plan.fixed:
        env.run(equation)
    constant, coefficients = linear_tail(plan, ops, env)
    machine = Machine(plan, ops, coefficients)
    if plan.effects:
        machine.draw(plan.effects, Env(env), -1)
    terms, control = machine.estimate(frozenset(range(len(plan.terms))), env, -1)
    return sum((ops.sum(term, range(len(term.shape))) for term in terms.values()), start=constant + control)


def linear_tail(plan: Plan, ops: Ops, env: Env) -> tuple[Array, dict[Atom, Array]]:
    """The objective's constant, and its coefficient in each part of each term."""
    parts = [part.atom for term in plan.terms for part in term.parts]

    def tail(*values: Array) -> Array:
        inner = Env(env)
        inner.values.update(zip(parts, values, strict=True))
        for equation in plan.tail:
            inner.run(equation)
        return inner[plan.program.output]

    constant, coefficients = ops.linear_coefficients(tail, [(part.shape, part.dtype) for part in parts])
    return constant, dict(zip(parts, coefficients, strict=True))


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


Estimates = tuple[dict[int, Array], Array]
"""Estimates of terms by index, and the sum of control variates."""


@dataclass(frozen=True)
class Machine:
    """Runs stretches of a planned program."""

    plan: Plan
    ops: Ops
    coefficients: dict[Atom, Array]

    def estimate(self, group: Group, env: Env, position: int) -> Estimates:
        """Estimate the terms of a group by what comes after a position, every site by its strategy."""
        schedule = self._schedule(group, position)
        terms: dict[int, Array] = {}
        control: Array = 0.0
        pending: list[Tail] = []
        while schedule:
            position = (schedule & -schedule).bit_length() - 1
            schedule &= schedule - 1
            equation = self.plan.equations[position]
            if equation not in self.plan.terms_of:
                env.run(equation)
                continue
            k = Rest(self, equation, group & self.plan.terms_of[equation], env, position)
            outcome: Any = self.plan.choices[equation].strategy.estimate(k.site, k)
            if isinstance(outcome, Tail):
                env.values[equation.outputs[0]] = outcome.value
                pending.append(outcome)
                continue
            terms |= outcome.values
            control = control + outcome.added
            group -= k.group
            schedule &= self._schedule(group, position)
        terms |= {i: self.read(i, env) for i in group}
        for tail in reversed(pending):
            mine = {i: terms[i] for i in tail.k.group}
            done = tail.finish(Stack(tail.k, mine, 0.0))
            terms |= done.values
            control = control + done.added
        return terms, control

    def draw(self, schedule: int, env: Env, position: int) -> None:
        """Run equations after a position with every site simply drawn."""
        schedule &= -1 << (position + 1)
        while schedule:
            index = (schedule & -schedule).bit_length() - 1
            schedule &= schedule - 1
            equation = self.plan.equations[index]
            if equation in self.plan.terms_of:
                env.values[equation.outputs[0]] = draw_of(self.plan.choices[equation], env, self.ops).value
            else:
                env.run(equation)

    def needs(self, group: Group) -> int:
        total = 0
        for i in group:
            total |= self.plan.needs[i]
        return total

    def _schedule(self, group: Group, position: int) -> int:
        return self.needs(group) & (-1 << (position + 1))

    def read(self, i: int, env: Env) -> Array:
        """A term from its parts."""
        total: Array = 0.0
        for part in self.plan.terms[i].parts:
            value = self.ops.stop_gradient(env[part.atom]) if part.own_log_prob else env[part.atom]
            coefficient = self.coefficients[part.atom]
            # What the objective leaves out may be infinite or NaN, and must not come back as zero times that.
            total = total + coefficient * self.ops.where(coefficient == 0, 0.0, value)
        return total


def draw_of(choice: Choice, env: Env, ops: Ops) -> Draw:
    """The draw of a site's strategy: stacks, which vectorisation has moved inwards, with their stack axis in front."""
    fields = [None if i is None else env[choice.equation.inputs[i]] for i in choice.candidate.fields]
    draw = Draw(*fields)
    mapped = choice.equation.mapped
    if not mapped:
        return draw
    stacks = {name: x for name in ("values", "log_probs") if (x := getattr(draw, name)) is not None}
    return draw._replace(**{name: ops.moveaxis(x, mapped, 0) for name, x in stacks.items()})


@dataclass(frozen=True)
class Rest:
    """`k`: the rest of the objective after a site, for a group of the terms that depend on it."""

    machine: Machine
    equation: Equation
    group: Group
    env: Env
    position: int

    @property
    def site(self) -> Site:
        choice = self.machine.plan.choices[self.equation]
        draw = draw_of(choice, self.env, self.machine.ops)
        return Site(site_info(self.equation).name, site_lanes(self.equation), draw, self.machine.ops)

    def __call__(self, value: Array) -> Tail:
        return Tail(self, value)

    def each(self, values: Array) -> Stack:
        return Stack(self, *self.machine.ops.vmap(self.run)(values))

    def value(self, value: Array) -> Stack:
        return Stack(self, self.draw(value), 0.0)

    def value_each(self, values: Array) -> Stack:
        return Stack(self, self.machine.ops.vmap(self.draw)(values), 0.0)

    def by_coupling(self) -> Sequence[tuple[tuple[int, ...], Rest]]:
        groups: dict[tuple[int, ...], Group] = {}
        for i in self.group:
            axes = coupled_axes(self.equation, self.machine.plan.terms[i])
            groups[axes] = groups.get(axes, frozenset()) | {i}
        return [(axes, replace(self, group=group)) for axes, group in sorted(groups.items())]

    def run(self, value: Array) -> Estimates:
        """The differentiable estimate, now."""
        inner = Env(self.env)
        inner.values[self.equation.outputs[0]] = value
        return self.machine.estimate(self.group, inner, self.position)

    def draw(self, value: Array) -> dict[int, Array]:
        """The terms' values with later sites simply drawn."""
        ops = self.machine.ops
        inner = Detached(self.env, ops)
        inner.values[self.equation.outputs[0]] = ops.stop_gradient(value)
        self.machine.draw(self.machine.needs(self.group), inner, self.position)
        return {i: ops.stop_gradient(self.machine.read(i, inner)) for i in self.group}

    def along(self, i: int, weight: Array) -> Array:
        """A weight of the site's lanes laid along a term: summed over the lanes that the term couples."""
        term = self.machine.plan.terms[i]
        return align(self.machine.ops, weight, term.dependence[self.equation], len(term.shape))


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

    k: Rest
    values: dict[int, Array]
    added: Array

    def scale(self, log_weight: Array) -> Stack:
        return self._weigh(log_weight, self.k.machine.ops.exp)

    def times(self, weight: Array) -> Stack:
        return self._weigh(weight, lambda w: w)

    def mix(self, log_weights: Array) -> Stack:
        return self.scale(log_weights).total()

    def total(self) -> Stack:
        # A control variate has mean zero in every run whatever weight it gets, so its mean will do.
        ops = self.k.machine.ops
        added = self.added if isinstance(self.added, float) else ops.mean(self.added, 0)
        return replace(self, values={i: ops.sum(value, [0]) for i, value in self.values.items()}, added=added)

    def control(self, x: Array) -> Stack:
        return replace(self, added=self.added + self.k.machine.ops.sum(x, range(len(x.shape))))

    def __add__(self, other: Any) -> Stack:
        other = other.force()
        both = {i: self.values[i] + other.values[i] if i in self.values else x for i, x in other.values.items()}
        return replace(self, values=self.values | both, added=self.added + other.added)

    def force(self) -> Stack:
        return self

    def _weigh(self, weight: Array, function: Callable[[Array], Array]) -> Stack:
        stacked = len(weight.shape) > len(site_lanes(self.k.equation))

        def one(weight: Array, values: dict[int, Array]) -> dict[int, Array]:
            return {i: value * function(self.k.along(i, weight)) for i, value in values.items()}

        run = self.k.machine.ops.vmap(one) if stacked else one
        return replace(self, values=run(weight, self.values))


@dataclass(frozen=True)
class Tail:
    """One run of the rest that has not happened yet, and what is to be done to its terms."""

    k: Rest
    value: Array
    steps: tuple[Callable[[Stack], Stack], ...] = ()

    def then(self, step: Callable[[Stack], Stack]) -> Tail:
        return replace(self, steps=(*self.steps, step))

    def scale(self, log_weight: Array) -> Tail:
        return self.then(lambda terms: terms.scale(log_weight))

    def times(self, weight: Array) -> Tail:
        return self.then(lambda terms: terms.times(weight))

    def control(self, x: Array) -> Tail:
        return self.then(lambda terms: terms.control(x))

    def __add__(self, other: Any) -> Tail:
        return self.then(lambda terms: terms + other)

    def force(self) -> Stack:
        return self.finish(Stack(self.k, *self.k.run(self.value)))

    def finish(self, terms: Stack) -> Stack:
        for step in self.steps:
            terms = step(terms)
        return terms
