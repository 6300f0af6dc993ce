"""The guide of `models.infovae`: a network reads the whole picture and writes a Gaussian."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.infovae import LATENT, PIXELS
from models.networks import glorot, perceptron


def encoder(key):
    """Weights from which training starts."""
    return glorot(key, PIXELS, 200, 2 * LATENT)


def encode(weights, x):
    """The Gaussians of pictures."""
    loc, log_scale = jnp.split(perceptron(weights, x), 2, -1)
    return dist.Normal(loc, jnp.exp(log_scale)).to_event(1)


def guide(x, batch=None):
    weights = numpyro.param("encoder", encoder)
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        numpyro.sample("z", encode(weights, x[rows]))
