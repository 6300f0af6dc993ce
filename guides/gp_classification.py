"""The posterior that a Gaussian process has when a Gaussian stands for each label's likelihood.

    t_i(f) = exp(slope_i f - weight_i f^2 / 2)    q(f) = N(f; 0, K) prod_i t_i(f_i) / Z_t

These sites, in natural parameters, are all that the guide has: 2 n numbers; the rest of q is the process. Nearest to the
posterior among all Gaussians is one of these (Opper and Archambeau 2009), and so is what expectation propagation ends with.

Khan and Lin, "Conjugate-computation variational inference", AISTATS 2017; Opper and Archambeau, "The variational Gaussian
approximation revisited", Neural Computation 21 (2009).
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr, ndtr

from models import gp
from models.gp_classification import PRIORS, process

NODES, WEIGHTS = (jnp.asarray(x, jnp.float32) for x in np.polynomial.hermite_e.hermegauss(32))
WEIGHTS = WEIGHTS / WEIGHTS.sum()
"""By which the expectation of a function of a standard normal value is a sum."""


def whitened(root, slope, weight):
    """What white values are after the sites, of the factor of K by which they make f."""
    counted = jnp.sqrt(weight)
    return gp.seen(counted[:, None] * root, slope / counted)


def posterior(root, slope, weight):
    """Mean and Cholesky's factor of q."""
    white = whitened(root, slope, weight)
    return root @ white.loc, root @ white.scale_tril


def guide(x, y):
    """Returns the marginals' means and standard deviations, and the sites' logarithms as a function of values."""
    slope, weight = (numpyro.param(name, value) for name, value in zip(("slope", "weight"), start(y), strict=True))
    values = {name: numpyro.param(name, prior.loc) for name, prior in PRIORS.items()}
    mean, scale = posterior(gp.factor(process(values), x), slope, weight)
    numpyro.sample("f", dist.MultivariateNormal(mean, scale_tril=scale))
    return mean, jnp.sqrt((scale**2).sum(1)), lambda f: slope * f - weight * f**2 / 2


def start(y):
    """Slopes and weights before the first step."""
    return y - 0.5, jnp.full(len(y), 0.1)


def conjugate(root, y, sites):
    """A step of conjugate-computation variational inference: half of the old slopes and weights, half of the new ones, which
    the expected log likelihood's gradient in means and variances tells.
    """

    def expected(mean, variance, label):
        f = mean + jnp.sqrt(variance) * NODES
        return WEIGHTS @ log_ndtr(jnp.where(label > 0, f, -f))

    mean, scale = posterior(root, *sites)
    by_mean, by_variance = jax.vmap(jax.grad(expected, (0, 1)))(mean, (scale**2).sum(1), y)
    new = by_mean - 2 * by_variance * mean, -2 * by_variance
    return tuple((a + b) / 2 for a, b in zip(sites, new, strict=True))


def predicted(params, x, new):
    """Chances of label 1 at new inputs, in closed form."""
    q = whitened(gp.factor(process(params), x), params["slope"], params["weight"])
    mean, variance = gp.marginals(q, process(params), x, new)
    return ndtr(mean / jnp.sqrt(1 + variance))
