"""The guide of `models.density_gap`: a network reads which words a phrase has, in whatever order."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from guides.vae import encode
from models.density_gap import HIDDEN, LATENT
from models.networks import glorot


def bag(x, words):
    """How often each word is in phrases, `(n, words)`, but for what follows their ends."""
    return jax.nn.one_hot(x, words).at[..., 0].set(0.0).sum(-2)


def guide(x, batch=None, words=500):
    """Returns location and scale of the points."""
    weights = numpyro.param("encoder", lambda key: glorot(key, words, HIDDEN, 2 * LATENT))
    with numpyro.plate("phrases", len(x), subsample_size=batch) as rows:
        loc, scale = encode(weights, bag(jnp.asarray(x)[rows], words))
        numpyro.sample("z", dist.Normal(loc, scale).to_event(1))
    return loc, scale
