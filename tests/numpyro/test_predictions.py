"""Predictions of models with loops: NumPyro's own `Predictive` says what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer import Predictive

import ppvi
import ppvi.numpyro as vi

Y = jnp.linspace(3.0, 5.0, 6)
DRAWS = 4000


def walk(y=None, rounds=6):
    """A random walk that is seen with noise."""
    step = numpyro.sample("step", dist.HalfNormal(1.0))

    def one(x, y):
        x = numpyro.sample("x", dist.Normal(x, step))
        numpyro.sample("y", dist.Normal(x, 0.5), obs=y)
        return x, None

    scan(one, 0.0, y, length=rounds)


def guide_of_walk(y=None, rounds=6):
    numpyro.sample("step", dist.LogNormal(numpyro.param("s", 0.0), 0.1))
    scan(lambda c, y: (c, numpyro.sample("x", dist.Normal(y, 0.1))), 0.0, Y)


def chain(y=None, rounds=6):
    def one(z, y):
        z = numpyro.sample("x", dist.Bernoulli(jnp.where(z == 1, 0.9, 0.2)))
        numpyro.sample("y", dist.Normal(4.0 * z, 0.5), obs=y)
        return z, None

    scan(one, 0, y, length=rounds)


def predicted(model, guide, rounds=6, **options):
    bound = vi.objective(ppvi.objectives.elbo, model, guide)
    params = bound.init(jax.random.key(0), Y)
    on = bound.on(None, rounds)
    data = vi.predict(bound.on(Y), jax.random.key(1), params, draws=DRAWS, on=on, **options)
    draws = {name: jnp.asarray(x.values[0]) for name, x in data["posterior"].data_vars.items()}
    found = {name: x.values[0] for name, x in data["predictions"].data_vars.items()}
    return draws, found


def assert_alike(found, wanted):
    """Means and sds of draws of two runs, within five standard errors of each."""
    found, wanted = (np.asarray(x, float) for x in (found, wanted))
    error = np.maximum(found.std(0), wanted.std(0)) * np.sqrt(2 / len(found))
    np.testing.assert_array_less(np.abs(found.mean(0) - wanted.mean(0)), 5 * error + 1e-3)
    np.testing.assert_allclose(found.std(0), wanted.std(0), rtol=0.1)


@pytest.mark.parametrize(("model", "guide"), [(walk, guide_of_walk), (chain, lambda y=None, rounds=6: None)])
@pytest.mark.parametrize("rounds", [pytest.param(6, marks=pytest.mark.slow), 9])
def test_draws_in_a_loop_are_used_and_gone_on_from(model, guide, rounds):
    draws, found = predicted(model, guide, rounds)
    wanted = Predictive(model, draws)(jax.random.key(2), None, rounds)
    assert_alike(found["y"], wanted["y"])
    if rounds > 6:
        np.testing.assert_array_equal(found["x"][:, :6], draws["x"])


@pytest.mark.slow
def test_a_loop_of_its_own_is_drawn_from_the_model():
    for rounds, options in ((4, {}), (6, {"redraw": "x"}), (9, {"redraw": "x"})):
        draws, found = predicted(walk, guide_of_walk, rounds, **options)
        wanted = Predictive(walk, {"step": draws["step"]})(jax.random.key(2), None, rounds)
        assert_alike(found["x"], wanted["x"])


def test_predictions_on_the_data_of_the_fit():
    bound = vi.objective(ppvi.objectives.elbo, walk, guide_of_walk)
    data = vi.predict(bound.on(Y), jax.random.key(1), {"s": jnp.array(0.0)}, draws=DRAWS)
    rest = data["posterior_predictive"]["y"].values[0] - data["posterior"]["x"].values[0]
    np.testing.assert_allclose(rest.std(0), 0.5, rtol=0.06)
    np.testing.assert_allclose(rest.mean(0), 0.0, atol=0.04)
