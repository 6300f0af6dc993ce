"""A Gaussian of all directions, whose mean and factor are parameters."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def gaussian(dimension, scale=1.0):
    """z ~ N(m, L L'), from N(0, scale^2 I)."""

    def guide(*_):
        loc = numpyro.param("m", jnp.zeros(dimension))
        factor = numpyro.param("L", scale * jnp.eye(dimension), constraint=dist.constraints.lower_cholesky)
        numpyro.sample("z", dist.MultivariateNormal(loc, scale_tril=factor))

    return guide
