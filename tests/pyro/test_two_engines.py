"""The same ten programs on both engines: log densities on shared traces, and exact gradients, agree.

A program is written once, against a small vocabulary that both libraries have.
"""

import numpy as np
import pytest

import ppvi
from ppvi.objectives import elbo
from tests.engines import ENGINES, NUMPYRO, dist, double, handlers, on, ppl, xp

X = [0.7, -1.1, 1.9]


def param(name, value, **options):
    return ppl.param(name, xp.asarray(value), **options)


def coin():
    def model(x):
        z = ppl.sample("z", dist.Bernoulli(0.3))
        ppl.sample("x", dist.Normal(z * 2.0, param("s", 0.8, constraint=dist.constraints.positive)), obs=x[0])

    def guide(x):
        ppl.sample("z", dist.Bernoulli(logits=param("a", 0.4)))

    return model, guide


def chain():
    def model(x):
        z = ppl.sample("z", dist.Bernoulli(0.3))
        w = ppl.sample("w", dist.Bernoulli(0.2 + 0.5 * z))
        ppl.sample("x", dist.Laplace(z - w, xp.exp(param("s", 0.1))), obs=x[1])

    def guide(x):
        z = ppl.sample("z", dist.Bernoulli(logits=param("a", 0.4)))
        ppl.sample("w", dist.Bernoulli(logits=param("b", -0.2) + z))

    return model, guide


def mixture():
    def model(x):
        means = param("means", [-1.0, 0.0, 2.0])
        with ppl.plate("data", 3):
            z = ppl.sample("z", dist.Categorical(xp.array([0.2, 0.5, 0.3])))
            ppl.sample("x", dist.Normal(means[xp.asarray(z, int)], 0.7), obs=x)

    def guide(x):
        with ppl.plate("data", 3):
            ppl.sample(
                "z", dist.Categorical(logits=param("logits", [[0.1, -0.2, 0.3], [0.0, 0.5, 0.2], [1.0, 0.0, -1.0]]))
            )

    return model, guide


def vector():
    def model(x):
        z = ppl.sample("z", dist.Bernoulli(xp.array([0.3, 0.6])).to_event(1))
        ppl.sample(
            "x", dist.MultivariateNormal(z * param("w", [1.0, -0.5]), xp.array([[1.0, 0.3], [0.3, 2.0]])), obs=x[:2]
        )

    def guide(x):
        ppl.sample("z", dist.Bernoulli(logits=param("a", [0.4, -0.7])).to_event(1))

    return model, guide


def counts():
    def model(x):
        n = ppl.sample("n", dist.Binomial(3, 0.4))
        ppl.sample("k", dist.Poisson(xp.exp(param("r", 0.2)) * (1.0 + n)), obs=xp.array(4.0))

    def guide(x):
        ppl.sample("n", dist.Binomial(3, logits=param("a", 0.1)))

    return model, guide


def scaled():
    def model(x):
        with ppl.plate("data", 3), handlers.scale(scale=2.5):
            z = ppl.sample("z", dist.Bernoulli(0.4))
            with handlers.mask(mask=xp.array([1.0, 0.0, 1.0]) > 0):
                ppl.sample("x", dist.StudentT(3.0, z, param("s", 1.3, constraint=dist.constraints.positive)), obs=x)

    def guide(x):
        with ppl.plate("data", 3), handlers.scale(scale=2.5):
            ppl.sample("z", dist.Bernoulli(logits=param("a", [0.1, 0.0, -0.6])))

    return model, guide


def nested():
    def model(x):
        with ppl.plate("rows", 2, dim=-2):
            g = ppl.sample("g", dist.Bernoulli(0.4))
            with ppl.plate("columns", 3, dim=-1):
                ppl.sample("x", dist.Normal(param("m", 0.3) * g, 1.0), obs=xp.stack([x, x + 1.0]))

    def guide(x):
        with ppl.plate("rows", 2, dim=-2):
            ppl.sample("g", dist.Bernoulli(logits=param("a", [[0.2], [-0.5]])))

    return model, guide


