"""A picture pixel by pixel: each one given those before it, and a point of a latent space.

    z_i ~ N(0, I)    x_id ~ Bernoulli(sigmoid(net_d(x_i1 .. x_i,d-1, z_i)))

The pixels before it tell most of a pixel, so that this decoder needs no z at all, and the evidence lower bound has no reason to
use it. Zhao, Song and Ermon, "InfoVAE: balancing learning and inference in variational autoencoders", AAAI 2019, with a masked
network (Germain et al., "MADE", ICML 2015) in place of a PixelCNN.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.nn import relu

from models.networks import glorot, layer

PIXELS, UNITS, LATENT = 784, 300, 10
SEES = 1 + jnp.arange(UNITS) * (PIXELS - 1) // UNITS
"""So many pixels are seen by each hidden unit; the pixels after them see the unit."""
ENTERS = jnp.arange(PIXELS)[:, None] < SEES
LEAVES = SEES[:, None] <= jnp.arange(PIXELS)


def decoder(key):
    """Weights from which training starts: of the pixels before, of the point, and of the pixels."""
    (seen, _), (out, bias) = glorot(key, PIXELS, UNITS, PIXELS)
    return {"seen": seen, "point": glorot(key, LATENT, UNITS)[0], "out": out, "bias": bias}


def logits(weights, x, z):
    hidden = relu(x @ (weights["seen"] * ENTERS) + layer(weights["point"], z))
    return hidden @ (weights["out"] * LEAVES) + weights["bias"]


def prior(x, batch=None):
    """The points alone."""
    with numpyro.plate("images", len(x), subsample_size=batch):
        numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))


def model(x, batch=None):
    """Of images `(n, 784)` of zeros and ones; a minibatch of so many of them stands for all."""
    weights = numpyro.param("decoder", decoder)
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=logits(weights, x[rows], z)).to_event(1), obs=x[rows])
