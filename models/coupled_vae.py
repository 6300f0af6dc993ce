"""Points of the plane that a network makes of points of another plane, and rings of clusters to learn from.

    z ~ N(0, I)    x ~ N(net(z), sigma^2 I)

The network is to be such that the prior's points and the data can be coupled, each point with as much of the data as any other.
Hao and Shafto, "Coupled variational autoencoder", ICML 2023.
"""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.nn import relu

from models.networks import glorot, perceptron
from models.vae import gaussian

LATENT, HIDDEN = 2, 32


def clusters(n, seed, groups=8, radius=2.0, scale=0.1):
    """Points `(n, 2)` around a ring, in so many clusters of as many points."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(n) / groups
    centres = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    return (centres + scale * rng.normal(size=(n, 2))).astype(np.float32)


def decode(weights, z):
    return perceptron(weights, z, relu)


def potential(z):
    """Of points of the prior's plane: one number each."""
    return perceptron(numpyro.param("potential", lambda key: glorot(key, LATENT, HIDDEN, HIDDEN, 1)), z, relu)[..., 0]


def prior(x, batch=None):
    """The points alone."""
    with numpyro.plate("images", len(x), subsample_size=batch):
        numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))


model = functools.partial(gaussian, latent=LATENT, hidden=(HIDDEN, HIDDEN), activation=relu)
"""Of points `(n, 2)`."""
