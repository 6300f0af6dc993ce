"""A Gaussian on the whitened values; the function's other values are drawn from the model's own distributions. And what it
says of data: their factors, new values, and how far NUTS, on the process itself, is from that.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import ndtr
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer.reparam import TransformReparam

import ppvi.numpyro as vi
from models import gp, gp_classification as labelled
from models.memory_gp import factor, sites, weights


def guide(x, y, count, past, z, hyper=labelled.learned):
    """Returns the Gaussian, and how many times each datum counts: not at all where a place in the memory is empty."""
    q = dist.MultivariateNormal(
        numpyro.param("loc", jnp.zeros(len(z))),
        scale_tril=numpyro.param("scale", jnp.eye(len(z)), constraint=constraints.lower_cholesky),
    )
    v = numpyro.sample("v", q)
    a, left = weights(labelled.process(hyper()), z, x)
    with numpyro.plate("data", len(x)):
        numpyro.sample("f", dist.Normal(a @ v, jnp.sqrt(left)))
    return q, count


@partial(jax.jit, static_argnames="likelihood")
def factors(values, params, x, y, z, likelihood):
    """Where data are, L and by how much their values go with the whitened ones; of each, slope, weight and leverage."""
    its = labelled.process(values)
    a, left = weights(its, z, x)
    variance = left + ((a @ params["scale"]) ** 2).sum(1)
    slope, weight = jax.vmap(partial(sites, likelihood, its))(a @ params["loc"], variance, y)
    return (factor(its, z), a), slope, weight, weight * variance


def predicted(params, values, z, new):
    """Means and variances of new values."""
    q = dist.MultivariateNormal(params["loc"], scale_tril=params["scale"])
    return gp.marginals(q, labelled.process(values), z, new)


def chances(mean, variance):
    """Of label 1, in closed form."""
    return np.clip(ndtr(mean / jnp.sqrt(1 + variance)), 1e-6, 1 - 1e-6)


def by_nuts(values, seed, x, y, new):
    """Draws of new values, one chain after the other, of the process without inducing points."""
    white = handlers.reparam(partial(labelled.model, hyper=lambda: values), config={"f": TransformReparam()})
    options = {"num_warmup": 400, "num_samples": 1000, "num_chains": 2, "progress": False}
    data = vi.nuts(white, jax.random.key(seed), x, y, **options)
    v = np.asarray(data["posterior"]["f_base"]).reshape(-1, len(x))
    a, left = map(np.asarray, weights(labelled.process(values), x, new))
    return v @ a.T + np.sqrt(left) * np.random.default_rng(seed).normal(size=(len(v), len(new)))
