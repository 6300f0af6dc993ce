"""What the walk back from the objective finds, and where it stops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

import ppvi.numpyro as vi
from ppvi.compiler.continuation import align
from ppvi.ir import Along, along
from ppvi.numpyro._ops import OPS
from ppvi.objectives import elbo

KEY = jax.random.key(0)
INF = math.inf


def terms_of(program, model, guide, strategies=None):
    bound = vi.objective(program, model, guide, strategies=strategies)
    params = bound.init(KEY)
    return bound.explain(params).terms


def image_model():
    """Four images of 3 x 5 pixels, one label each, a likelihood that is a density per pixel."""
    with numpyro.plate("images", 4):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
    with numpyro.plate("rows", 3, dim=-2), numpyro.plate("columns", 5, dim=-1), numpyro.plate("images", 4, dim=-3):
        numpyro.sample("x", dist.Normal(z[:, None, None], 1.0), obs=jnp.zeros((4, 3, 5)))


def image_guide():
    with numpyro.plate("images", 4):
        numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("logits", jnp.zeros(4))))


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_likelihood_over_pixels_is_one_entry_per_image(scale):
    (term,) = terms_of(elbo, handlers.scale(image_model, scale), image_guide)
    assert term.shape == (4,)
    assert term.sites == {"z": "lane by lane"}
    assert len(term.parts) == 3


def test_pathwise_programs_are_not_taken_apart():
    def model():
        numpyro.sample("x", dist.Normal(0.0, 1.0).expand([7]).to_event(1))

    def guide():
        numpyro.sample("x", dist.Normal(numpyro.param("loc", jnp.zeros(7)), 1.0).to_event(1))

    (term,) = terms_of(elbo, model, guide)
    assert term.shape == ()
    assert not term.sites
    assert term.parts[0].startswith("sub")


def test_a_prior_that_needs_no_credit_is_parted_off():
    def model():
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        numpyro.sample("z", dist.Bernoulli(jax.nn.sigmoid(m)))

    def guide():
        numpyro.sample("m", dist.Normal(numpyro.param("loc", 0.0), 1.0))
        numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("logit", 0.0)))

    (term,) = terms_of(elbo, model, guide)
    assert sorted(part.split(" (")[0] for part in term.parts) == ["log_prob of z", "log_prob of z"]


def test_a_normaliser_stays_with_its_density():
    def program(p, q):
        return p.log_density(q.simulate()) + 7.0

    def model():
        z = numpyro.sample("z", dist.Bernoulli(0.3).expand([3]).to_event(1))
        numpyro.sample("y", dist.Normal(z, jnp.exp(numpyro.param("log_scale", 0.1))), obs=jnp.ones(3))

    def guide():
        numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("logits", jnp.zeros(3))).to_event(1))

    (term,) = terms_of(program, model, guide)
    assert term.shape == (3,)
    assert any(part.startswith("log_prob of y") for part in term.parts)
    assert len(term.parts) == 2


def test_sites_of_different_terms_do_not_meet():
    def program(p, q):
        z = q.simulate()
        return z["a"] * 2.0 + z["b"] ** 2 + z["a"] * z["b"]

    def guide():
        for name in "ab":
            numpyro.sample(name, dist.Bernoulli(logits=numpyro.param(f"logit_{name}", 0.0)))

    found = {frozenset(term.sites) for term in terms_of(program, lambda: None, guide)}
    assert found == {frozenset("a"), frozenset("b"), frozenset("ab")}


@pytest.mark.parametrize(
    ("lanes", "shape", "expected"),
    [
        ((0, 1), (2, 3), lambda w: w),
        ((1, 0), (3, 2), lambda w: w.T),
        ((None, 0), (3,), lambda w: w.sum(0)),
        ((2, None), (4, 5, 2), lambda w: w.sum(1)[None, None]),
        ((2, 0), (3, 5, 2), lambda w: w.T[:, None, :]),
        ((None, None), (), lambda w: w.sum()),
        ((0, Along(1, -INF, 0)), (2, 3), lambda w: w.cumsum(1)),
        ((0, Along(1, 0, INF)), (2, 3), lambda w: w[:, ::-1].cumsum(1)[:, ::-1]),
        ((None, Along(0, -INF, -1)), (3,), lambda w: jnp.array([0.0, 3.0, 8.0])),
        ((None, Along(0, 1, INF)), (3,), lambda w: jnp.array([12.0, 7.0, 0.0])),
        ((None, Along(0, -1, 0)), (3,), lambda w: jnp.array([3.0, 8.0, 12.0])),
        ((None, Along(0, 0, 1)), (2,), lambda w: jnp.array([8.0, 12.0])),
        ((Along(0, -2, -1), 1), (2, 3), lambda w: jnp.stack([0 * w[0], w[0]])),
    ],
)
def test_weights_are_laid_along_terms(lanes, shape, expected):
    w = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(align(OPS, w, [along(lane) for lane in lanes], shape), expected(w))
