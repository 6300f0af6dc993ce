"""The guide of `models.pendulum`: a network reads the angles, and says the frequency, the start and what else there is."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.networks import glorot, perceptron
from models.pendulum import AUX


def encode(weights, x):
    """Locations and scales of the log of the frequency, the start, and the rest, `(n, 2 + AUX)` each."""
    loc, log_scale = jnp.split(perceptron(weights, x), 2, -1)
    return loc, jnp.exp(log_scale - 2)


def guide(x):
    weights = numpyro.param("encoder", lambda key: glorot(key, x.shape[1], 64, 64, 2 * (2 + AUX)))
    with numpyro.plate("pendulums", len(x)):
        loc, scale = encode(weights, x)
        numpyro.sample("w", dist.LogNormal(loc[:, 0], scale[:, 0]))
        numpyro.sample("start", dist.Normal(loc[:, 1], scale[:, 1]))
        numpyro.sample("aux", dist.Normal(loc[:, 2:], scale[:, 2:]).to_event(1))
