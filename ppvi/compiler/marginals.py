"""Sums over finite sites together: each term is weighed by the probabilities of what it is a function of.

    E_q[f] = sum_s f(s) q(z_S = s),    q(z_S = s) = d/d e(s) log sum_z q(z) exp(e(z_S))  at e = 0

The log of the sum is taken by variable elimination; of a Markov chain it is the backward recursion, and its derivative the
forward one (Baum et al. 1970; Darwiche 2003). Sites that do not depend on one another have the product of their probabilities.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ppvi._ops import Array
from ppvi.compiler.assignments import Alike
from ppvi.compiler.choose import first_candidate
from ppvi.compiler.continuation import Env, Group, Machine
from ppvi.compiler.elimination import Axis, Factor, Label, Variable, Work, aligned, components, eliminate
from ppvi.compiler.factors import Factors, Part, live
from ppvi.compiler.joint import Joint, operand, own_part
from ppvi.compiler.terms import Part as TermPart
from ppvi.ir import Equation
from ppvi.strategies.zero import counted


def expectations(joint: Joint, machine: Machine, group: Group, env: Env, position: int) -> dict[int, Array]:
    """The terms of a group with these sites, and all that depends on them, summed out.

    **Arguments**

    - `position`: of the first of them. All before it has been run in `env`; after it no others are credited.
    """
    plan, ops, schedule = machine.plan, machine.ops, machine.schedule(group, position - 1)
    after = [equation for i, equation in enumerate(plan.equations) if schedule >> i & 1]
    later = Env(env, {var for equation in after for var in equation.outputs})
    # The probabilities of sites on which none of these terms depends have the sum 1.
    behind = {site for i in group for site in plan.terms[i].dependence}
    summed = {site: candidate for site, candidate in joint.candidates.items() if site in behind}
    values = {
        site: ops.moveaxis(env[operand(site, candidate, "values")], site.role.mapped, 0)
        for site, candidate in summed.items()
    }
    own = [own_part(site, candidate) for site, candidate in summed.items()]
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
        weights = [aligned(ops, x, table.labels, table.axes) for x in probabilities[table]]
        value = counted(ops, value, functools.reduce(operator.mul, weights))
        return ops.broadcast(ops.sum(value, range(len(table.labels))), part.atom.shape)

    return {i: functools.reduce(operator.add, map(mean, plan.terms[i].parts)) for i in group}


def _unmarked(equation: Equation) -> Equation:
    """A site that goes along the path of its draw, as the operation that it is."""
    if not equation.is_site:
        return equation
    assert first_candidate(equation).strategy.route == "path"
    axes = tuple(range(len(equation.inputs[0].shape)))
    return replace(equation, inputs=equation.inputs[:1], run=lambda x: [x], flow=lambda: [[axes]], role=None)


def _table(staged: Factors, i: int) -> Factor:
    """What a part of a term is a function of, and it at all values of that."""
    (places, array), shape = staged.found[i], staged.parts[i].atom.shape
    labels, along = staged.placed(places, {n: n for n in range(len(shape))})
    return Factor(array, tuple(labels), tuple(along.get(n, ("alone", n)) for n in range(len(shape))))


class Marginal(NamedTuple):
    """Variables whose probabilities are wanted, along these axes."""

    labels: tuple[Label, ...]
    axes: tuple[Axis, ...]
    shape: tuple[int, ...]


def _probabilities(staged: Factors, given: Sequence[Factor], tables: Iterable[Factor]) -> dict[Factor, list[Factor]]:
    """Of each table the probabilities of its variables, one factor for those that depend on one another."""
    ops, group_of = staged.ops, dict[Variable, int]()
    for number, group in enumerate(components(given, set(staged.variables.values()))):
        group_of |= {label.variable: number for factor in group for label in factor.labels}
    wanted = {table: _wanted(table, group_of, staged.sizes) for table in tables}
    asked = list(dict.fromkeys(one for several in wanted.values() for one in several))

    def log_sum(*shifts: Array) -> Array:
        moved = [Factor(x, one.labels, one.axes) for x, one in zip(shifts, asked, strict=True)]
        found = eliminate(ops, [*given, *moved], Work(staged.sizes))
        return sum(ops.sum(x.array, range(len(x.array.shape))) for x in found)

    dtype = str(given[0].array.dtype)
    _, arrays = ops.linear_coefficients(log_sum, [(one.shape, dtype) for one in asked])
    found = {one: Factor(x, one.labels, one.axes) for one, x in zip(asked, arrays, strict=True)}
    return {table: [found[one] for one in several] for table, several in wanted.items()}


def _wanted(table: Factor, group_of: Mapping[Variable, int], sizes: Mapping[Axis, int]) -> list[Marginal]:
    values = dict(zip(table.labels, table.array.shape, strict=False))
    found = []
    for number in dict.fromkeys(group_of[label.variable] for label in table.labels):
        labels = sorted((x for x in table.labels if group_of[x.variable] == number), key=lambda x: id(x.variable))
        inside = {axis for label in labels for axis in label.variable.axes}
        axes = sorted(inside, key=list(sizes).index)
        shape = (*(values[label] for label in labels), *(sizes[axis] for axis in axes))
        found.append(Marginal(tuple(labels), tuple(axes), shape))
    return found