def states():
    """A hidden Markov chain of three steps."""

    def model(x):
        z = xp.array(0.0)
        for t in range(3):
            z = ppl.sample(f"z{t}", dist.Bernoulli(0.2 + 0.6 * z))
            ppl.sample(f"x{t}", dist.Normal(z, param("s", 0.9, constraint=dist.constraints.positive)), obs=x[t])

    def guide(x):
        z = xp.array(0.0)
        for t in range(3):
            z = ppl.sample(f"z{t}", dist.Bernoulli(logits=param(f"a{t}", 0.1 * t) + 0.5 * z))

    return model, guide


def simplex():
    def model(x):
        z = ppl.sample("z", dist.Categorical(xp.array([0.5, 0.5])))
        rate = param("rates", [0.5, 2.0], constraint=dist.constraints.positive)[xp.asarray(z, int)]
        ppl.sample("p", dist.Dirichlet(rate * xp.array([1.0, 2.0, 3.0])), obs=xp.array([0.2, 0.3, 0.5]))
        ppl.sample("u", dist.Beta(rate, 1.5), obs=xp.array(0.3))
        ppl.sample("v", dist.Gamma(rate, 0.5), obs=xp.array(1.7))

    def guide(x):
        ppl.sample("z", dist.Categorical(logits=param("a", [0.2, -0.3])))

    return model, guide


def positive():
    def model(x):
        z = ppl.sample("z", dist.Bernoulli(0.5))
        s = param("s", 0.6, constraint=dist.constraints.positive)
        ppl.sample("a", dist.LogNormal(z, s), obs=xp.array(1.4))
        ppl.sample("b", dist.HalfNormal(s + z), obs=xp.array(0.8))
        ppl.sample("c", dist.HalfCauchy(s), obs=xp.array(2.0))
        ppl.sample("e", dist.Exponential(1.0 + z), obs=xp.array(0.5))
        ppl.sample("f", dist.Gumbel(z, s), obs=xp.array(0.1))

    def guide(x):
        ppl.sample("z", dist.Bernoulli(logits=param("q", 0.3)))

    return model, guide


PROGRAMS = [coin, chain, mixture, vector, counts, scaled, nested, states, simplex, positive]


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(program, marks=[pytest.mark.slow] if i else [], id=program.__name__)
        for i, program in enumerate(PROGRAMS)
    ],
)
def test_densities_and_exact_gradients_agree(program):
    """Exact gradients; and the densities of model and guide, with their gradients, at a draw of NumPyro's."""
    model, guide = program()
    shared = {}

    def names(p, q):
        z = q.simulate()
        shared.update({name: np.asarray(z[name]) for name in z})
        return p.log_density(z) - z.log_density

    def densities(engine):
        choices = {name: engine.array(value) for name, value in shared.items()}
        return lambda p, q: p.log_density(choices) - 2.0 * q.log_density(choices)

    with double():
        NUMPYRO.vi.objective(names, model, guide).init(NUMPYRO.key(3), NUMPYRO.array(X))
        found = [gradients(engine, densities(engine), model, guide, {}) for engine in ENGINES]
        found += [gradients(engine, elbo, model, guide, dict.fromkeys(shared, ppvi.Enumerate())) for engine in ENGINES]
    for (value, gradient), (other, slopes) in zip(found[::2], found[1::2], strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-5)
        assert set(gradient) == set(slopes)
        for name, slope in gradient.items():
            np.testing.assert_allclose(slopes[name], slope, rtol=1e-5, atol=1e-8, err_msg=name)


def gradients(engine, function, model, guide, strategies):
    with on(engine):
        bound = engine.vi.objective(function, model, guide, strategies=strategies)
        x = engine.array(np.array(X))
        value, gradient = bound.value_and_grad(engine.key(1), bound.init(engine.key(0), x), x)
        return float(value), {name: np.asarray(g) for name, g in gradient.items()}
