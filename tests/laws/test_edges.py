"""Edges: draws that rounding puts on an end of their support, and probabilities of exactly 0 and 1.

Draws of the distributions below underflow to 0 in single precision every few thousand times. Means and slopes are known in
closed form; laws of draws hold within 5 standard errors, and 2% for what is not a number of that precision.
"""

from importlib import import_module

import numpy as np
import pytest
from scipy.special import digamma, gammaln, polygamma

from ppvi import Enumerate, LeaveOneOut, LocalExpectation, MeasureValued, Reinforce, Reparam
from ppvi.objectives import elbo
from ppvi.strategies import ARM, REBAR, DisARM
from tests.engines import ENGINES, NUMPYRO, dist, on, ppl, xp
from tests.laws.cases import nothing

DRAWS = 20_000
SHAPE = 0.1


def log_of_draws(p, q):
    return xp.sum(xp.log(q.simulate()["z"]))


def gamma(a):
    return dist.Gamma(a, 1.0)


def dirichlet(a):
    return dist.Dirichlet(a[..., None] * xp.asarray([1.0, 1.0, 1.0]))


def standard():
    with ppl.plate("draws", DRAWS):
        ppl.sample("z", dist.Gamma(1.0, 1.0))


LAWS = {
    "Gamma": (gamma, digamma(SHAPE), polygamma(1, SHAPE)),
    "Dirichlet": (dirichlet, 3 * (digamma(SHAPE) - digamma(3 * SHAPE)), 3 * polygamma(1, SHAPE) - 9 * polygamma(1, 3 * SHAPE)),
    "InverseGamma": (lambda a: dist.InverseGamma(a, 1.0), -digamma(SHAPE), -polygamma(1, SHAPE)),
    "Gamma against Gamma": (
        gamma, (1 - SHAPE) * digamma(SHAPE) + gammaln(SHAPE), (1 - SHAPE) * polygamma(1, SHAPE),
    ),
}  # fmt: skip
STRATEGIES = (Reparam(), LeaveOneOut(2), Reinforce())


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize("law", LAWS)
def test_draws_that_underflow(engine, law, strategy):
    """One lane is one draw, with a parameter of its own."""
    of, value, slope = LAWS[law]
    against = law == "Gamma against Gamma"

    def guide():
        a = ppl.param("a", constraint=dist.constraints.positive)
        with ppl.plate("draws", DRAWS):
            ppl.sample("z", of(a))

    with on(engine):
        program, model = (elbo, standard) if against else (log_of_draws, nothing)
        bound = engine.vi.objective(program, model, guide, strategies={"z": strategy})
        found, grads = bound.value_and_grad(engine.key(0), {"a": engine.array(np.full(DRAWS, SHAPE))})
        grads = np.asarray(grads["a"], float)
    assert np.isfinite(grads).all()
    assert abs(grads.mean() - slope) < 5 * grads.std() / DRAWS**0.5 + 0.02 * abs(slope)
    assert abs(float(found) / DRAWS - value) < 0.03 * abs(value)


def worth(p, q):
    return xp.sum(2 + 3 * q.simulate()["z"])


@pytest.mark.parametrize("strategy", [REBAR(), DisARM(), ARM(), LeaveOneOut(2)], ids=str)
def test_what_is_never_drawn_has_no_derivative(engine, strategy):
    """At p = 0 and 1, with f(1) - f(0) between."""

    def guide():
        p = ppl.param("p")
        with ppl.plate("lanes", 3):
            ppl.sample("z", dist.Bernoulli(p))

    with on(engine):
        bound = engine.vi.objective(worth, nothing, guide, strategies={"z": strategy})
        params = {"p": engine.array(np.array([0.0, 0.25, 1.0]))}
        grads = np.array([np.asarray(bound.value_and_grad(engine.key(i), params)[1]["p"]) for i in range(100)])
    assert (grads[:, [0, 2]] == 0).all()
    assert abs(grads[:, 1].mean() - 3.0) < 5 * grads[:, 1].std() / 10


@pytest.mark.parametrize("strategy", [Enumerate(), LocalExpectation(), MeasureValued()], ids=str)
@pytest.mark.parametrize("by_coin", [True, False], ids=["Bernoulli", "Categorical"])
def test_probabilities_of_0_and_1_have_one_sided_derivatives(engine, by_coin, strategy):
    """d/dp (1 - p) f(0) + p f(1) = f(1) - f(0), at p = 0, 1/4 and 1."""

    def guide():
        p = ppl.param("p")
        with ppl.plate("lanes", 3):
            probs = xp.stack([1 - p, p], -1)
            ppl.sample("z", dist.Bernoulli(p) if by_coin else dist.Categorical(probs))

    with on(engine):
        bound = engine.vi.objective(worth, nothing, guide, strategies={"z": strategy})
        _, grads = bound.value_and_grad(engine.key(0), {"p": engine.array(np.array([0.0, 0.25, 1.0]))})
        np.testing.assert_allclose(grads["p"], 3.0, rtol=1e-5)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize(
    ("f", "slope"),
    [(lambda a, z: 1.2 ** (a * z), lambda z: z * np.log(1.2)), (lambda a, z: (1.0 + a * z) ** 3.0, lambda z: 3 * z)],
    ids=["a number to a power", "a power of a number"],
)
def test_powers_that_have_no_edge(engine, f, slope):
    """At an exponent of 0, and of what is 1."""

    def program(p, q):
        return f(ppl.param("a", engine.array(0.0)), q.simulate()["z"])

    def guide():
        ppl.sample("z", dist.Normal(0.3, 1.0))

    with on(engine):
        bound = engine.vi.objective(program, nothing, guide)
        drawn = engine.vi.objective(lambda p, q: q.simulate()["z"] + ppl.param("a", engine.array(0.0)), nothing, guide)
        params = {"a": engine.array(0.0)}
        found = float(bound.value_and_grad(engine.key(1), params)[1]["a"])
        assert found == pytest.approx(slope(float(drawn.estimate(engine.key(1), params))), rel=1e-4)


def test_a_library_is_as_it_was_when_the_last_thread_has_left(engine):
    care = import_module(f"ppvi.{'numpyro' if engine is NUMPYRO else 'pyro'}._edges").careful
    first, second = care(), care()
    for what, others in (
        (first.__enter__, True),
        (second.__enter__, True),
        (first.__exit__, True),
        (second.__exit__, False),
    ):
        what()
        for owner, name, function in care().others if others else care().own:
            assert getattr(owner, name) is function


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("seen", [0.0, 1.0])
def test_a_logit_of_zero_has_the_slope_of_its_neighbours(engine, seen, count):
    """d/dl log_prob(k) = k - n sigmoid(l) of a Binomial, and of a Bernoulli, which is one of n = 1."""

    def model():
        logits = ppl.param("logits", xp.zeros(3))
        with ppl.plate("rows", 3):
            fn = dist.Bernoulli(logits=logits) if count == 1 else dist.Binomial(count, logits=logits)
            ppl.sample("y", fn, obs=xp.asarray([seen] * 3))

    with on(engine):
        bound = engine.vi.objective(lambda p, q: p.log_density({}), model, nothing)
        _, grads = bound.value_and_grad(engine.key(0), {"logits": xp.zeros(3)})
        assert np.asarray(grads["logits"]).tolist() == [seen - count / 2] * 3
