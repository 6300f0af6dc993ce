"""Guides of a network's weights: a Gaussian for each, or a point.

Both begin at the random weights of He et al., "Delving deep into rectifiers", ICCV 2015, with biases of zero, so that
training of points and of a posterior have the same start.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.ivon import layers

SCALE = 0.0125
"""Of weights, at the beginning."""


def start(shape):
    """Takes a key to weights of a layer and its biases."""
    inputs, outputs = shape[0] - 1, shape[1]

    def draw(key):
        weights = jax.random.normal(key, (inputs, outputs)) * (2 / inputs) ** 0.5
        return jnp.concatenate([weights, jnp.zeros((1, outputs))])

    return draw


def guide(x, y, total):
    """A mean and a standard deviation for each weight."""
    for name, shape in layers(x.shape[1]).items():
        loc = numpyro.param(f"{name}_loc", start(shape))
        scale = numpyro.param(f"{name}_scale", jnp.full(shape, SCALE), constraint=dist.constraints.positive)
        numpyro.sample(name, dist.Normal(loc, scale).to_event(2))


def points(x, y, total):
    """One value for each weight."""
    for name, shape in layers(x.shape[1]).items():
        numpyro.sample(name, dist.Delta(numpyro.param(f"{name}_loc", start(shape)), event_dim=2))
