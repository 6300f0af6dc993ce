"""The guide of `models.inter_rater` sees a picture and what a rater says of it."""

import jax.numpy as jnp
import numpyro

from models.inter_rater import HIDDEN, LATENT
from models.networks import glorot, normal, perceptron


def guide(x, y):
    """Returns the distribution of the numbers."""
    weights = numpyro.param("encoder", lambda key: glorot(key, 2 * x.shape[1], HIDDEN, 2 * LATENT))
    both = jnp.concatenate([jnp.broadcast_to(x[:, None], y.shape), y], -1)
    with numpyro.plate("pictures", len(x), dim=-2), numpyro.plate("raters", y.shape[1], dim=-1):
        after = normal(perceptron(weights, both))
        numpyro.sample("z", after)
    return after
