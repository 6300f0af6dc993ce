"""A Gaussian on the whitened values of neurons, and another on those of orthogonal points: q(u) q(v), as in the papers that
`models.spherical_features` names. The function's other values are drawn from the model's own distributions.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from models.spherical_features import features, neurons


def gaussian(name, m):
    loc = numpyro.param(f"{name}_loc", jnp.zeros(m))
    scale = numpyro.param(f"{name}_scale", jnp.eye(m), constraint=constraints.lower_cholesky)
    q = dist.MultivariateNormal(loc, scale_tril=scale)
    return q, numpyro.sample(name, q)


def guide(x, y, process, kind=neurons, m=15, k=15):
    """Returns the Gaussians, one or two, and the function that has the parts."""
    at = features(x, process, kind, m, k)
    a, c, left = at(x)
    q, u = gaussian("u", m)
    other, v = gaussian("v", k) if k else (None, jnp.zeros(0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("f", dist.Normal(a @ u + c @ v, jnp.sqrt(left)))
    return [q, other][: 1 + bool(k)], at
