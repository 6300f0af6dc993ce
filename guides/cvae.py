"""The guide of `models.cvae` sees the whole picture, and none has to be there when it is not: that of `plain` has no sites."""

import jax.numpy as jnp
import numpyro

from models.cvae import HIDDEN, LATENT
from models.networks import glorot, normal, perceptron


def guide(x, y, batch=None, latent=LATENT, hidden=HIDDEN):
    weights = numpyro.param("encoder", lambda key: glorot(key, x.shape[1] + y.shape[1], *hidden, 2 * latent))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        numpyro.sample("z", normal(perceptron(weights, jnp.concatenate([x, y], 1)[rows])))


def nothing(x, y, batch=None):
    """The guide of a model without latent variables."""
