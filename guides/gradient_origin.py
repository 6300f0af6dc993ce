"""A guide without an encoder: what it says of a picture is one step from the origin up the decoder's likelihood.

    g_i = d/du log p(x_i | z = A u + a) at u = 0    q(z_i) = N(A g_i + a, exp(B g_i + b))    or    z_i = g_i, with A = 1, a = 0

The decoder is the model's: `numpyro.param("decoder", ...)` stands in both programs, and training moves
its weights through both.

Bond-Taylor and Willcocks, "Gradient origin networks", ICLR 2021.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.networks import glorot, layer, perceptron
from models.vae import HIDDEN, LATENT


def step(weights, x, place=lambda u: u):
    """From the origin up the log likelihood of each image `(n, pixels)`, `(n, latent)`."""

    def log_likelihood(u):
        logits = perceptron(weights, place(u), jax.nn.elu)
        return (x * logits - jax.nn.softplus(logits)).sum()

    return jax.grad(log_likelihood)(jnp.zeros((len(x), len(weights[0][0]))))


def decoder(x, latent, hidden):
    return numpyro.param("decoder", lambda key: glorot(key, latent, *hidden, x.shape[1]))


def point(x, batch=None, latent=LATENT, hidden=(HIDDEN, HIDDEN), through=True):
    """The step itself; `through`: whether training sees how the step depends on the weights. Returns location and scale."""
    weights = decoder(x, latent, hidden)
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        z = step(weights, x[rows])
        return numpyro.sample("z", dist.Delta(z if through else jax.lax.stop_gradient(z), event_dim=1)), 0.0


def guide(x, batch=None, latent=LATENT, hidden=(HIDDEN, HIDDEN)):
    """A Gaussian whose location and log scale are affine in the step. It begins with about a tenth of the step, and scale 1."""
    weights = decoder(x, latent, hidden)
    loc_map = numpyro.param("loc", (0.3 * jnp.eye(latent), jnp.zeros(latent)))
    scale_map = numpyro.param("log_scale", (jnp.zeros((latent, latent)), jnp.zeros(latent)))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        g = step(weights, x[rows], lambda u: layer(loc_map, u))
        loc, scale = layer(loc_map, g), jnp.exp(layer(scale_map, g))
        numpyro.sample("z", dist.Normal(loc, scale).to_event(1))
    return loc, scale


def encoded(x, batch=None, latent=LATENT, hidden=(HIDDEN, HIDDEN)):
    """What the point is compared with: one that an encoder writes."""
    weights = numpyro.param("encoder", lambda key: glorot(key, x.shape[1], *hidden, latent))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        return numpyro.sample("z", dist.Delta(perceptron(weights, x[rows], jax.nn.elu), event_dim=1)), 0.0
