"""Mean-field guides of spins and of a mixture: each variable by itself."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.textbook import CENTRES


def spins(field, coupling):
    with numpyro.plate("places", len(field)):
        numpyro.sample("up", dist.Bernoulli(logits=numpyro.param("up_logits", jnp.zeros(len(field)))))


def labels(y):
    with numpyro.plate("data", len(y)):
        numpyro.sample("label", dist.Bernoulli(logits=numpyro.param("label_logits", jnp.zeros(len(y)))))


def mixture(y):
    loc = numpyro.param("loc", jnp.asarray(CENTRES, jnp.float32))
    scale = numpyro.param("scale", jnp.ones(2), constraint=dist.constraints.positive)
    numpyro.sample("means", dist.Normal(loc, scale).to_event(1))
    labels(y)
