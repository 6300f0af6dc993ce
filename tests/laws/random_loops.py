"""Random loops and branches: sites that follow one another, in NumPyro's and JAX's control flow, under objectives that couple rounds.

A `Loop` is plain data, and its body one function, which is read twice: by the library's control flow, under `sample`, and round after
round by a Python loop over every value of every site, which knows nothing of lanes, carries or strategies.
"""

from __future__ import annotations

import itertools
import operator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.contrib.control_flow
import numpyro.distributions as dist
from hypothesis import strategies as st
from jax import lax

import ppvi
from ppvi import Enumerate, LeaveOneOut, LocalExpectation, MeasureValued, Reinforce
from ppvi.strategies import ARM, DisARM, StochasticPerturbation, SumAndSample, UnorderedSet
from tests.laws.cases import Case, nothing

ZOO = (
    Enumerate(), Enumerate(sequential=True), LocalExpectation(), MeasureValued(), UnorderedSet(2), SumAndSample(), StochasticPerturbation(),
    ARM(), DisARM(), Reinforce(), LeaveOneOut(2), LeaveOneOut(3),
)  # fmt: skip
OF_BOTH = ("elbo", "weight")
"""Objectives of the model too. A weight is 0, and a bound -inf, where the model takes other branches than its guide."""
MOST_DRAWS = 7
"""The most draws of a program, which takes all their values."""


@dataclass(frozen=True)
class Body:
    """A round: expressions over the carry, the round's number from data, parameters, and the sites before."""

    logits: tuple[Any, ...]
    """Of each site."""
    carry: Any
    out: Any
    branch: Any = None
    """An expression; the last site is drawn in a branch, where this is positive. None for no branch."""


@dataclass(frozen=True)
class Loop:
    rounds: int
    how: str
    """The control flow around the body."""
    reverse: bool
    guide: Body
    model: Body
    objective: str
    strategies: tuple[Any, ...]
    data: tuple[float, ...]
    params: tuple[float, ...]


# A body, read with any way of drawing -------------------------------------------------------------------------------------

UNARY = {"tanh": jnp.tanh, "square": lambda x: 0.5 * x**2, "half": lambda x: 0.5 * x, "neg": lambda x: -x}
BINARY = {"add": operator.add, "mul": operator.mul, "max": jnp.maximum}


def evaluate(expression, scope):
    match expression:
        case (name, x, y) if name in BINARY:
            return BINARY[name](evaluate(x, scope), evaluate(y, scope))
        case (name, x) if name in UNARY:
            return UNARY[name](evaluate(x, scope))
    return scope[expression]


def run_round(body, carry, x, a, draw, cond):
    """The next carry, and the round's output. `draw(site, logits)` is a value, `cond(test, value)` that of a branch or 0."""
    scope: dict[Any, Any] = {"carry": carry, "x": x} | {("a", i): a[i] for i in range(3)}
    for i, expression in enumerate(body.logits):
        logits = evaluate(expression, scope)
        if body.branch is not None and i == len(body.logits) - 1:
            test = evaluate(body.branch, {**scope, ("site", i): 0.0}) > 0
            scope["site", i] = cond(test, lambda logits=logits, i=i: draw(i, logits))
        else:
            scope["site", i] = draw(i, logits)
    return jnp.tanh(evaluate(body.carry, scope)), evaluate(body.out, scope)


def couple(loop, stacks, outs, carry, phi):
    """An objective that couples rounds: by what is stacked, by what is handed on, or by both."""
    total = phi * jnp.sum(stacks[0]) ** 2 + jnp.sum(stacks[-1][1:] * stacks[0][:-1])
    handed_on = carry**2 if outs is None else jnp.sum(outs) * phi + carry**2 + jnp.max(outs)
    return {"stacked": total, "returned": handed_on, "both": total * (1 + handed_on)}[loop.objective]


# By the library ------------------------------------------------------------------------------------------------------------


