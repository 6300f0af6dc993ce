"""An autoencoder of two layers: a point of the latent space is made of another point, and a picture of the first.

    u_i ~ N(0, I)    z_i ~ N(net(u_i), diag(noise^2))    x_i ~ Bernoulli(sigmoid(decode(z_i)))

Trained as one it is a hierarchical autoencoder. Trained in two stages, `decode` first with z from a Gaussian, and then the
rest on the points that the encoder draws for data, it is the autoencoder of Dai and Wipf, "Diagnosing and enhancing VAE
models", ICLR 2019, whose second stage learns where the points of data are. Both are in the survey of Asperti, Evangelista and
Loli Piccolomini, "A survey on variational autoencoders from a GreenAI perspective", SN Computer Science 2021.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.networks import glorot, perceptron
from models.vae import HIDDEN, LATENT

TOP = 100
"""Units of the networks between the two points."""


def model(x, batch=None, latent=LATENT, hidden=(HIDDEN, HIDDEN)):
    """Of images `(n, pixels)` of zeros and ones; a minibatch of so many of them stands for all."""
    top = numpyro.param("top decoder", lambda key: glorot(key, latent, TOP, latent))
    noise = numpyro.param("noise", jnp.ones(latent), constraint=dist.constraints.positive)
    weights = numpyro.param("decoder", lambda key: glorot(key, latent, *hidden, x.shape[1]))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        u = numpyro.sample("u", dist.Normal(jnp.zeros(latent), 1.0).to_event(1))
        z = numpyro.sample("z", dist.Normal(perceptron(top, u), noise).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=perceptron(weights, z)).to_event(1), obs=x[rows])
