"""Counts of probability zero: their densities have no NaN in their derivatives, whatever multiplies them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ppvi.numpyro as vi
from ppvi import Enumerate, LeaveOneOut, MeasureValued, Reinforce
from ppvi.numpyro._edges import careful
from ppvi.objectives import elbo
from ppvi.strategies import ARM, LocalExpectation

LARGE = 1e6


def log_prob(fn, value):
    with careful():
        return fn.log_prob(value)


def bernoulli(p):
    return dist.Bernoulli(p)


def binomial(p):
    return dist.Binomial(3, p)


def multinomial(p):
    return dist.Multinomial(3, jnp.array([p, 1 - p, 0.0]))


@pytest.mark.parametrize(
    ("fn", "value"),
    [(bernoulli, 0), (binomial, 0), (multinomial, jnp.array([0, 3, 0]))],
    ids=["Bernoulli", "Binomial", "Multinomial"],
)
def test_a_count_of_probability_zero(fn, value):
    """d/dp n log(1 - p) = -n / (1 - p); NumPyro keeps a Bernoulli's and a Binomial's p above 0, where it is then constant."""
    slope = jax.grad(lambda p: LARGE * log_prob(fn(p), value))
    assert slope(0.0) == (-3 * LARGE if fn is multinomial else 0.0)
    n = 1 if fn is bernoulli else 3
    np.testing.assert_allclose(slope(0.25), -n * LARGE / 0.75, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(slope)(jnp.array([0.0, 0.25]))[1], -n * LARGE / 0.75, rtol=1e-6)


def test_the_derivative_in_the_count():
    """Of a density continued between the counts, as relaxed draws ask for it: d/dx [x log p + (1 - x) log(1 - p)]."""
    fn = dist.Bernoulli(0.25, validate_args=False)
    np.testing.assert_allclose(jax.grad(lambda x: log_prob(fn, x))(0.0), np.log(0.25 / 0.75), rtol=1e-6)


@pytest.mark.parametrize(
    "strategy",
    [Reinforce(), LeaveOneOut(2), MeasureValued(), LocalExpectation(), Enumerate(), ARM()],
    ids=lambda s: type(s).__name__,
)
def test_a_second_object_only_after_a_first(strategy):
    """Presence as in Attend, Infer, Repeat, each object worth so much that a score overflows where it is divided by zero.

    E = p (1 + q) worth - KL, with the KL of the two chains by hand.
    """

    def model():
        first = numpyro.sample("first", dist.Bernoulli(0.3))
        second = numpyro.sample("second", dist.Bernoulli(0.2 * first))
        numpyro.factor("worth", LARGE * (first + second))

    def guide():
        p, q = numpyro.param("chances", jnp.array([0.6, 0.4]))
        first = numpyro.sample("first", dist.Bernoulli(p))
        numpyro.sample("second", dist.Bernoulli(q * first))

    def expected(chances):
        p, q = chances
        kl = p * jnp.log(p / 0.3) + (1 - p) * jnp.log((1 - p) / 0.7)
        kl += p * (q * jnp.log(q / 0.2) + (1 - q) * jnp.log((1 - q) / 0.8))
        return p * (1 + q) * LARGE - kl

    bound = vi.objective(elbo, model, guide, strategies={"first": strategy, "second": strategy})
    params = bound.init(jax.random.key(0))
    grads = jax.vmap(lambda key: bound.value_and_grad(key, params)[1]["chances"])(
        jax.random.split(jax.random.key(1), 4000)
    )
    exact, error = jax.grad(expected)(params["chances"]), grads.std(0) / np.sqrt(len(grads))
    assert np.isfinite(grads).all()
    assert (np.abs(grads.mean(0) - exact) <= 4 * error + 1e-5 * LARGE).all()


def test_numpyro_is_left_as_it_was():
    with careful():
        pass
    assert jnp.isnan(jax.grad(lambda p: LARGE * dist.Bernoulli(p).log_prob(0))(0.0))


def test_a_softplus_of_which_one_side_alone_is_vectorised():
    """log(e^x + e^y) within vmap, with y the same in all lanes, of one axis fewer."""

    def guide():
        numpyro.sample("z", dist.Normal(numpyro.param("loc", jnp.zeros(3)), 1.0).to_event(1))

    def program(p, q):
        z = q.simulate()["z"]

        def one(t):
            return jnp.where(t * z > 0, 1.0, 0.5) * 0 + jnp.logaddexp(t * z, jnp.zeros(3))

        return jax.vmap(jax.vmap(one))(jnp.array([[0.5, 1.0], [1.0, 2.0]])).sum()

    bound = vi.objective(program, guide, guide)
    assert bound.prove({"loc": jnp.zeros(3)}).verdict == "proved"


def test_logits_have_a_slope_and_a_curvature_at_zero():
    def model(y):
        numpyro.sample("y", dist.Bernoulli(logits=numpyro.param("logit", 0.0)), obs=y)
        numpyro.sample("z", dist.Normal(0.0, 1.0))

    def guide(y):
        numpyro.sample("z", dist.Normal(0.0, 1.0))

    bound = vi.objective(elbo, model, guide)
    of = lambda logit: bound.surrogate(jax.random.key(0), {"logit": logit}, 1.0)  # noqa: E731
    for logit in (0.0, 1e-20, -0.7, 3.0):
        probability = 1 / (1 + np.exp(-logit))
        np.testing.assert_allclose(jax.grad(of)(jnp.array(logit)), 1 - probability, rtol=1e-5)
        second = jax.grad(jax.grad(of))(jnp.array(logit))
        np.testing.assert_allclose(second, -probability * (1 - probability), rtol=1e-5)


@pytest.mark.parametrize("logit", [0.0, 0.3, -2.0])
def test_second_derivatives_of_a_function_of_a_density(logit):
    """At a logit of 0 as elsewhere: forward over reverse takes the derivative of the value that a rule returns, too."""

    def function(logit):
        with careful():
            return jnp.sin(dist.Bernoulli(logits=logit).log_prob(1.0))

    share = 1 / (1 + np.exp(-logit))
    value, slope, curve = np.log(share), 1 - share, -share * (1 - share)
    expected = -np.sin(value) * slope**2 + np.cos(value) * curve
    assert jax.jacfwd(jax.grad(function))(logit) == pytest.approx(expected, abs=1e-5)
