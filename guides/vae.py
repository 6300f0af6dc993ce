"""Guide of the variational autoencoder: one network says of every image which points of the latent space may have made it."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.networks import glorot, perceptron
from models.vae import HIDDEN, LATENT


def encode(weights, x, activation=jnp.tanh):
    """Location and scale of the points that may have made images."""
    loc, log_scale = jnp.split(perceptron(weights, x, activation), 2, -1)
    return loc, jnp.exp(log_scale)


def guide(x, batch=None, latent=LATENT, hidden=(HIDDEN, HIDDEN), activation=jnp.tanh):
    """Returns location and scale of each image's Gaussian, `(images, latent)` both."""
    weights = numpyro.param("encoder", lambda key: glorot(key, x.shape[1], *hidden, 2 * latent))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        loc, scale = encode(weights, x[rows], activation)
        numpyro.sample("z", dist.Normal(loc, scale).to_event(1))
    return loc, scale
