"""Independent arrows and targets, and sticks; the component of a datum is left out, and so summed by the model."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from models.latent_interventions import arrows


def in_order(places):
    """Logits of arrows, to begin with: an even chance from earlier variables to later ones, little the other way."""
    i, j = arrows(len(places)).T
    return jnp.where(places[i] < places[j], 0.0, -4.0)


def guide(x, batch=None, components=1):
    d = x.shape[1]
    arrow = numpyro.param("arrow", lambda key: in_order(jax.random.permutation(key, d)))
    numpyro.sample("edges", dist.Bernoulli(logits=arrow).to_event(1))
    if components > 1:
        ones = jnp.ones((2, components - 1))
        a, b = numpyro.param("stick", ones, constraint=constraints.positive)
        numpyro.sample("sticks", dist.Beta(a, b).to_event(1))
        target = numpyro.param(
            "target", lambda key: 2 * jax.nn.one_hot(jax.random.permutation(key, d), d)[: components - 1]
        )
        numpyro.sample("targets", dist.Categorical(logits=target).to_event(1))
