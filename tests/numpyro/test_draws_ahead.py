"""What a loop's rounds draw is drawn ahead of it, all rounds at once, and is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro.contrib.control_flow import scan

import ppvi
import ppvi.numpyro as vi
from ppvi.numpyro import _compat, _draws_ahead

KEY, N = jax.random.key(3), 7


def cost(p, q):
    return q.simulate().returned


def walk():
    m = numpyro.param("m", 0.1)

    def step(x, _):
        with numpyro.plate("walks", 4):
            x = numpyro.sample("x", dist.Normal(x + m, 0.5))
        return x, jnp.tanh(x) ** 2

    return lax.scan(step, jnp.zeros(4), None, length=N)[1].sum()


def of_numpyro():
    m = numpyro.param("m", 0.1)

    def step(x, u):
        x = numpyro.sample("x", dist.StudentT(5.0, x + m, jnp.exp(u)))
        return x, jnp.tanh(x) ** 2

    return scan(step, 0.0, jnp.linspace(-1.0, 0.0, N))[1].sum()


def without_parameters():
    """Draws that nothing decides but keys, beside those that a state does."""
    m = numpyro.param("m", 0.1)

    def step(x, _):
        noise = numpyro.sample("noise", dist.Normal(0.0, 1.0))
        x = numpyro.sample("x", dist.Gamma(2.0 + x**2, jnp.exp(m * noise)))
        return jnp.tanh(x), x

    return lax.scan(step, 0.0, None, length=N)[1].sum()


def nested():
    m = numpyro.param("m", 0.1)

    def inner(x, _):
        x = numpyro.sample("y", dist.Normal(x + m, 1.0))
        return x, x

    def outer(x, _):
        x, ys = lax.scan(inner, x, None, length=3)
        return numpyro.sample("x", dist.Normal(jnp.tanh(x), 1.0)), ys.sum()

    return lax.scan(outer, 0.0, None, length=N)[1].sum()


def in_branches():
    m = numpyro.param("m", 0.1)

    def step(x, _):
        x = lax.cond(
            x > 0,
            lambda x: numpyro.sample("x", dist.Normal(x + m, 1.0)),
            lambda x: numpyro.sample("x", dist.Normal(x - m, 2.0)),
            x,
        )
        return x, x

    return lax.scan(step, 0.5, None, length=N)[1].sum()


def backwards():
    m = numpyro.param("m", 0.1)
    step = lambda x, _: (z := numpyro.sample("x", dist.Normal(x + m, 1.0)), z)  # noqa: E731
    return lax.scan(step, 0.0, None, length=N, reverse=True)[1].sum()


def discrete():
    m = numpyro.param("m", 0.1)

    def step(x, _):
        x = numpyro.sample("x", dist.Categorical(logits=jnp.asarray([0.0, m, 0.3]) * (1.0 + x)))
        return x, jnp.sin(1.0 * x)

    return lax.scan(step, 0, None, length=N)[1].sum()


PROGRAMS = [walk, of_numpyro, without_parameters, nested, in_branches, backwards, discrete]


def bound_of(guide):
    scored = guide in (walk, discrete, in_branches)
    return vi.objective(cost, lambda: None, guide, strategies={"x": ppvi.Reinforce()} if scored else {})


@pytest.mark.parametrize("guide", PROGRAMS, ids=lambda guide: guide.__name__)
def test_the_draws_are_those_of_the_rounds(guide, monkeypatch):
    value, slopes = bound_of(guide).value_and_grad(KEY, {"m": jnp.asarray(0.2)})
    monkeypatch.setattr(_draws_ahead, "MOST", -1)
    expected, others = bound_of(guide).value_and_grad(KEY, {"m": jnp.asarray(0.2)})
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(slopes["m"], others["m"], rtol=1e-4, atol=1e-5)


def draws_in_loops(jaxpr, inside=False):
    for eqn in jaxpr.eqns:
        yield from [eqn] if inside and eqn.primitive.name == "random_bits" else []
        for body in _compat.bodies_in(eqn.params):
            yield from draws_in_loops(body, inside or eqn.primitive.name == "scan")


@pytest.mark.parametrize("guide", [walk, nested, backwards, discrete], ids=lambda guide: guide.__name__)
def test_no_round_draws(guide):
    gradient = jax.make_jaxpr(bound_of(guide).value_and_grad)(KEY, {"m": jnp.asarray(0.2)})
    assert not list(draws_in_loops(gradient.jaxpr))


def test_more_than_is_kept_ahead_is_drawn_in_the_rounds(monkeypatch):
    monkeypatch.setattr(_draws_ahead, "MOST", 4 * N - 1)
    gradient = jax.make_jaxpr(bound_of(walk).value_and_grad)(KEY, {"m": jnp.asarray(0.2)})
    assert list(draws_in_loops(gradient.jaxpr))


def test_long_rounds_take_the_memory_of_one():
    def wide():
        m = numpyro.param("m", 0.1)

        def step(x, _):
            x = numpyro.sample("x", dist.Normal(x * m, 1.0).to_event(1))
            return jnp.tanh(x), x[0]

        return lax.scan(step, jnp.zeros(999), None, length=1000)[1].sum()

    compiled = jax.jit(bound_of(wide).estimate).lower(KEY, {"m": jnp.asarray(0.2)}).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**20


def test_keys_of_another_kind_are_left_in_the_rounds():
    key = jax.random.key(3, impl="rbg")
    gradient = jax.make_jaxpr(lambda: _draws_ahead.drawn_ahead(rbg_step, [jnp.zeros(())], rbg_rounds(key), 0)[1])()
    assert len(gradient.jaxpr.outvars) == 1


def rbg_rounds(key):
    return (jax.random.split(key, (N, 1)),)


def rbg_step(carry, entry):
    ((key,),) = (entry[0],)
    return [carry[0] + jax.random.normal(key, ())], carry[0]
