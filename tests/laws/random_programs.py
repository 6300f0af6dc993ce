"""Random finite programs: sites that depend on each other, lanes, couplings, parameters everywhere, a strategy for each site.

A `Spec` is plain data. It is read twice: as a NumPyro guide with an objective, whose estimator is run on every choice of its
own randomness (`exact.py`), and as a sum over every joint value of the sites, written here, which knows nothing of strategies.
"""

from __future__ import annotations

import itertools
import operator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from hypothesis import strategies as st

import ppvi
from ppvi import Enumerate, LeaveOneOut, LocalExpectation, MeasureValued, Reinforce
from ppvi.strategies import DisARM, StochasticPerturbation, SumAndSample, UnorderedSet
from tests.engines import dist, nn, ppl, xp

LANES = 2
MOST_SITES = 6
ZOO = {
    Enumerate(): (1, 2), Enumerate(sequential=True): (1, 2), SumAndSample(): (2, 2), Reinforce(): (1, 1), Reinforce(0.7): (1, 1),
    LocalExpectation(): (1, 3), DisARM(): (1.6, 3), MeasureValued(): (1, 3), LeaveOneOut(2): (2, 2), UnorderedSet(2): (2, 3),
    StochasticPerturbation(): (1, 3),
}  # fmt: skip
"""Strategies, each with its draws of a lane and the runs of later sites that it makes, in its own randomness."""

MOST_RUNS = 6
"""The most runs of a site that sites before it may make."""

LIMIT = 10.0
"""The most binary choices that an estimator may make if every site is coupled with every other, which few are."""


@dataclass(frozen=True)
class SiteSpec:
    values: int
    """Size of the support of a lane."""
    lanes: bool
    parents: tuple[tuple[int, float], ...]
    """Sites before it and the factors with which they enter its logits."""
    strategy: Any
    barred: bool = False
    """Whether its last value has probability zero, where it has a parent if that is 0."""


@dataclass(frozen=True)
class Spec:
    sites: tuple[SiteSpec, ...]
    terms: tuple[Any, ...]
    """Expressions: nested tuples of an operation and its operands."""
    density: float
    """The factor of the guide's log density in the objective."""
    particles: int
    """Runs, whose values are combined by `combine`; 1 for none."""
    combine: str
    params: tuple[float, ...]


# Two readings of a spec ---------------------------------------------------------------------------------------------------

UNARY = {
    "square": lambda x: x**2, "exp": lambda x: xp.exp(0.3 * x), "tanh": lambda x: xp.tanh(x), "step": lambda x: xp.where(x > 0.6, x, -0.5),
    "sum": lambda x: xp.sum(x), "prod": lambda x: xp.prod(x + 0.4), "logsumexp": lambda x: nn.logsumexp(xp.atleast_1d(x)),
    "max": lambda x: xp.max(x), "first": lambda x: x.reshape(-1)[0], "flip": lambda x: xp.flip(x) if x.ndim else x,
}  # fmt: skip
BINARY = {
    "add": operator.add, "mul": operator.mul, "min": lambda x, y: xp.minimum(x, y), "max2": lambda x, y: xp.maximum(x, y),
}  # fmt: skip
COMBINE = {
    "mean": lambda x: xp.mean(x), "logmeanexp": lambda x: nn.logsumexp(x) - xp.log(len(x)), "product": lambda x: xp.prod(x),
}  # fmt: skip


def evaluate(expression, values, phi):
    """An expression over the sites' values, each a scalar or a vector of lanes, and the parameters phi."""
    match expression:
        case ("site", i):
            return values[i] * 1.0
        case ("phi", i):
            return phi[i]
        case (name, x):
            return UNARY[name](evaluate(x, values, phi))
        case (name, x, y):
            return BINARY[name](evaluate(x, values, phi), evaluate(y, values, phi))
    raise AssertionError(expression)


def logits(site, i, values, a):
    """`(*lanes, values)`: parents with lanes enter lane by lane, into a site without lanes by their sum."""
    lanes = (LANES,) if site.lanes else ()
    slope = a[i] + sum(factor * (values[j] if site.lanes else xp.sum(values[j])) for j, factor in site.parents)
    ramp = xp.arange(site.values) * 1.0
    shift = xp.linspace(-0.3, 0.4, LANES) if site.lanes else 0.0
    free = (xp.broadcast_to(slope, lanes) + shift)[..., None] * ramp
    if not site.barred:
        return free
    first = values[site.parents[0][0]] if site.parents else xp.zeros(())
    bars = xp.broadcast_to((first if site.lanes else xp.sum(first)) == 0, lanes)[..., None] & (ramp == site.values - 1)
    return xp.where(bars, -2000.0, free)


def guide_of(spec):
    def guide():
        a, values = ppl.param("a"), []
        for i, site in enumerate(spec.sites):
            weights = logits(site, i, values, a)
            two = site.values == 2
            fn = dist.Bernoulli(logits=weights[..., 1]) if two else dist.Categorical(logits=weights)
            values.append(ppl.sample(f"z{i}", fn))

    return guide


def objective_of(spec):
    def value(trace, values, phi):
        return sum(xp.sum(evaluate(term, values, phi)) for term in spec.terms) + spec.density * trace

    def program(p, q):
        phi = ppl.param("phi")

        def run():
            z = q.simulate()
            return value(z.log_density, [z[f"z{i}"] for i in range(len(spec.sites))], phi)

        return run() if spec.particles == 1 else COMBINE[spec.combine](ppvi.replicate(spec.particles, run))

    return program


