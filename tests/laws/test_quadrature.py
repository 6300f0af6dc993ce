"""`Quadrature` against closed forms, and against finer sums."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import digamma, gammaln

import ppvi
import ppvi.numpyro as vi
from ppvi.strategies import Quadrature
from tests.laws.cases import nothing

A, B = 1.3, 0.8
FAMILIES = {
    # E[x^2] and the entropy, in a and b.
    "Normal": (dist.Normal, lambda a, b: a**2 + b**2, lambda a, b: 0.5 * jnp.log(2 * jnp.pi * jnp.e * b**2)),
    "LogNormal": (
        dist.LogNormal,
        lambda a, b: jnp.exp(2 * a + 2 * b**2),
        lambda a, b: a + 0.5 * jnp.log(2 * jnp.pi * jnp.e * b**2),
    ),
    "Gamma": (
        dist.Gamma,
        lambda a, b: a * (a + 1) / b**2,
        lambda a, b: a - jnp.log(b) + gammaln(a) + (1 - a) * digamma(a),
    ),
    "Weibull": (
        lambda a, b: dist.Weibull(b, a),
        lambda a, b: b**2 * jnp.exp(gammaln(1 + 2 / a)),
        lambda a, b: jnp.euler_gamma * (1 - 1 / a) + jnp.log(b / a) + 1,
    ),
    "Beta": (
        dist.Beta,
        lambda a, b: a * (a + 1) / ((a + b) * (a + b + 1)),
        lambda a, b: gammaln(a) + gammaln(b) - gammaln(a + b) - (a - 1) * digamma(a) - (b - 1) * digamma(b) + (a + b - 2) * digamma(a + b),
    ),
    "Gumbel": (
        dist.Gumbel,
        lambda a, b: (a + b * jnp.euler_gamma) ** 2 + (jnp.pi * b) ** 2 / 6,
        lambda a, b: jnp.log(b) + jnp.euler_gamma + 1,
    ),
}  # fmt: skip


def scalar(family):
    return lambda: numpyro.sample("x", family(numpyro.param("a", A), numpyro.param("b", B)))


def square(p, q):
    return q.simulate()["x"] ** 2


def entropy(p, q):
    return -q.simulate().log_density


def agree(bound, exact, params, rtol=2e-5):
    value, gradient = bound.value_and_grad(jax.random.key(3), params)
    true_value, true_gradient = jax.value_and_grad(exact)(params)
    scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves((true_value, true_gradient)))
    np.testing.assert_allclose(value, true_value, rtol=rtol, atol=rtol * scale)
    for name, truth in true_gradient.items():
        np.testing.assert_allclose(gradient[name], truth, rtol=rtol, atol=rtol * scale, err_msg=name)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("program", [square, entropy], ids=["square", "entropy"])
def test_families(name, program):
    family, *forms = FAMILIES[name]
    exact = forms[program is entropy]
    bound = vi.objective(program, nothing, scalar(family), strategies={"x": Quadrature(96)})
    agree(bound, lambda q: exact(q["a"], q["b"]), {"a": jnp.asarray(A), "b": jnp.asarray(B)})


def lanes(p, q):
    """Apart in the first term, coupled in the second."""
    x = q.simulate()["x"]
    return jnp.sum(x**3) + numpyro.param("phi", 0.4) * jnp.prod(x) ** 2


def lanes_guide():
    with numpyro.plate("lanes", 2):
        numpyro.sample("x", dist.Normal(numpyro.param("m", jnp.array([0.3, -0.8])), 0.7))


@pytest.mark.parametrize("sequential", [False, True])
def test_lanes(sequential):
    def exact(q):
        m, v = q["m"], 0.49
        return jnp.sum(m**3 + 3 * m * v) + q["phi"] * jnp.prod(m**2 + v)

    bound = vi.objective(lanes, nothing, lanes_guide, strategies={"x": Quadrature(32, sequential=sequential)})
    agree(bound, exact, bound.init(jax.random.key(0)))


def test_beside_other_sites():
    """A finite site before, and a continuous one after whose mean it is."""

    def guide():
        z = numpyro.sample("z", dist.Bernoulli(numpyro.param("p", 0.3)))
        x = numpyro.sample("x", dist.Normal(numpyro.param("m", 0.4) * z, 0.5))
        numpyro.sample("y", dist.Normal(x, numpyro.param("s", 0.6)))

    def program(p, q):
        trace = q.simulate()
        return jnp.sin(trace["y"]) * (1 + trace["z"])

    def exact(q):
        tail = jnp.exp(-(0.25 + q["s"] ** 2) / 2)
        return q["p"] * 2 * jnp.sin(q["m"]) * tail

    strategies = {"z": ppvi.Enumerate(), "x": Quadrature(48), "y": Quadrature(40)}
    bound = vi.objective(program, nothing, guide, strategies=strategies)
    agree(bound, exact, bound.init(jax.random.key(0)))


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (lambda: dist.Poisson(2.0), "no continuous distribution of real numbers"),
        (lambda: dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)), "no continuous distribution of real numbers"),
        (lambda: dist.Uniform(0.0, numpyro.param("b", 2.0)), "its support moves"),
    ],
)
def test_refusals(family, message):
    def guide():
        numpyro.sample("x", family())

    bound = vi.objective(
        lambda p, q: numpyro.param("a", 1.0) * jnp.sum(q.simulate()["x"]),
        nothing,
        guide,
        strategies={"x": Quadrature()},
    )
    with pytest.raises(ppvi.StrategyError, match=message):
        bound.value_and_grad(jax.random.key(0), {"a": jnp.asarray(1.0), "b": jnp.asarray(2.0)})


def test_a_jump_is_a_finding():
    bound = vi.objective(
        lambda p, q: jnp.where(q.simulate()["x"] > 0.2, 1.0, 0.0),
        nothing,
        scalar(dist.Normal),
        strategies={"x": Quadrature()},
    )
    assert bound.prove(bound.init(jax.random.key(0))).verdict == "biased"
