"""Guide of the multinomial auto-encoder: a network reads a user's clicks, as a vector of length 1; half are dropped."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.mult_vae import HIDDEN, LATENT
from models.networks import glorot, perceptron

KEPT = 0.5


def encode(clicks):
    """Location and scale of tastes, of clicks `(users, items)`."""
    weights = numpyro.param("encoder", lambda key: glorot(key, clicks.shape[-1], HIDDEN, 2 * LATENT))
    out = perceptron(weights, clicks / jnp.sqrt(jnp.maximum(1.0, (clicks**2).sum(-1, keepdims=True))))
    return out[..., :LATENT], jnp.exp(out[..., LATENT:] / 2)


def guide(clicks, beta):
    kept = jax.random.bernoulli(numpyro.prng_key(), KEPT, clicks.shape) / KEPT
    loc, scale = encode(kept * clicks)
    with numpyro.plate("users", len(clicks)), numpyro.handlers.scale(scale=beta):
        numpyro.sample("z", dist.Normal(loc, scale).to_event(1))
