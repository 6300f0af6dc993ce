"""Strategies within strategies: every ordered pair at two coupled sites, by itself and in a `replicate`, with one lane and more."""

import itertools

import jax
import pytest

import ppvi
from ppvi import ARM, DisARM, Enumerate, LeaveOneOut, LocalExpectation, MeasureValued, Reinforce, Reparam
from ppvi.strategies import (
    ARSM,
    REBAR,
    Antithetic,
    BoundaryReparam,
    RunningMean,
    StochasticPerturbation,
    Stratified,
    SumAndSample,
    UnorderedSet,
)
from tests.engines import NUMPYRO, PYRO, dist, nn, ppl, xp
from tests.laws.cases import Case, nothing, p_of
from tests.laws.sampling import check
from tests.laws.test_exact import test_expectation_is_exact as agrees_exactly

FINITE = (
    Enumerate(), Enumerate(sequential=True), SumAndSample(), Reinforce(), Reinforce(RunningMean()), LeaveOneOut(2), LocalExpectation(),
    DisARM(), UnorderedSet(2), StochasticPerturbation(),
)  # fmt: skip
"""Those whose own randomness is finite."""
UNIFORM = (ARM(), ARSM(), REBAR())
CONTINUOUS = (Reparam(), Reinforce(), LeaveOneOut(2), MeasureValued(), Stratified(2), Antithetic())


def finite_guide(lanes):
    def guide():
        a, b = ppl.param("a"), ppl.param("b")
        z1 = ppl.sample("z1", dist.Bernoulli(logits=a)) if lanes == 1 else None
        if lanes == 1:
            ppl.sample("z2", dist.Bernoulli(logits=b + 0.9 * z1))
            return
        with ppl.plate("lanes", lanes):
            z1 = ppl.sample("z1", dist.Bernoulli(logits=a + xp.linspace(-0.5, 0.5, lanes)))
            ppl.sample("z2", dist.Bernoulli(logits=b + 0.9 * z1))

    return guide


def meet(z1, z2, phi):
    """Lanes meet within z1, and those of z2 in a product with it."""
    z1, z2 = xp.atleast_1d(z1) * 1.0, xp.atleast_1d(z2) * 1.0
    return xp.exp(0.4 * phi * xp.sum(z1)) + phi * xp.sum(z1 * z2 + 0.3 * z2) + xp.sum(z2) * xp.mean(z1) ** 2


def finite_exact(lanes):
    def exact(params):
        shift = xp.linspace(-0.5, 0.5, lanes) if lanes > 1 else xp.zeros(1)
        bits = xp.array(list(itertools.product((0.0, 1.0), repeat=lanes)))

        def pair(z1, z2):
            q = p_of(z1, nn.sigmoid(params["a"] + shift)) * p_of(z2, nn.sigmoid(params["b"] + 0.9 * z1))
            return xp.prod(q) * meet(z1, z2, params["phi"])

        return xp.sum(jax.vmap(lambda z1: jax.vmap(lambda z2: pair(z1, z2))(bits))(bits))

    return exact


def of_one_run(p, q):
    z = q.simulate()
    return meet(z["z1"], z["z2"], ppl.param("phi"))


def of_two_runs(p, q):
    """E[r_1 r_2] of two independent runs is the square of E[r]."""
    return xp.prod(ppvi.replicate(2, lambda: of_one_run(p, q)))


PARAMS = dict(a=0.4, b=-0.3, phi=0.8)


def finite(lanes, runs, n=40_000):
    one = finite_exact(lanes)
    exact = one if runs == 1 else lambda params: one(params) ** 2
    return Case(f"{lanes} lanes, {runs} runs", of_one_run if runs == 1 else of_two_runs, nothing, finite_guide(lanes), PARAMS, exact, (), n)  # fmt: skip


def pairs(strategies, others=None):
    return [
        pytest.param(first, second, id=f"{first} then {second}")
        for first, second in itertools.product(strategies, others or strategies)
    ]


def some_slow(parameters, every=15):
    """One in so many runs in a test of minutes."""
    return [
        p if i % every == 0 else pytest.param(*p.values, id=p.id, marks=pytest.mark.slow)
        for i, p in enumerate(parameters)
    ]


