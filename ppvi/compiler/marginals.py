"""Sums over finite sites together: each term is weighed by the probabilities of what it is a function of.

    E_q[f] = sum_s f(s) q(z_S = s),    q(z_S = s) = d/d e(s) log sum_z q(z) exp(e(z_S))  at e = 0

The log of the sum is taken by variable elimination; of a Markov chain it is the backward recursion, and its derivative the
forward one (Baum et al. 1970; Darwiche 2003). Sites that do not depend on one another have the product of their probabilities.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from ppvi._ops import Array, Ops
from ppvi.compiler.assignments import Alike
from ppvi.compiler.continuation import Env, Group
from ppvi.compiler.elimination import Axis, Factor, Label, Work, aligned, components, eliminate
from ppvi.compiler.factors import Factors, Part, live
from ppvi.compiler.joint import Joint, own_part
from ppvi.compiler.plan import Plan
from ppvi.compiler.terms import Part as TermPart
from ppvi.ir import Equation
from ppvi.strategies.zero import counted


class Machine(Protocol):
    """What is needed of whoever runs the program; `ppvi.compiler.surrogate.Machine`."""

    @property
    def plan(self) -> Plan: ...

    @property
    def ops(self) -> Ops: ...

    def schedule(self, group: Group, position: int) -> int: ...

    def weighed(self, part: TermPart, value: Array) -> Array: ...


def expectations(joint: Joint, machine: Machine, group: Group, env: Env, position: int) -> dict[int, Array]:
    """The terms of a group from a position on, with these sites and all that depends on them summed out."""
    plan, ops, schedule = machine.plan, machine.ops, machine.schedule(group, position - 1)
    after = [equation for i, equation in enumerate(plan.equations) if schedule >> i & 1]
    later = Env(env, {var for equation in after for var in equation.outputs})
    values = {
        site: ops.moveaxis(env[site.inputs[place]], site.role.mapped, 0)
        for site, candidate in joint.candidates.items()
        if (place := candidate.place("values")) is not None
    }
    own = [own_part(site, candidate) for site, candidate in joint.candidates.items()]
    terms = {part.atom: Part(f"term {i}", "", part.atom) for i in group for part in plan.terms[i].parts}
    parts = [*own, *terms.values()]
    equations = [_unmarked(equation) for equation in live(after, parts, values, later)]
    apart = {site: frozenset[int]() for site in values}
    staged = Factors(equations, later, values, parts, apart, ops, Alike(equations))
    given = [factor for i in range(len(own)) for factor in staged.of(i)]
    tables = {atom: _table(staged, i) for i, atom in enumerate(terms, len(own))}
    probabilities = _probabilities(staged, given, tables.values())

    def mean(part: TermPart) -> Array:
        table = tables[part.atom]
        value = machine.weighed(part, table.array)
        if not table.labels:
            return value
        weights = [aligned(ops, x, table.labels, table.axes) for x in probabilities(table)]
        value = counted(ops, value, functools.reduce(operator.mul, weights))
        return ops.broadcast(ops.sum(value, range(len(table.labels))), part.atom.shape)

    return {i: functools.reduce(operator.add, map(mean, plan.terms[i].parts)) for i in group}


def _unmarked(equation: Equation) -> Equation:
    """A site that goes along the path of its draw, as the operation that it is."""
    if not equation.is_site:
        return equation
    axes = tuple(range(len(equation.inputs[0].shape)))
    return replace(equation, inputs=equation.inputs[:1], run=lambda x: [x], flow=lambda: [[axes]], role=None)


def _table(staged: Factors, i: int) -> Factor:
    """What a part of a term is a function of, and it at all values of that."""
    (places, array), shape = staged.found[i], staged.parts[i].atom.shape
    labels, along = staged.placed(places, {n: n for n in range(len(shape))})
    return Factor(array, tuple(labels), tuple(along.get(n, ("alone", n)) for n in range(len(shape))))


def _probabilities(
    staged: Factors, given: Sequence[Factor], tables: Iterable[Factor]
) -> Callable[[Factor], list[Factor]]:
    """The probabilities of the variables of a table, one factor for those that depend on one another."""
    ops, of = staged.ops, {}
    for number, group in enumerate(components(given, set(staged.variables.values()))):
        of |= {label.variable: number for factor in group for label in factor.labels}
    asked: dict[tuple[frozenset[Label], frozenset[Axis]], tuple[tuple[Label, ...], tuple[Axis, ...], list[int]]] = {}

    def keys(table: Factor) -> list[tuple[frozenset[Label], frozenset[Axis]]]:
        groups: dict[int, list[Label]] = {}
        for label in table.labels:
            groups.setdefault(of[label.variable], []).append(label)
        found = []
        for labels in groups.values():
            axes = frozenset(axis for label in labels for axis in label.variable.axes)
            key = frozenset(labels), axes
            values = [table.array.shape[table.labels.index(label)] for label in labels]
            order = tuple(axis for axis in table.axes if axis in axes)
            asked.setdefault(key, (tuple(labels), order, [*values, *(staged.sizes[axis] for axis in order)]))
            found.append(key)
        return found

    of_table = {table: keys(table) for table in tables}

    def log_sum(*shifts: Array) -> Array:
        moved = [Factor(x, labels, axes) for x, (labels, axes, _) in zip(shifts, asked.values(), strict=True)]
        found = eliminate(ops, [*given, *moved], Work(staged.sizes))
        return sum(ops.sum(x.array, range(len(x.array.shape))) for x in found)

    dtype = str(given[0].array.dtype)
    _, found = ops.linear_coefficients(log_sum, [(shape, dtype) for *_, shape in asked.values()])
    arrays = dict(zip(asked, found, strict=True))
    return lambda table: [Factor(arrays[key], *asked[key][:2]) for key in of_table[table]]