def strategies_of(spec):
    return {f"z{i}": site.strategy for i, site in enumerate(spec.sites)}


def params_of(spec):
    return {"a": np.array(spec.params[:MOST_SITES]), "phi": np.array(spec.params[MOST_SITES:])}


def joint_values(spec):
    """Every joint value of the sites: for each site an array `(joint, *lanes)`."""
    shapes = [(LANES,) if site.lanes else () for site in spec.sites]
    digits = [
        range(site.values) for site, shape in zip(spec.sites, shapes, strict=True) for _ in range(int(np.prod(shape)))
    ]
    table = np.array(list(itertools.product(*digits)))
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    return [x.reshape(-1, *shape) for x, shape in zip(np.split(table, ends, 1), shapes, strict=True)]


def exact_of(spec):
    """The objective's value, by summing over every joint value of every run."""
    table = joint_values(spec)
    joint = len(table[0])

    def one(values, params):
        log_q = xp.zeros(())
        for i, site in enumerate(spec.sites):
            log_probs = nn.log_softmax(logits(site, i, values, params["a"]))
            log_q += xp.sum(xp.take_along_axis(log_probs, values[i][..., None], -1))
        value = sum(xp.sum(evaluate(term, values, params["phi"])) for term in spec.terms)
        return log_q, value + spec.density * log_q

    def exact(params):
        log_q, values = jax.vmap(lambda *v: one(v, params))(*(_padded(x) for x in table))
        log_q, values = log_q[:joint], values[:joint]
        if spec.particles == 1:
            return xp.exp(log_q) @ values
        runs = np.array(list(itertools.product(range(len(log_q)), repeat=spec.particles)))
        combined = jax.vmap(lambda run: COMBINE[spec.combine](values[run]))(runs)
        return xp.exp(log_q[runs].sum(1)) @ combined

    return exact


def _padded(table):
    """To one length for all programs, so that what one has compiled serves the next."""
    return xp.asarray(np.concatenate([table, np.repeat(table[:1], 64 - len(table), 0)]))


# How specs are drawn --------------------------------------------------------------------------------------------------------

FACTORS = st.sampled_from([-1.1, -0.4, 0.5, 0.9])


def expressions(n):
    leaves = st.one_of(
        st.tuples(st.just("site"), st.integers(0, n - 1)),
        st.tuples(st.just("site"), st.integers(0, n - 1)),
        st.tuples(st.just("phi"), st.integers(0, 2)),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(sorted(UNARY)), inner), st.tuples(st.sampled_from(sorted(BINARY)), inner, inner)
        ),
        max_leaves=4,
    )


def choices_of(site, strategy):
    """How many binary choices a strategy makes at a site, and how many runs of what follows."""
    draws, runs = ZOO[strategy]
    lanes = LANES if site.lanes else 1
    if isinstance(strategy, Enumerate | SumAndSample):
        runs = (site.values if isinstance(strategy, Enumerate) else 2) ** lanes
    elif isinstance(strategy, LocalExpectation | MeasureValued | UnorderedSet):
        runs = 1 + (runs - 1) * lanes
    return draws * lanes * np.log2(site.values), runs


@st.composite
def specs(draw):
    n = draw(st.sampled_from([2, 2, 2, 2, 3, 3, 3, 4, 5, 6]))
    particles = draw(st.sampled_from([1, 1, 1, 2])) if n == 2 else 1
    sites: list[SiteSpec] = []
    bits, made, multiple = 6.0 / particles, 0.0, 1
    for i in range(n):
        lanes = bits >= n - i + 1 and draw(st.booleans())
        values = 3 if not lanes and bits >= n - i + 1 and draw(st.integers(0, 3)) == 0 else 2
        bits -= np.log2(values) * (LANES if lanes else 1)
        parents = draw(st.lists(st.tuples(st.integers(0, i - 1), FACTORS), max_size=2)) if i else []
        site = SiteSpec(values, lanes, tuple(parents), Reinforce(), draw(st.integers(0, 2)) == 0)
        moves_one = lanes or particles > 1
        fitting = [Reinforce(), Reinforce(0.7)]
        for strategy in ZOO:
            choices, runs = choices_of(site, strategy)
            left = LIMIT / particles - made - choices * multiple - (n - i - 1) * multiple * runs
            if left >= 0 and multiple * runs <= MOST_RUNS and not (moves_one and strategy == StochasticPerturbation()):
                fitting.append(strategy)
        site = replace(site, strategy=draw(st.sampled_from(fitting)))
        choices, runs = choices_of(site, site.strategy)
        made, multiple = made + choices * multiple, multiple * runs
        sites.append(site)
    params = draw(
        st.lists(st.sampled_from([-0.8, -0.3, 0.0, 0.4, 0.7]), min_size=MOST_SITES + 3, max_size=MOST_SITES + 3)
    )
    terms = draw(st.lists(expressions(n), min_size=1, max_size=2))
    return Spec(
        sites=tuple(sites),
        terms=tuple(terms),
        density=draw(st.sampled_from([0.0, -1.0])),
        particles=particles,
        combine=draw(st.sampled_from(sorted(COMBINE))),
        params=tuple(params),
    )
