"""Gaussians of drifting vectors: for a chain of times, or for one time by itself.

Smoothing has, of each coordinate of each vector, a Gaussian over all times whose precision is tridiagonal, which is a chain of
conditional distributions. Filtering has a mean and a standard deviation at one time, and goes on to the next from there.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

START = 0.1
"""Of standard deviations, and of the means that are drawn to begin with."""


def begun(shape):
    return lambda key: START * jax.random.normal(key, shape)


def smoothing(shape, times):
    """A chain of arrays of a shape, given the one before."""
    loc = numpyro.param("loc", begun((times, *shape)))
    slope = numpyro.param("slope", jnp.zeros((times, *shape)))
    scale = numpyro.param("scale", jnp.full((times, *shape), START), constraint=constraints.positive)
    off = jnp.zeros(shape)
    for t in range(times):
        u = numpyro.sample(f"u{t}", dist.Normal(loc[t] + slope[t] * off, scale[t]).to_event(len(shape)))
        off = u - loc[t]


def deviations(params):
    """The standard deviations at each time, of a chain."""
    found = [params["scale"][0]]
    for slope, scale in zip(params["slope"][1:], params["scale"][1:], strict=True):
        found.append(jnp.sqrt((slope * found[-1]) ** 2 + scale**2))
    return jnp.stack(found)


def guide(seen, unseen, dimensions, drift):
    smoothing((2, seen.shape[1], dimensions), len(seen))


def of_one_word(seen, unseen, contexts, drift):
    smoothing(contexts.shape[1:], len(seen))


def of_measured(y, noise, drift):
    smoothing(y.shape[1:], len(y))


def at_one_time(seen, unseen, loc, scale):
    shape = loc.shape
    mean = numpyro.param("loc", begun(shape))
    deviation = numpyro.param("scale", jnp.full(shape, START), constraint=constraints.positive)
    numpyro.sample("u", dist.Normal(mean, deviation).to_event(3))
