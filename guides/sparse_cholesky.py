"""A posterior of values in turn, each of which is given the nearest of the earlier ones that the prior gives it, all or none.

    q(f) = prod_i N(f_i; m_i + sum_j b_ij (f_j - m_j), s_i^2)

Cao et al., "Variational sparse inverse Cholesky approximation for latent Gaussian processes via double Kullback-Leibler
minimization", ICML 2023; with k = 0, Wu, Pleiss and Cunningham, "Variational nearest neighbor Gaussian process", ICML 2022.
"""

import jax.numpy as jnp
import numpyro
from numpyro.distributions import constraints

from models.sparse_cholesky import InTurn


def guide(y, prior, process, k):
    """Begins with the prior's numbers for the k nearest of its earlier places. Returns the distribution."""
    loc = numpyro.param("loc", jnp.zeros(len(y)))
    weights = numpyro.param("weights", prior.weights[:, :k])
    scale = numpyro.param("scale", prior.scale, constraint=constraints.positive)
    q = InTurn(loc, weights, scale, prior.before[:, :k])
    numpyro.sample("f", q)
    return q
