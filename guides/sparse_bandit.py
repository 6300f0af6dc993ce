"""A spike and a slab for each coefficient, each coefficient by itself.

    active_j ~ Bernoulli(chance_j)    size_j ~ N(loc_j, scale_j^2) if it is active, else of the prior

A size that is not active meets no data, so that it costs the bound nothing to leave it at the prior, and a coefficient is zero
or Gaussian. Parameters are without constraint, for a loop of one's own.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.sparse_bandit import RATE, SLAB


def guide(gram, cross, others=None):
    d = len(cross)
    logits = numpyro.param("logits", jnp.full(d, jnp.log(RATE / (1 - RATE))))
    loc, log_scale = numpyro.param("loc", jnp.zeros(d)), numpyro.param("log_scale", jnp.full(d, jnp.log(SLAB)))
    with numpyro.plate("features", d):
        active = numpyro.sample("active", dist.Bernoulli(logits=logits))
        numpyro.sample("size", dist.Normal(active * loc, jnp.where(active == 1, jnp.exp(log_scale), SLAB)))