def program_of(loop, body, observed):
    def draw(i, logits):
        return 1.0 * numpyro.sample(f"z{i}", dist.Bernoulli(logits=logits))

    def cond(test, value):
        return lax.cond(test, lambda _: value(), lambda _: 0.0 * jnp.zeros(()), None)

    def program():
        a, start = numpyro.param("a"), 0.1 * jnp.ones(())

        def step(carry, x):
            carry, out = run_round(body, carry, x, a, draw, cond)
            if observed:
                numpyro.sample("y", dist.Normal(out, 1.0), obs=x)
            return carry, out

        return CONTROL[loop.how](step, start, jnp.asarray(loop.data[: loop.rounds]), loop)

    return program


def _fori(step, start, xs, loop):
    order = jnp.arange(loop.rounds)[::-1] if loop.reverse else jnp.arange(loop.rounds)
    return lax.fori_loop(0, loop.rounds, lambda i, carry: step(carry, xs[order[i]])[0], start), None


def _nested(step, start, xs, loop):
    """A loop of one round around it."""
    carry, outs = lax.scan(lambda carry, xs: lax.scan(step, carry, xs, reverse=loop.reverse), start, xs[None])
    return carry, outs[0]


CONTROL = {
    "scan": lambda step, start, xs, loop: lax.scan(step, start, xs, reverse=loop.reverse),
    "numpyro scan": lambda step, start, xs, loop: numpyro.contrib.control_flow.scan(step, start, xs, reverse=loop.reverse),
    "checkpoint": lambda step, start, xs, loop: lax.scan(jax.checkpoint(step), start, xs, reverse=loop.reverse),
    "jit": lambda step, start, xs, loop: jax.jit(lambda xs: lax.scan(step, start, xs, reverse=loop.reverse))(xs),
    "nested": _nested,
    "fori": _fori,
}  # fmt: skip


def weight(p, q):
    z = q.simulate()
    return jnp.exp(p.log_density(z) - z.log_density)


def objective_of(loop):
    if loop.objective == "elbo":
        return ppvi.objectives.elbo
    if loop.objective == "weight":
        return weight

    def objective(p, q):
        z = q.simulate()
        carry, outs = z.returned
        stacks = [1.0 * z[f"z{i}"].reshape(loop.rounds) for i in range(len(loop.guide.logits))]
        if loop.how == "fori" and loop.reverse:
            stacks = [stack[::-1] for stack in stacks]
        return couple(loop, stacks, outs, carry, numpyro.param("phi"))

    return objective


# By a Python loop over all values -----------------------------------------------------------------------------------------


def unrolled(loop, body, values, params, observed):
    """Log probability of the values of the sites, `(rounds, sites)`; carry, outputs, the values as they are seen, and whether
    the last site is drawn, `(rounds,)`."""
    log_prob, carry, outs, seen = 0.0, 0.1, [0.0] * loop.rounds, [[0.0] * len(body.logits) for _ in range(loop.rounds)]
    drawn: list[Any] = [True] * loop.rounds
    rounds = range(loop.rounds)
    for t in reversed(rounds) if loop.reverse else rounds:
        here: dict[int, Any] = {}

        def draw(i, logits, t=t, here=here):
            here[i] = jax.nn.log_sigmoid(jnp.where(values[t, i] > 0, logits, -logits))
            return values[t, i]

        def cond(test, value, t=t, here=here):
            value, last, drawn[t] = value(), len(body.logits) - 1, test
            # A site that is passed over is 0, once: its other value has no probability.
            here[last] = jnp.where(test, here[last], -1e9 * values[t, last])
            return jnp.where(test, value, 0.0)

        carry, outs[t] = run_round(body, carry, loop.data[t], params["a"], draw, cond)
        log_prob += sum(here.values())
        if observed:
            log_prob += -0.5 * (loop.data[t] - outs[t]) ** 2 - 0.5 * np.log(2 * np.pi)
        seen[t] = [values[t, i] for i in range(len(body.logits))]
    seen = jnp.stack([jnp.stack(row) for row in seen])
    return (
        log_prob,
        carry,
        jnp.stack([jnp.asarray(out) for out in outs]),
        seen,
        jnp.stack([jnp.asarray(x) for x in drawn]),
    )