@pytest.mark.parametrize(("first", "second"), some_slow(pairs(FINITE)))
def test_one_lane_exactly(engine, first, second):
    agrees_exactly(engine, finite(1, 1), {"z1": first, "z2": second})


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [*pairs(FINITE, UNIFORM), *pairs(UNIFORM, FINITE), *pairs(UNIFORM)])
def test_one_lane(engine, first, second):
    check(engine, finite(1, 1), {"z1": first, "z2": second})


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), pairs([*FINITE, *UNIFORM]))
@pytest.mark.parametrize(("lanes", "runs"), [(1, 2), (5, 1), (5, 2)])
def test_lanes_and_runs(engine, first, second, lanes, runs):
    enumerated = [s for s in (first, second) if isinstance(s, Enumerate | SumAndSample)]
    if 2 ** (lanes * runs * len(enumerated)) > 4096:
        pytest.skip("as many coupled lanes, enumerated at two sites, are over the limit of runs")
    many = bool(enumerated) and lanes * runs > 5
    if many and engine is PYRO and Enumerate(sequential=True) in (first, second):
        pytest.skip("a thousand runs of PyTorch, one after the other, take minutes")
    # A thousand runs of each draw take a megabyte, and eight where PyTorch keeps all of them for its gradient.
    n, batch = (10_000, 200 if engine is PYRO else 1000) if many else (40_000, None)
    check(engine, finite(lanes, runs, n), {"z1": first, "z2": second}, batch)


# A continuous site with any other ------------------------------------------------------------------------------------------------


def mixed_guide(first):
    """The normal above the label, or below it."""

    def guide():
        a, m = ppl.param("a"), ppl.param("m")
        if first:
            x = ppl.sample("x", dist.Normal(m, 0.9))
            ppl.sample("z", dist.Bernoulli(logits=a + 0.5 * x))
        else:
            z = ppl.sample("z", dist.Bernoulli(logits=a))
            ppl.sample("x", dist.Normal(m + 0.5 * z, 0.9))

    return guide


def mixed_value(x, z, phi):
    return phi * x**2 * (z + 0.3) + xp.sin(x) * z


def mixed_program(p, q):
    z = q.simulate()
    return mixed_value(z["x"], z["z"] * 1.0, ppl.param("phi"))


def mixed_exact(first):
    x0 = xp.linspace(-8.0, 8.0, 20_001)
    weights = xp.exp(-0.5 * x0**2) / xp.sum(xp.exp(-0.5 * x0**2))

    def exact(params):
        total = 0.0
        for z in (0.0, 1.0):
            x = params["m"] + 0.9 * x0 + (0.0 if first else 0.5 * z)
            q = nn.sigmoid(params["a"] + (0.5 * x if first else 0.0 * x))
            total += xp.sum(weights * p_of(z, q) * mixed_value(x, z, params["phi"]))
        return total

    return exact


MIXED = dict(a=0.4, m=-0.3, phi=0.8)
WITH_JUMPS = (BoundaryReparam((9.0,)),)


def mixed(first):
    return Case("mixed", mixed_program, nothing, mixed_guide(first), MIXED, mixed_exact(first), (), 40_000)


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False], ids=["normal first", "label first"])
@pytest.mark.parametrize(("x", "z"), pairs([*CONTINUOUS, *WITH_JUMPS], [*FINITE, *UNIFORM]))
def test_continuous_and_finite(engine, x, z, first):
    check(engine, mixed(first), {"x": x, "z": z})


@pytest.mark.parametrize(
    ("engine", "first"),
    [(PYRO, True), (PYRO, False), (NUMPYRO, True), pytest.param(NUMPYRO, False, marks=pytest.mark.slow)],
    ids=["Pyro, normal first", "Pyro, label first", "NumPyro, normal first", "NumPyro, label first"],
)
@pytest.mark.parametrize(("x", "z"), [*zip(CONTINUOUS, (UnorderedSet(2), SumAndSample(), REBAR(), DisARM(), LocalExpectation(), ARM()), strict=True)])  # fmt: skip
def test_some_of_continuous_and_finite(engine, x, z, first):
    check(engine, mixed(first), {"x": x, "z": z})


SOME = [
    (DisARM(), SumAndSample(), 1, 2),
    (Enumerate(), UnorderedSet(2), 1, 2),
    (LocalExpectation(), REBAR(), 1, 2),
    (StochasticPerturbation(), LeaveOneOut(2), 5, 1),
    (ARSM(), Reinforce(), 5, 1),
]


@pytest.mark.parametrize(
    "engine", [PYRO, pytest.param(NUMPYRO, marks=pytest.mark.slow)], ids=lambda engine: engine.name
)
@pytest.mark.parametrize(("first", "second", "lanes", "runs"), SOME)
def test_some_of_lanes_and_runs(engine, first, second, lanes, runs):
    check(engine, finite(lanes, runs), {"z1": first, "z2": second})
