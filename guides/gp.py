"""Gaussians on the whitened values of `models.gp`; the function's other values are drawn from the model's own distributions.

A full one has m (m + 1) / 2 numbers beside the means, a diagonal one m. That of a coreset has 2 m in all: it is what the
process would be after m observations that were never made, y_j at the inducing points, each counted w_j times,

    v ~ N(B^-1 L' W y, B^-1)    B = I + L' W L    W = diag(w) / noise^2

Ketenci, Perotte, Elhadad and Urteaga, "A coreset-based, tempered variational posterior for accurate and scalable stochastic
Gaussian process inference", 2023.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from models import gp


def full(process, z, kernel):
    m = len(z)
    scale = numpyro.param("scale", jnp.eye(m), constraint=constraints.lower_cholesky)
    return dist.MultivariateNormal(numpyro.param("loc", jnp.zeros(m)), scale_tril=scale)


def diagonal(process, z, kernel):
    m = len(z)
    scale = numpyro.param("scale", jnp.ones(m), constraint=constraints.positive)
    return dist.MultivariateNormal(numpyro.param("loc", jnp.zeros(m)), scale_tril=jnp.diag(scale))


def observed(process, z, outputs, weights, kernel=gp.matern32):
    """What the whitened values are after such observations."""
    counted = jnp.sqrt(weights) / process.noise
    return gp.seen(counted[:, None] * gp.factor(process, z, kernel), counted * outputs)


def coreset(process, z, kernel):
    m = len(z)
    weights = numpyro.param("weights", jnp.ones(m), constraint=constraints.positive)
    return observed(process, z, numpyro.param("outputs", jnp.zeros(m)), weights, kernel)


def guide(x, y, batch=None, m=20, kernel=gp.matern32, family=full):
    """Returns the Gaussian, the process and the places."""
    process, z = gp.learned(x.shape[1]), gp.places(x, m)
    q = family(process, z, kernel)
    v = numpyro.sample("v", q)
    with numpyro.plate("data", len(x), subsample_size=batch) as rows:
        a, left = gp.weights(process, z, x[rows], kernel)
        numpyro.sample("f", dist.Normal(a @ v, jnp.sqrt(left)))
    return q, process, z
