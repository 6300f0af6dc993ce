"""Guide of the variational autoencoder: one network says of every image which points of the latent space may have made it."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.networks import glorot, perceptron
from models.vae import HIDDEN, LATENT, PIXELS


def encoder(key):
    """Weights from which training starts."""
    return glorot(key, PIXELS, HIDDEN, HIDDEN, 2 * LATENT)


def encode(weights, x):
    """Location and scale of the points that may have made images."""
    out = perceptron(weights, x)
    return out[..., :LATENT], jnp.exp(out[..., LATENT:])


def guide(x, batch=None):
    weights = numpyro.param("encoder", encoder)
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        loc, scale = encode(weights, x[rows])
        numpyro.sample("z", dist.Normal(loc, scale).to_event(1))
