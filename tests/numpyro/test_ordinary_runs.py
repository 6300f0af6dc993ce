"""Ordinary runs of models, which tell `approximate` of their sites: by NumPy, with nothing compiled."""

import logging
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

import ppvi
import ppvi.numpyro as vi
from ppvi.numpyro._beginnings import first_run
from ppvi.numpyro._guides import is_latent, run_of

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(12, 2)), RNG.normal(size=12)


def regression(x, y):
    slopes = numpyro.sample("slopes", dist.Normal(0, 5).expand([2]).to_event(1))
    scale = numpyro.sample("scale", dist.HalfCauchy(2.0))
    ordered = numpyro.sample(
        "ordered", dist.TransformedDistribution(dist.Normal(0, 1).expand([3]), dist.transforms.OrderedTransform())
    )
    numpyro.deterministic("twice", 2 * scale + ordered.sum())
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(x @ slopes, scale), obs=y)


def constrained(x, y):
    low = numpyro.sample("low", dist.Uniform(-1.0, 2.0))
    shares = numpyro.sample("shares", dist.Dirichlet(jnp.ones(3)))
    chol = numpyro.sample("chol", dist.LKJCholesky(2, 1.5))
    precision = numpyro.sample("precision", dist.Gamma(2.0, jnp.exp(low)))
    numpyro.sample("truncated", dist.TruncatedNormal(0.0, 1.0, low=low))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(2), scale_tril=chol / precision), obs=y[:2] + shares[0])


def walk(x, y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))

    def step(before, y):
        z = numpyro.sample("z", dist.Normal(before, scale))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return z, z

    scan(step, jnp.zeros(()), jnp.asarray(y))


def reading(x, y):
    loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
    if loc > 100:  # needs the number, which an ordinary run has
        loc = loc / 2
    numpyro.sample("y", dist.Normal(loc, 1.0), obs=y)


class Shifted(dist.Distribution):
    """As one writes it who has not heard of trees: its fields are lost where JAX takes it apart."""

    arg_constraints: ClassVar = {}

    def __init__(self, low):
        self.low, self.above = low, dist.Exponential(1.0)
        super().__init__()

    @property
    def support(self):
        return dist.constraints.greater_than(self.low)

    def log_prob(self, value):
        return self.above.log_prob(value - self.low)


class Times(dist.transforms.ParameterFreeTransform):
    domain = codomain = dist.constraints.real

    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return self.by * x

    def _inverse(self, y):
        return y / self.by

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return jnp.log(self.by)


def of_ones_own(x, y):
    low = numpyro.sample("low", Shifted(1.0))
    times = numpyro.sample("times", dist.TransformedDistribution(dist.Normal(0.0, 1.0), [Times(2.0)]))
    several = numpyro.sample("several", Shifted(2.0).expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(low + times + several.sum(), 1.0), obs=y)


def by_jax(model, i):
    """The same run, operation by operation."""
    random = np.random.default_rng(i)

    def start(site):
        if not is_latent(site):
            return None
        onto = dist.biject_to(site["fn"].support)
        return onto(jnp.asarray(random.uniform(-2.0, 2.0, onto.inverse_shape(site["fn"].shape()))))

    model = numpyro.handlers.substitute(model, substitute_fn=start)
    return numpyro.handlers.trace(numpyro.handlers.seed(model, i)).get_trace(X, Y)


@pytest.mark.parametrize("model", [regression, constrained, walk, reading, of_ones_own])
def test_a_run_by_numpy_is_that_of_jax(model):
    found = run_of(model, 1, (X, Y), {})
    expected = by_jax(model, 1)
    assert list(found) == list(expected)
    for name, site in expected.items():
        if site["type"] in ("sample", "deterministic"):
            assert np.shape(found[name]["value"]) == np.shape(site["value"])
            np.testing.assert_allclose(found[name]["value"], site["value"], rtol=2e-5, atol=1e-6)
        if site["type"] == "sample":
            ours, theirs = found[name]["fn"], site["fn"]
            assert (type(ours), ours.shape()) == (type(theirs), theirs.shape())
            np.testing.assert_allclose(
                ours.log_prob(site["value"]), theirs.log_prob(site["value"]), rtol=2e-4, atol=1e-5
            )


@pytest.mark.parametrize("model", [regression, constrained, walk])
def test_a_run_by_numpy_compiles_no_operation_of_the_model(model, caplog):
    jax.clear_caches()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run_of(model, 0, (X, Y), {})
    compiled = [x.getMessage() for x in caplog.records if "XLA compilation of" in x.getMessage()]
    assert len(compiled) < 12, compiled  # of keys, and what NumPy has no rule for


def test_a_program_with_a_site_in_a_loop_begins_traced(caplog):
    """What depends on draws is not computed: a first run compiles no loop."""

    def guide(x, y):
        loc, scale = numpyro.param("loc", 0.0), numpyro.sample("scale", dist.LogNormal(0.0, 1.0))

        def step(before, _):
            z = numpyro.sample("z", dist.Normal(before, scale))
            return z, z

        scan(step, loc, None, len(y))

    bound = vi.objective(ppvi.objectives.elbo, walk, guide)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        start = first_run(ppvi.objective.estimator_of(bound).formula, jax.random.key(0), {}, (X, Y), {})
    assert set(start.params) == {"loc"}
    of_something = "Compiling jit(scan) with global shapes and types (Shaped"
    assert not any(of_something in x.getMessage() for x in caplog.records)
