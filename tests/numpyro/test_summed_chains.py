"""Chains in loops that are summed out: of any order and length, forwards and backwards, as sums over all paths have them."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro.contrib.control_flow import scan

import ppvi.numpyro as vi
from ppvi.objectives import elbo

NEXT = np.random.default_rng(0).dirichlet(np.ones(3), (3, 3))
Y = np.array([0.3, -1.0, 2.0, 0.4])
LOOPS = {"scan": scan, "lax.scan": lax.scan}


def chain(y, loop, reverse):
    shift = numpyro.param("shift", 0.1)

    def step(before, y):
        last, older = before
        z = numpyro.sample("z", dist.Categorical(jnp.asarray(NEXT)[last, older]))
        numpyro.sample("y", dist.Normal(z + 0.3 * last + shift, 1.0), obs=y)
        return (z, last), None

    LOOPS[loop](step, (jnp.array(0), jnp.array(1)), y, reverse=reverse)


def by_paths(y, shift):
    total = 0.0
    for path in itertools.product(range(3), repeat=len(y)):
        probability, last, older = 1.0, 0, 1
        for z, x in zip(path, y, strict=True):
            error = x - z - 0.3 * last - shift
            probability *= NEXT[last, older, z] * math.exp(-0.5 * error**2) / math.sqrt(2 * math.pi)
            last, older = z, last
        total += probability
    return math.log(total)


def test_a_sampler_may_branch_in_a_round():
    """A Binomial's does, and rounds are run side by side all the same."""

    def model(y):
        def step(before, y):
            z = numpyro.sample("z", dist.Binomial(2, jax.nn.sigmoid(0.3 * before - 0.2)))
            numpyro.sample("y", dist.Normal(z + numpyro.param("shift", 0.1), 1.0), obs=y)
            return z, None

        scan(step, jnp.array(0), y)

    def path(values):
        probability = 1.0
        for before, z, y in zip((0, *values), values, Y, strict=False):
            p = 1 / (1 + math.exp(0.2 - 0.3 * before))
            probability *= math.comb(2, z) * p**z * (1 - p) ** (2 - z)
            probability *= math.exp(-0.5 * (y - z - 0.1) ** 2) / math.sqrt(2 * math.pi)
        return probability

    bound = vi.objective(elbo, model, lambda y: None)
    exact = math.log(sum(map(path, itertools.product(range(3), repeat=len(Y)))))
    assert float(bound.estimate(jax.random.key(0), {"shift": 0.1}, jnp.asarray(Y))) == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_chain_of_order_two(loop, reverse, length):
    y, key = Y[:length], jax.random.key(0)
    bound = vi.objective(elbo, chain, lambda *args: None)
    value, gradient = bound.value_and_grad(key, {"shift": 0.1}, jnp.asarray(y), loop, reverse)
    ordered = y[::-1] if reverse else y
    slope = (by_paths(ordered, 0.1 + 1e-5) - by_paths(ordered, 0.1 - 1e-5)) / 2e-5
    assert float(value) == pytest.approx(by_paths(ordered, 0.1), abs=1e-4)
    assert float(gradient["shift"]) == pytest.approx(slope, abs=1e-4)
