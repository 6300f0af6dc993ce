"""The same ten programs on both engines: log densities on shared traces, and exact gradients, agree.

A program is written once, against a small vocabulary that both libraries have.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as jdist
import pyro
import pyro.distributions as tdist
import pytest
import torch

import ppvi
import ppvi.numpyro as on_jax
import ppvi.pyro as on_torch
from ppvi.objectives import elbo

X = [0.7, -1.1, 1.9]


class Jax:
    d, sample, plate, scale, mask = jdist, staticmethod(numpyro.sample), numpyro.plate, numpyro.handlers.scale, numpyro.handlers.mask  # fmt: skip
    vi = on_jax
    exp, log, sum, stack = staticmethod(jnp.exp), staticmethod(jnp.log), staticmethod(jnp.sum), staticmethod(jnp.stack)

    @staticmethod
    def array(x):
        return jnp.asarray(x, float)

    @staticmethod
    def param(name, value, positive=False):
        constraint = jdist.constraints.positive if positive else jdist.constraints.real
        return numpyro.param(name, jnp.asarray(value), constraint=constraint)

    @staticmethod
    def choice(value):
        return jnp.asarray(value)

    @staticmethod
    def at(table, i):
        return table[jnp.asarray(i, int)]

    @staticmethod
    def key(seed):
        return jax.random.key(seed)


class Torch:
    d, sample, plate, scale, mask = tdist, staticmethod(pyro.sample), pyro.plate, pyro.poutine.scale, pyro.poutine.mask
    vi = on_torch
    exp, log, sum, stack = staticmethod(torch.exp), staticmethod(torch.log), staticmethod(torch.sum), staticmethod(torch.stack)  # fmt: skip

    @staticmethod
    def array(x):
        return torch.tensor(x, dtype=torch.float64)

    @staticmethod
    def param(name, value, positive=False):
        constraint = tdist.constraints.positive if positive else tdist.constraints.real
        return pyro.param(name, torch.tensor(value), constraint=constraint)

    @staticmethod
    def choice(value):
        return torch.tensor(value, dtype=torch.float64)

    @staticmethod
    def at(table, i):
        return table[i.long().reshape(-1)].reshape(i.shape + table.shape[1:])

    @staticmethod
    def key(seed):
        return seed


def coin(l):  # noqa: E741
    def model(x):
        z = l.sample("z", l.d.Bernoulli(0.3))
        l.sample("x", l.d.Normal(z * 2.0, l.param("s", 0.8, positive=True)), obs=x[0])

    def guide(x):
        l.sample("z", l.d.Bernoulli(logits=l.param("a", 0.4)))

    return model, guide


def chain(l):  # noqa: E741
    def model(x):
        z = l.sample("z", l.d.Bernoulli(0.3))
        w = l.sample("w", l.d.Bernoulli(0.2 + 0.5 * z))
        l.sample("x", l.d.Laplace(z - w, l.exp(l.param("s", 0.1))), obs=x[1])

    def guide(x):
        z = l.sample("z", l.d.Bernoulli(logits=l.param("a", 0.4)))
        l.sample("w", l.d.Bernoulli(logits=l.param("b", -0.2) + z))

    return model, guide


def mixture(l):  # noqa: E741
    def model(x):
        means = l.param("means", [-1.0, 0.0, 2.0])
        with l.plate("data", 3):
            z = l.sample("z", l.d.Categorical(l.array([0.2, 0.5, 0.3])))
            l.sample("x", l.d.Normal(l.at(means, z), 0.7), obs=x)

    def guide(x):
        with l.plate("data", 3):
            l.sample(
                "z", l.d.Categorical(logits=l.param("logits", [[0.1, -0.2, 0.3], [0.0, 0.5, 0.2], [1.0, 0.0, -1.0]]))
            )

    return model, guide


def vector(l):  # noqa: E741
    def model(x):
        z = l.sample("z", l.d.Bernoulli(l.array([0.3, 0.6])).to_event(1))
        l.sample(
            "x", l.d.MultivariateNormal(z * l.param("w", [1.0, -0.5]), l.array([[1.0, 0.3], [0.3, 2.0]])), obs=x[:2]
        )

    def guide(x):
        l.sample("z", l.d.Bernoulli(logits=l.param("a", [0.4, -0.7])).to_event(1))

    return model, guide


def counts(l):  # noqa: E741
    def model(x):
        n = l.sample("n", l.d.Binomial(3, 0.4))
        l.sample("k", l.d.Poisson(l.exp(l.param("r", 0.2)) * (1.0 + n)), obs=l.array(4.0))

    def guide(x):
        l.sample("n", l.d.Binomial(3, logits=l.param("a", 0.1)))

    return model, guide


def scaled(l):  # noqa: E741
    def model(x):
        with l.plate("data", 3), l.scale(scale=2.5):
            z = l.sample("z", l.d.Bernoulli(0.4))
            with l.mask(mask=l.array([1.0, 0.0, 1.0]) > 0):
                l.sample("x", l.d.StudentT(3.0, z, l.param("s", 1.3, positive=True)), obs=x)

    def guide(x):
        with l.plate("data", 3), l.scale(scale=2.5):
            l.sample("z", l.d.Bernoulli(logits=l.param("a", [0.1, 0.0, -0.6])))

    return model, guide


def nested(l):  # noqa: E741
    def model(x):
        with l.plate("rows", 2, dim=-2):
            g = l.sample("g", l.d.Bernoulli(0.4))
            with l.plate("columns", 3, dim=-1):
                l.sample("x", l.d.Normal(l.param("m", 0.3) * g, 1.0), obs=l.stack([x, x + 1.0]))

    def guide(x):
        with l.plate("rows", 2, dim=-2):
            l.sample("g", l.d.Bernoulli(logits=l.param("a", [[0.2], [-0.5]])))

    return model, guide


def states(l):  # noqa: E741
    """A hidden Markov chain of three steps."""

    def model(x):
        z = l.array(0.0)
        for t in range(3):
            z = l.sample(f"z{t}", l.d.Bernoulli(0.2 + 0.6 * z))
            l.sample(f"x{t}", l.d.Normal(z, l.param("s", 0.9, positive=True)), obs=x[t])

    def guide(x):
        z = l.array(0.0)
        for t in range(3):
            z = l.sample(f"z{t}", l.d.Bernoulli(logits=l.param(f"a{t}", 0.1 * t) + 0.5 * z))

    return model, guide


def simplex(l):  # noqa: E741
    def model(x):
        z = l.sample("z", l.d.Categorical(l.array([0.5, 0.5])))
        rate = l.at(l.param("rates", [0.5, 2.0], positive=True), z)
        l.sample("p", l.d.Dirichlet(rate * l.array([1.0, 2.0, 3.0])), obs=l.array([0.2, 0.3, 0.5]))
        l.sample("u", l.d.Beta(rate, 1.5), obs=l.array(0.3))
        l.sample("v", l.d.Gamma(rate, 0.5), obs=l.array(1.7))

    def guide(x):
        l.sample("z", l.d.Categorical(logits=l.param("a", [0.2, -0.3])))

    return model, guide


def positive(l):  # noqa: E741
    def model(x):
        z = l.sample("z", l.d.Bernoulli(0.5))
        s = l.param("s", 0.6, positive=True)
        l.sample("a", l.d.LogNormal(z, s), obs=l.array(1.4))
        l.sample("b", l.d.HalfNormal(s + z), obs=l.array(0.8))
        l.sample("c", l.d.HalfCauchy(s), obs=l.array(2.0))
        l.sample("e", l.d.Exponential(1.0 + z), obs=l.array(0.5))
        l.sample("f", l.d.Gumbel(z, s), obs=l.array(0.1))

    def guide(x):
        l.sample("z", l.d.Bernoulli(logits=l.param("q", 0.3)))

    return model, guide


PROGRAMS = [coin, chain, mixture, vector, counts, scaled, nested, states, simplex, positive]


def number(x):
    return np.asarray(x.detach() if isinstance(x, torch.Tensor) else x, float)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_densities_and_exact_gradients_agree(program):
    torch.set_default_dtype(torch.float64)
    try:
        with jax.enable_x64(True):
            compare(program)
    finally:
        torch.set_default_dtype(torch.float32)
        pyro.clear_param_store()


def compare(program):
    """Exact gradients; and the densities of model and guide, with their gradients, at a draw of NumPyro's."""
    sites: list[str] = []
    values = []

    def names(p, q):
        z = q.simulate()
        sites[:] = list(z)
        values.append({name: z[name] for name in z})
        return p.log_density(z) - z.log_density

    model, guide = program(Jax)
    on_jax.objective(names, model, guide).init(jax.random.key(3), Jax.array(X))
    shared = {name: np.asarray(value) for name, value in values[0].items()}

    found = []
    for engine in (Jax, Torch):
        model, guide = program(engine)
        choices = {name: engine.choice(value) for name, value in shared.items()}

        def densities(p, q, choices=choices):
            return p.log_density(choices) - 2.0 * q.log_density(choices)

        for function, strategies in ((densities, {}), (elbo, dict.fromkeys(sites, ppvi.Enumerate()))):
            bound = engine.vi.objective(function, model, guide, strategies=strategies)
            params = bound.init(engine.key(0), engine.array(X))
            value, gradient = bound.value_and_grad(engine.key(1), params, engine.array(X))
            found.append((number(value), {name: number(g) for name, g in gradient.items()}))
    for (value, gradient), (other, slopes) in zip(found[:2], found[2:], strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-5)
        assert set(gradient) == set(slopes)
        for name, slope in gradient.items():
            np.testing.assert_allclose(slopes[name], slope, rtol=1e-5, atol=1e-8, err_msg=name)
