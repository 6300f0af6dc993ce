"""`Quadrature` against closed forms, and against finer sums."""

import jax
import numpy as np
import pytest
from jax.scipy.special import digamma, gammaln

import ppvi
from ppvi.strategies import Quadrature
from tests.engines import dist, double, on, ppl, xp
from tests.laws.cases import nothing

A, B = 1.3, 0.8
FAMILIES = {
    # E[x^2] and the entropy, in a and b.
    "Normal": (lambda a, b: dist.Normal(a, b), lambda a, b: a**2 + b**2, lambda a, b: 0.5 * xp.log(2 * xp.pi * xp.e * b**2)),
    "LogNormal": (
        lambda a, b: dist.LogNormal(a, b),
        lambda a, b: xp.exp(2 * a + 2 * b**2),
        lambda a, b: a + 0.5 * xp.log(2 * xp.pi * xp.e * b**2),
    ),
    "Gamma": (
        lambda a, b: dist.Gamma(a, b),
        lambda a, b: a * (a + 1) / b**2,
        lambda a, b: a - xp.log(b) + gammaln(a) + (1 - a) * digamma(a),
    ),
    "Weibull": (
        lambda a, b: dist.Weibull(b, a),
        lambda a, b: b**2 * xp.exp(gammaln(1 + 2 / a)),
        lambda a, b: xp.euler_gamma * (1 - 1 / a) + xp.log(b / a) + 1,
    ),
    "Beta": (
        lambda a, b: dist.Beta(a, b),
        lambda a, b: a * (a + 1) / ((a + b) * (a + b + 1)),
        lambda a, b: gammaln(a) + gammaln(b) - gammaln(a + b) - (a - 1) * digamma(a) - (b - 1) * digamma(b) + (a + b - 2) * digamma(a + b),
    ),
    "Gumbel": (
        lambda a, b: dist.Gumbel(a, b),
        lambda a, b: (a + b * xp.euler_gamma) ** 2 + (xp.pi * b) ** 2 / 6,
        lambda a, b: xp.log(b) + xp.euler_gamma + 1,
    ),
}  # fmt: skip


def scalar(family):
    return lambda: ppl.sample("x", family(ppl.param("a", A), ppl.param("b", B)))


def square(p, q):
    return q.simulate()["x"] ** 2


def entropy(p, q):
    return -q.simulate().log_density


def agree(engine, program, guide, strategies, exact, values, rtol=2e-5):
    with double():
        with on(engine):
            bound = engine.vi.objective(program, nothing, guide, strategies=strategies)
            params = {name: engine.array(np.asarray(x)) for name, x in values.items()}
            value, gradient = jax.tree.map(np.asarray, bound.value_and_grad(engine.key(3), params))
        true_value, true_gradient = jax.value_and_grad(exact)({name: xp.asarray(x) for name, x in values.items()})
    scale = max(float(abs(g).max()) for g in jax.tree.leaves((true_value, true_gradient)))
    np.testing.assert_allclose(value, true_value, rtol=rtol, atol=rtol * scale)
    for name, truth in true_gradient.items():
        np.testing.assert_allclose(gradient[name], truth, rtol=rtol, atol=rtol * scale, err_msg=name)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("program", [square, entropy], ids=["square", "entropy"])
def test_families(engine, name, program):
    family, *forms = FAMILIES[name]
    exact = forms[program is entropy]
    strategies = {"x": Quadrature(96)}
    agree(engine, program, scalar(family), strategies, lambda q: exact(q["a"], q["b"]), {"a": A, "b": B})


def lanes(p, q):
    """Apart in the first term, coupled in the second."""
    x = q.simulate()["x"]
    return xp.sum(x**3) + ppl.param("phi") * xp.prod(x) ** 2


def lanes_guide():
    with ppl.plate("lanes", 2):
        ppl.sample("x", dist.Normal(ppl.param("m"), 0.7))


@pytest.mark.parametrize("sequential", [False, True])
def test_lanes(engine, sequential):
    def exact(q):
        m, v = q["m"], 0.49
        return xp.sum(m**3 + 3 * m * v) + q["phi"] * xp.prod(m**2 + v)

    strategies = {"x": Quadrature(32, sequential=sequential)}
    agree(engine, lanes, lanes_guide, strategies, exact, {"m": [0.3, -0.8], "phi": 0.4})


def test_beside_other_sites(engine):
    """A finite site before, and a continuous one after whose mean it is."""

    def guide():
        z = ppl.sample("z", dist.Bernoulli(ppl.param("p")))
        x = ppl.sample("x", dist.Normal(ppl.param("m") * z, 0.5))
        ppl.sample("y", dist.Normal(x, ppl.param("s")))

    def program(p, q):
        trace = q.simulate()
        return xp.sin(trace["y"]) * (1 + trace["z"])

    def exact(q):
        tail = xp.exp(-(0.25 + q["s"] ** 2) / 2)
        return q["p"] * 2 * xp.sin(q["m"]) * tail

    strategies = {"z": ppvi.Enumerate(), "x": Quadrature(48), "y": Quadrature(40)}
    agree(engine, program, guide, strategies, exact, {"p": 0.3, "m": 0.4, "s": 0.6})


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (lambda: dist.Poisson(2.0), "no continuous distribution of real numbers"),
        (lambda: dist.MultivariateNormal(xp.zeros(2), xp.eye(2)), "no continuous distribution of real numbers"),
        (lambda: dist.Uniform(0.0, ppl.param("b", 2.0)), "its support moves"),
    ],
)
def test_refusals(engine, family, message):
    def guide():
        ppl.sample("x", family())

    def program(p, q):
        return ppl.param("a", 1.0) * xp.sum(q.simulate()["x"])

    bound = engine.vi.objective(program, nothing, guide, strategies={"x": Quadrature()})
    with on(engine), pytest.raises(ppvi.StrategyError, match=message):
        bound.value_and_grad(engine.key(0), {"a": engine.array(1.0), "b": engine.array(2.0)})


def test_a_jump_is_a_finding(engine):
    def program(p, q):
        return xp.where(q.simulate()["x"] > 0.2, 1.0, 0.0)

    bound = engine.vi.objective(program, nothing, scalar(FAMILIES["Normal"][0]), strategies={"x": Quadrature()})
    with on(engine):
        assert bound.prove(bound.init(engine.key(0))).verdict == "biased"