def exact_of(loop):
    sites = len(loop.guide.logits)
    table = np.array(list(itertools.product((0.0, 1.0), repeat=loop.rounds * sites))).reshape(-1, loop.rounds, sites)

    def one(values, params):
        log_q, carry, outs, seen, drawn = unrolled(loop, loop.guide, values, params, observed=False)
        if loop.objective in OF_BOTH:
            log_p, *_, theirs = unrolled(loop, loop.model, values, params, observed=True)
            possible = (drawn == theirs).all() & (log_q > -1e8)
            ratio = jnp.where(possible, log_p - log_q, 0.0)
            value = ratio if loop.objective == "elbo" else jnp.where(possible, jnp.exp(ratio), 0.0)
        else:
            stacks = [seen[:, i] for i in range(sites)]
            value = couple(loop, stacks, None if loop.how == "fori" else outs, carry, params["phi"])
        return jnp.exp(log_q) * value

    return lambda params: jax.vmap(lambda values: one(values, params))(jnp.asarray(table)).sum()


def case_of(loop, n):
    a, phi = np.array(loop.params[:3]), np.array(loop.params[3])
    params = {"a": a} if loop.objective in OF_BOTH else {"a": a, "phi": phi}
    model = program_of(loop, loop.model, observed=True) if loop.objective in OF_BOTH else nothing
    guide = program_of(loop, loop.guide, observed=False)
    return Case("a random loop", objective_of(loop), model, guide, params, exact_of(loop), (), n=n)


# How loops are drawn ------------------------------------------------------------------------------------------------------

DATA, PARAMS = [-0.9, -0.2, 0.5, 1.1], [-0.8, -0.3, 0.4, 0.7]
"""No number in common: the greater of two that are equal in one precision only has two derivatives."""


def expressions(leaves):
    return st.recursive(
        st.sampled_from(leaves),
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(sorted(UNARY)), inner), st.tuples(st.sampled_from(sorted(BINARY)), inner, inner)
        ),
        max_leaves=3,
    )


def leaves(sites):
    return [
        "carry",
        "carry",
        "x",
        *(("a", i) for i in range(3)),
        *(("site", i) for i in range(sites) for _ in range(2)),
    ]


@st.composite
def bodies(draw, sites):
    # A guide whose sites forget what was drawn before, as mean-field guides do, is as frequent as one that follows it.
    forgets = draw(st.booleans())
    known = [[leaf for leaf in leaves(i) if not (forgets and leaf == "carry")] for i in range(sites)]
    logits = tuple(draw(expressions(known[i])) for i in range(sites))
    return Body(logits, draw(expressions(leaves(sites))), draw(expressions(leaves(sites))))


@st.composite
def loops(draw):
    sites = draw(st.sampled_from([1, 1, 2]))
    how = draw(st.sampled_from(sorted(CONTROL)))
    objective = draw(st.sampled_from(["stacked", "returned", "both", *["elbo", *OF_BOTH] * (how != "fori")]))
    # A carry of the model is not the guide's: a bound is of choices that both make.
    tested = [leaf for leaf in ["x", *leaves(sites - 1)] if not (leaf == "carry" and objective == "elbo")]
    branch, other = (draw(st.one_of(st.none(), st.none(), expressions(tested))) for _ in range(2))
    bodies_of = (draw(bodies(sites)) for _ in range(2))
    guide, model = (
        replace(body, branch=x)
        for body, x in zip(bodies_of, [branch, other if objective == "weight" else branch], strict=True)
    )
    return Loop(
        rounds=draw(st.integers(2, MOST_DRAWS // sites)),
        how=how,
        reverse=draw(st.booleans()),
        guide=guide,
        model=model,
        objective=objective,
        strategies=tuple(draw(st.sampled_from(ZOO)) for _ in range(sites)),
        data=tuple(draw(st.sampled_from(DATA)) for _ in range(MOST_DRAWS)),
        params=tuple(draw(st.sampled_from(PARAMS)) for _ in range(4)),
    )  # fmt: skip
