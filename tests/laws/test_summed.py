"""Models with finite sites that the guide lacks: bounds that are no ELBO, against quadrature; and what is refused, by its names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppvi
from ppvi import ProgramError
from ppvi.strategies import Quadrature
from tests.engines import dist, double, handlers, nn, on, ppl, xp
from tests.laws.cases import nothing

X = np.array([0.4, -1.2, 2.1])
SPREAD = np.array([-1.0, 0.5, 2.0])
PARAMS = {"w": np.array([0.3, -0.5, 0.1]), "m": np.array(0.4), "s": np.array(-0.3)}


def mixture():
    u = ppl.sample("u", dist.Normal(0.0, 1.0))
    with ppl.plate("rows", 3):
        z = ppl.sample("z", dist.Categorical(nn.softmax(ppl.param("w"), -1)))
        ppl.sample("x", dist.Normal(xp.array(SPREAD)[z] * u, 0.8), obs=xp.array(X))


def guide():
    ppl.sample("u", dist.Normal(ppl.param("m"), xp.exp(ppl.param("s"))))


def normal(x, mean, sd):
    return -0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) - 0.5 * np.log(2 * np.pi)


def of_pairs(combine):
    """The mean of a function of two log weights, by the trapezoidal rule for either draw."""

    def exact(params):
        nodes = np.linspace(-9.0, 9.0, 301)
        masses, sd = np.exp(-0.5 * nodes**2), jnp.exp(params["s"])
        masses /= masses.sum()
        u = params["m"] + sd * nodes
        each = jnp.log(jax.nn.softmax(params["w"])) + normal(X[:, None], SPREAD * u[:, None, None], 0.8)
        log_w = normal(u, 0.0, 1.0) + jax.nn.logsumexp(each, -1).sum(-1) - normal(u, params["m"], sd)
        return masses @ combine(log_w[:, None], log_w[None]) @ masses

    return exact


BOUNDS = {
    "iwelbo": (ppvi.objectives.iwelbo(2), lambda x, y: jnp.logaddexp(x, y) - np.log(2)),
    "renyi": (ppvi.objectives.renyi(0.5, 2), lambda x, y: 2 * (jnp.logaddexp(0.5 * x, 0.5 * y) - np.log(2))),
    "elbo": (ppvi.objectives.elbo, lambda x, y: 0.5 * (x + y)),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_against_quadrature(engine, name):
    objective, combine = BOUNDS[name]
    with double():
        with on(engine):
            bound = engine.vi.objective(objective, mixture, guide, strategies={"u": Quadrature(60)})
            params = {name: engine.array(x) for name, x in PARAMS.items()}
            found = jax.tree.map(np.asarray, bound.value_and_grad(engine.key(0), params))
        exact = jax.value_and_grad(of_pairs(combine))({name: jnp.asarray(x) for name, x in PARAMS.items()})
    np.testing.assert_allclose(found[0], exact[0], rtol=1e-7)
    for name, slope in exact[1].items():
        np.testing.assert_allclose(found[1][name], slope, rtol=1e-6, atol=1e-7, err_msg=name)


# What is refused ---------------------------------------------------------------------------------------------------------


def switched():
    """A switch for all rows, of which a minibatch is seen."""
    z = ppl.sample("switch", dist.Bernoulli(0.3))
    with ppl.plate("rows", 3, subsample_size=2) as i:
        ppl.sample("x", dist.Normal(2.0 * z, 1.0), obs=xp.array(X)[i])


def unevenly_scaled():
    with ppl.plate("rows", 3):
        z = ppl.sample("label", dist.Bernoulli(0.3))
        with handlers.scale(scale=2.0):
            ppl.sample("x", dist.Normal(2.0 * z, 1.0), obs=xp.array(X))


def scaled_by_row():
    z = ppl.sample("switch", dist.Bernoulli(0.3))
    with ppl.plate("rows", 3), handlers.scale(scale=xp.array([1.0, 2.0, 3.0])):
        ppl.sample("x", dist.Normal(2.0 * z, 1.0), obs=xp.array(X))


def crossing():
    with ppl.plate("people", 14, dim=-2):
        skill = ppl.sample("skill", dist.Bernoulli(0.3))
    with ppl.plate("tasks", 15, dim=-1):
        task = ppl.sample("task", dist.Bernoulli(0.6))
    with ppl.plate("people", 14, dim=-2), ppl.plate("tasks", 15, dim=-1):
        ppl.sample("x", dist.Normal(1.0 * skill + task, 1.0), obs=xp.zeros((14, 15)))


def mixed():
    with ppl.plate("rows", 13):
        z = ppl.sample("label", dist.Bernoulli(0.3))
    ppl.sample("total", dist.Normal(xp.sum(1.0 * z), 1.0), obs=xp.array(3.0))


def grid():
    with ppl.plate("across", 8, dim=-2), ppl.plate("down", 8, dim=-1):
        z = 1.0 * ppl.sample("spin", dist.Bernoulli(0.3))
    with ppl.plate("inner across", 7, dim=-2), ppl.plate("inner down", 7, dim=-1):
        ppl.sample("x", dist.Normal(z[1:, 1:] - z[:-1, 1:] + z[1:, :-1], 1.0), obs=xp.zeros((7, 7)))


def endless():
    n = ppl.sample("count", dist.Poisson(2.0))
    ppl.sample("x", dist.Normal(1.0 * n, 1.0), obs=xp.array(0.3))


REFUSED = {
    "a summed site outside of a minibatch": (switched, r"'x' at .*is on a minibatch, and depends on 'switch'.*Move"),
    "scales that differ": (unevenly_scaled, r"'label' at .* and 'x' at .*different scales.*same scale around both"),
    "a scale for each row of one sum": (scaled_by_row, r"'switch' at .* and 'x' at .*different scales"),
    "plates that cross": (crossing, r"'skill', 'task' cannot be summed out: .*plates that cross, and 'x'.*1.64e\+04"),
    "rows that are mixed": (mixed, r"'label' ~ Bernoulli.* cannot be summed out: the density of 'total' at .*13 of its entries"),
    "a grid": (grid, r"'spin'.* (two axes at once, as on a grid|64 of its entries at once)"),
    "a site without an end": (endless, r"latent site 'count' of the model at .* has no value"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(engine, name):
    model, message = REFUSED[name]
    with on(engine):
        bound = engine.vi.objective(lambda p, q: p.log_density({}) + ppl.param("a"), model, nothing)
        with pytest.raises(ProgramError, match=message):
            bound.value_and_grad(engine.key(0), {"a": engine.array(np.array(1.0))})


def test_the_sites_of_the_largest_table_are_named(engine):
    """Of many that depend on one another at once."""

    def model():
        parents = [ppl.sample(f"z{i}", dist.Categorical(xp.ones(16) / 16)) for i in range(8)]
        ppl.sample("x", dist.Normal(sum(1.0 * z for z in parents), 1.0), obs=xp.array(0.3))

    with on(engine):
        bound = engine.vi.objective(lambda p, q: p.log_density({}) + ppl.param("a"), model, nothing)
        with pytest.raises(ProgramError, match=r"takes a table of 4.29e\+09 entries, over all values of .*'z6'"):
            bound.value_and_grad(engine.key(0), {"a": engine.array(np.array(1.0))})


def test_a_site_without_an_end_that_is_named(engine):
    with on(engine):
        bound = engine.vi.objective(
            lambda p, q: ppvi.summed(p, "count").log_density({}) + ppl.param("a"), endless, nothing
        )
        with pytest.raises(ProgramError, match=r"'count' .*Poisson, which has not finitely many values"):
            bound.value_and_grad(engine.key(0), {"a": engine.array(np.array(1.0))})
