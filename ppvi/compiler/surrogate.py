"""The surrogate: a scalar whose value is the estimate and whose native gradient is the unbiased gradient.

The planned program runs in continuation-passing style. At a credited site the strategy is called with `k`, the rest of
the objective restricted to the terms that depend on the site, and returns their estimate; terms that do not depend on it
go on without it, so independent sites never multiply.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ppvi._ops import Array, Ops
from ppvi.compiler.continuation import Env, Group, Rest, draw_of
from ppvi.compiler.estimates import Estimates, Later, Stack, Tail
from ppvi.compiler.marginals import expectations
from ppvi.compiler.plan import Plan, initial_states
from ppvi.compiler.terms import Part
from ppvi.errors import StrategyError
from ppvi.ir import Atom, Equation, union


def surrogate(
    plan: Plan,
    ops: Ops,
    inputs: Sequence[Array],
    states: Mapping[str, Any] | None = None,
    again: bool = False,
) -> Array:
    """Run a planned program on its inputs: value the estimate, native gradient the gradient estimate.

    **Arguments**

    - `states`: of the strategies that have one, as from `initial_states`, which are used where none are given.
    - `again`: whether it is to be differentiated again (`ppvi.proofs.orders`). Then nothing is dropped for the sake of the
      first derivative's variance alone.
    """
    env = Env()
    env.values |= plan.program.constants
    env.values.update(zip(plan.program.inputs, inputs, strict=True))
    for equation in plan.fixed:
        env.run(equation)
    known = initial_states(plan, ops) if states is None else states
    machine = Machine(plan, ops, {}, {site: known[name] for name, site in plan.stateful.items()}, again)
    drawn = Env(env)
    machine.draw(plan.beside, drawn)
    constant, coefficients = linear_tail(plan, ops, drawn)
    machine = replace(machine, coefficients=coefficients)
    if plan.effects:
        machine.draw(plan.effects, Env(env))
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


@dataclass(frozen=True)
class Machine:
    """Runs stretches of a planned program."""

    plan: Plan
    ops: Ops
    coefficients: dict[Atom, Array]
    states: Mapping[Equation, Any]
    again: bool = False
    """Whether the surrogate is to be differentiated again."""
    done: int = 0
    """Equations that need not be run again, as a bit set."""

    def estimate(self, group: Group, env: Env, position: int) -> Estimates:
        """Estimate the terms of a group by what comes after a position, every site by its strategy."""
        schedule = self.schedule(group, position)
        terms: dict[int, Array] = {}
        control: Array = 0.0
        pending: list[tuple[Rest, Tail]] = []
        while schedule:
            position = (schedule & -schedule).bit_length() - 1
            schedule &= schedule - 1
            equation = self.plan.equations[position]
            joint = self.plan.joints.get(equation)
            if joint is not None and not joint.terms.isdisjoint(group):
                terms |= expectations(joint, self, group & joint.terms, env, position)
                group -= joint.terms
                schedule &= self.schedule(group, position)
            mine = group & self.plan.terms_of.get(equation, frozenset())
            if not mine:
                self.draw(1 << position, env)
                continue
            k = Rest(self, equation, mine, env, position)
            site = k.site
            outcome: Any = self.plan.choices[equation].strategy.estimate(site, k)
            if isinstance(outcome, Tail):
                env.values[equation.outputs[0]] = outcome.value
                env.drawn = env.drawn and outcome.value is site.value
                pending.append((k, outcome))
                continue
            outcome = outcome.force() if isinstance(outcome, Later) else outcome
            if not isinstance(outcome, Stack):
                choice = self.plan.choices[equation]
                raise StrategyError(
                    f"site {choice.info.name!r}: estimate of {choice.strategy} returned {type(outcome).__name__}; it must "
                    f"return what a run of k returned, weighed by scale, mix, times or +."
                )
            terms |= outcome.values
            control = control + outcome.added
            # Of an operation that has the site among its operands, other terms may need a result in which it plays no part.
            env.values[equation.outputs[0]] = site.value
            group -= k.group
            schedule &= self.schedule(group, position)
        terms |= {i: self.read(i, env) for i in group}
        for k, tail in reversed(pending):
            done = tail.finish(Stack(k, {i: terms[i] for i in k.group}, 0.0))
            terms |= done.values
            control = control + done.added
        return terms, control

    def draw(self, schedule: int, env: Env) -> None:
        """Run equations with every site simply drawn."""
        while schedule:
            index = (schedule & -schedule).bit_length() - 1
            schedule &= schedule - 1
            equation = self.plan.equations[index]
            if equation in self.plan.terms_of:
                env.values[equation.outputs[0]] = draw_of(self.plan.choices[equation], env, self.ops).value
            else:
                env.run(equation)

    def plain(self, group: Group, env: Env) -> dict[int, Array]:
        """The terms of a group, where all has run that depends on no site which is enumerated together with others."""
        found: dict[int, Array] = {}
        for i, equation in enumerate(self.plan.equations[self.plan.late :], self.plan.late):
            joint = self.plan.joints.get(equation)
            if joint is not None and not joint.terms.isdisjoint(group):
                found |= expectations(joint, self, group & joint.terms, env, i)
                group -= joint.terms
        return found | {i: self.read(i, env) for i in group}

    def schedule(self, group: Group, position: int) -> int:
        """The equations after a position that these terms need."""
        return union(self.plan.needs[i] for i in group) & (-1 << (position + 1)) & ~self.done

    def without(self, done: int) -> Machine:
        """One that does not run these equations again."""
        return replace(self, done=self.done | done)

    def read(self, i: int, env: Env) -> Array:
        """A term from its parts."""
        return sum(self.weighed(part, env[part.atom]) for part in self.plan.terms[i].parts)

    def weighed(self, part: Part, value: Array) -> Array:
        """A part of a term as the objective has it, or a stack of what it is at several values."""
        if part.own_log_prob and not self.again:  # whose derivative has mean zero
            value = self.ops.stop_gradient(value)
        coefficient = self.coefficients[part.atom]
        # What the objective leaves out may be infinite or NaN, and must not come back as zero times that. Any other value
        # stays, since a coefficient that is zero may have a derivative.
        return coefficient * self.ops.where((coefficient != 0) | (abs(value) < math.inf), value, 0.0)
