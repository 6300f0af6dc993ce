"""Means and labels of `models.gp_clusters`, independent of each other: what variational EM has.

    q(mean_k) = N(loc_k, scale_k scale_k')    q(label_i) = Categorical(logits_i)

Given the labels the posterior of the means is Gaussian, and given the means labels are independent; so that the best of either,
with the other as it is, is of these forms.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints


def guide(grid, at, y, kinds=3):
    """Returns location and scale of the means."""
    n, wide = len(grid), 0.5 * jnp.eye(len(grid))
    loc = numpyro.param("loc", jnp.zeros((kinds, n)))
    scale = numpyro.param("scale", jnp.tile(wide, (kinds, 1, 1)), constraint=constraints.lower_cholesky)
    with numpyro.plate("kinds", kinds):
        numpyro.sample("mean", dist.MultivariateNormal(loc, scale_tril=scale))
    logits = numpyro.param("logits", lambda key: jax.random.normal(key, (len(y), kinds)))
    with numpyro.plate("tasks", len(y)):
        numpyro.sample("label", dist.Categorical(logits=logits))
    return loc, scale
