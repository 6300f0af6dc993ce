"""Divergences of sites with finitely many values, beside the sum written out."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

from ppvi.objectives import analytic_elbo
from tests.engines import ENGINES, NUMPYRO, PYRO, dist, on, ppl, xp

SHARES = np.float32([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]])
OTHERS = np.float32([0.3, 0.3, 0.4])
CHANCES = np.float32([0.2, 0.9])


def binomials(p, n=3):
    return np.stack([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)], -1)


def coins(p):
    return np.stack([1 - p, p], -1)


CASES = {
    "coins": (lambda q: dist.Bernoulli(q), coins, lambda: dist.Bernoulli(0.4), coins(np.float32(0.4)), CHANCES),
    "coins by logits": (
        lambda q: dist.Bernoulli(logits=xp.log(q) - xp.log1p(-q)), coins, lambda: dist.Bernoulli(0.4), coins(np.float32(0.4)), CHANCES
    ),
    "dice": (lambda q: dist.Categorical(q), np.asarray, lambda: dist.Categorical(xp.array(OTHERS)), OTHERS, SHARES),
    "dice by logits": (
        lambda q: dist.Categorical(logits=xp.log(q)), np.asarray, lambda: dist.Categorical(xp.array(OTHERS)), OTHERS, SHARES
    ),
    "fewer values than the model": (
        lambda q: dist.Categorical(q), np.asarray, lambda: dist.Categorical(xp.array(SHARES[0])), SHARES[0, :2],
        np.float32([[0.4, 0.6], [0.1, 0.9]]),
    ),
    "one-hot": (
        lambda q: dist.OneHotCategorical(q), np.asarray, lambda: dist.OneHotCategorical(xp.array(OTHERS)), OTHERS, SHARES
    ),
    "counts": (lambda q: dist.Binomial(3, q), binomials, lambda: dist.Binomial(3, 0.4), binomials(np.float32(0.4)), CHANCES),
    "coins and dice": (
        lambda q: dist.Bernoulli(q), coins, lambda: dist.Categorical(xp.array(np.float32([0.3, 0.7]))), np.float32([0.3, 0.7]), CHANCES
    ),
}  # fmt: skip


def bound_of(engine, guide_of, model_of, start, support):
    def model():
        with ppl.plate("lanes", len(start)):
            ppl.sample("z", model_of())

    def guide():
        with ppl.plate("lanes", len(start)):
            ppl.sample("z", guide_of(ppl.param("q", xp.array(start), constraint=support)))

    bound = engine.vi.objective(analytic_elbo, model, guide)
    return bound, bound.init(engine.key(0))


BOTH = [(engine, name) for engine in ENGINES for name in CASES if engine is PYRO or name != "one-hot"]  # Pyro's alone


@pytest.mark.parametrize(("engine", "name"), BOTH, ids=lambda x: getattr(x, "name", x))
def test_is_the_sum_over_all_values(engine, name):
    """Without noise, and its gradient is that of the sum by differences; the static check proves it."""
    guide_of, masses, model_of, other, start = CASES[name]

    def exact(q):
        q = masses(np.asarray(q, float))
        return -(q * (np.log(q) - np.log(other))).sum()

    with on(engine):
        bound, params = bound_of(engine, guide_of, model_of, start, ppvi_support(start))
        found = [bound.value_and_grad(engine.key(seed), params) for seed in range(3)]
        assert bound.prove(params).verdict == "proved"
    ways = np.eye(start.size).reshape(-1, *start.shape)
    if start.ndim == 2:  # within the simplex
        ways = ways - ways.mean(-1, keepdims=True)
    for value, grads in found:
        np.testing.assert_allclose(value, exact(start), rtol=1e-5)
        slopes = np.asarray(grads["q"])
        for way in ways:
            way = way * (way.any(-1, keepdims=True) if start.ndim == 2 else 1)
            expected = (exact(start + 1e-6 * way) - exact(start - 1e-6 * way)) / 2e-6
            np.testing.assert_allclose((slopes * way).sum(), expected, rtol=1e-3, atol=1e-4)


def ppvi_support(start):
    return dist.constraints.unit_interval if start.ndim == 1 else dist.constraints.simplex


class OneHot(numpyro.distributions.Distribution):
    """Somebody's own, which NumPyro lays wrongly where a plate expands it."""

    arg_constraints: ClassVar = {"logits": numpyro.distributions.constraints.real_vector}
    support = numpyro.distributions.constraints.simplex
    has_enumerate_support = True

    def __init__(self, logits):
        self.logits = logits
        super().__init__(jnp.shape(logits)[:-1], jnp.shape(logits)[-1:])

    def sample(self, key, sample_shape=()):
        return jax.nn.one_hot(
            jax.random.categorical(key, self.logits, shape=sample_shape + self.batch_shape), self.event_shape[0]
        )

    def log_prob(self, value):
        return (value * jax.nn.log_softmax(self.logits)).sum(-1)

    def enumerate_support(self, expand=True):
        k = self.event_shape[0]
        each = jnp.eye(k).reshape(k, *[1] * len(self.batch_shape), k)
        return jnp.broadcast_to(each, (k, *self.batch_shape, k)) if expand else each


def test_of_a_distribution_of_ones_own_that_a_plate_expands():
    with on(NUMPYRO):
        bound, params = bound_of(
            NUMPYRO, lambda q: OneHot(jnp.log(q)), lambda: OneHot(jnp.log(OTHERS)), SHARES, dist.constraints.simplex
        )
        values = [bound.estimate(NUMPYRO.key(seed), params) for seed in range(2)]
    np.testing.assert_allclose(values, -(SHARES * np.log(SHARES / OTHERS)).sum(), rtol=1e-5)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_a_value_that_the_guide_never_takes_counts_nothing(engine):
    with on(engine):
        shut = np.float32([0.0, -np.inf, 0.0])
        bound, params = bound_of(
            engine,
            lambda q: dist.Categorical(logits=xp.log(q) + xp.array(shut)),
            lambda: dist.Categorical(xp.array(np.float32([0.5, 0.0, 0.5]))),
            SHARES,
            dist.constraints.simplex,
        )
        value, grads = bound.value_and_grad(engine.key(0), params)
    q = SHARES[:, [0, 2]] / SHARES[:, [0, 2]].sum(1, keepdims=True)
    np.testing.assert_allclose(value, -(q * np.log(q / 0.5)).sum(), rtol=1e-5)
    assert np.isfinite(np.asarray(grads["q"])).all()


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_a_value_that_the_model_never_takes_makes_it_infinite(engine):
    with on(engine):
        bound, params = bound_of(
            engine,
            lambda q: dist.Categorical(q),
            lambda: dist.Categorical(xp.array(np.float32([0.5, 0.0, 0.5]))),
            SHARES,
            dist.constraints.simplex,
        )
        assert bound.estimate(engine.key(0), params) == -np.inf
