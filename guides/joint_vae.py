"""The guide of `models.joint_vae`: one network says of an image where it lies and which kind it is, independently."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.joint_vae import HIDDEN, LATENT, OneHot
from models.networks import glorot, perceptron


def encode(weights, x):
    """Of images: location and scale of their points, and logits of their kinds."""
    loc, log_scale, logits = jnp.split(perceptron(weights, x), [LATENT, 2 * LATENT], -1)
    return loc, jnp.exp(log_scale), logits


def guide(x, share=1.0, kinds=10):
    """Returns the distributions that it draws from, and `share`."""
    weights = numpyro.param("encoder", lambda key: glorot(key, x.shape[1], HIDDEN, 2 * LATENT + kinds))
    loc, scale, logits = encode(weights, x)
    with numpyro.plate("images", len(x)):
        numpyro.sample("z", dist.Normal(loc, scale).to_event(1))
        numpyro.sample("c", OneHot(logits))
    return loc, scale, logits, share
