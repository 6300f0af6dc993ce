"""The guide of `models.inpainting`: a network reads what is seen of a picture, and where, and writes a Gaussian."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from guides.vae import encode
from models.networks import glorot


def partial_encode(weights, x, seen):
    """Location and scale of the points that may have made what is seen of images."""
    return encode(weights, jnp.concatenate([x * seen, seen], -1))


def guide(x, seen, latent, hidden=(200,)):
    weights = numpyro.param("partial", lambda key: glorot(key, 2 * x.shape[1], *hidden, 2 * latent))
    with numpyro.plate("images", len(x)):
        numpyro.sample("z", dist.Normal(*partial_encode(weights, x, seen)).to_event(1))
