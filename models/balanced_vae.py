"""A variational autoencoder of grey pictures, whose pixels are as far from the decoder's as they have been lately.

    z_i ~ N(0, I)    x_i ~ N(decode(z_i), v)    v: a number, a parameter, or a running mean of the squared error of a pixel

The variance v is what an error of reconstruction is weighed by against the divergence from the prior: nobody knows it
beforehand, and it falls as training goes on. Given all else, the likeliest v is the mean squared error, so that it need not be
learned: it is computed.

Asperti and Trentin, "Balancing reconstruction error and Kullback-Leibler divergence in variational autoencoders", IEEE Access
2020; the parameter is that of Dai and Wipf, "Diagnosing and enhancing VAE models", ICLR 2019.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.lax import stop_gradient
from numpyro.primitives import mutable

from models.networks import glorot, perceptron
from models.vae import HIDDEN, LATENT

FIRST, KEPT = 1.0, 0.99
"""The variance that training begins with, and the share of the running mean that a step leaves."""


def model(x, batch=None, variance="computed", latent=LATENT, hidden=(HIDDEN, HIDDEN)):
    """Of pictures `(n, pixels)`; `variance` is "computed", "learned" or a number."""
    weights = numpyro.param("decoder", lambda key: glorot(key, latent, *hidden, x.shape[1]))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        z = numpyro.sample("z", dist.Normal(jnp.zeros(latent), 1.0).to_event(1))
        means = perceptron(weights, z)
        if variance == "computed":
            state = mutable("error", {"mean": jnp.array(FIRST)})
            variance = state["mean"]
            state["mean"] = KEPT * variance + (1 - KEPT) * stop_gradient(((x[rows] - means) ** 2).mean())
        elif variance == "learned":
            variance = numpyro.param("variance", jnp.array(FIRST), constraint=dist.constraints.positive)
        numpyro.sample("x", dist.Normal(means, variance**0.5).to_event(1), obs=x[rows])
