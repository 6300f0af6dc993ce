"""A guide of `models.vae` with planar layers, whose weights the encoder writes for every image.

Rezende and Mohamed, "Variational inference with normalizing flows", ICML 2015, section 4.
"""

import jax.numpy as jnp
import numpyro

from models.flows import flow, planar
from models.networks import glorot, perceptron
from models.vae import HIDDEN, LATENT


def guide(x, batch=None, layers=2, latent=LATENT, hidden=(HIDDEN, HIDDEN)):
    """A Gaussian for each image and so many layers; of none, the guide of the autoencoder."""
    outputs = 2 * latent + layers * (2 * latent + 1)
    weights = numpyro.param("encoder", lambda key: glorot(key, x.shape[1], *hidden, outputs))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        loc, log_scale, rest = jnp.split(perceptron(weights, x[rows]), [latent, 2 * latent], -1)
        written = jnp.moveaxis(rest.reshape(*rest.shape[:-1], layers, 2 * latent + 1), -2, 0)
        numpyro.sample("z", flow(planar, loc, jnp.exp(log_scale), jnp.split(written, [latent, 2 * latent], -1)))
