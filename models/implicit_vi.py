"""A network of one unit, whose two weights have a posterior that can be drawn on a grid.

    w1, w2 ~ N(0, 1)    y_i ~ N(w2 tanh(w1 x_i), 0.3^2)

It is curved, as what counts is about w1 w2, and has two modes, as both weights may change their sign at once. The regression of
which the exact posterior is a Gaussian, and a network of 19 weights, are those of `models.structured_sgmcmc`.

Uppal, Stensbo-Smidt, Boomsma and Frellsen, "Implicit variational inference for high-dimensional posteriors", NeurIPS 2023, have
networks of up to tens of millions of weights.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from scipy.stats import multivariate_normal

from models.structured_sgmcmc import NOISE


def unit(w, x):
    return w[1] * jnp.tanh(w[0] * x[:, 0])


def bend(seed, n=20):
    """Inputs `(n, 1)` between -1 and 1, and outputs of the unit with weights of one."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, 1))
    return jnp.asarray(x, jnp.float32), jnp.asarray(np.tanh(x[:, 0]) + NOISE * rng.normal(size=n), jnp.float32)


@jax.jit
def log_joint(w, x, y):
    """Of weights `(m, 2)` of the unit, with the outputs: `(m,)`."""
    f = jax.vmap(unit, (0, None))(w, x)
    return dist.Normal(0.0, 1.0).log_prob(w).sum(-1) + dist.Normal(f, NOISE).log_prob(y).sum(-1)


def grid(width, points):
    """Points of the plane `(points^2, 2)`, and the area of a cell."""
    line = np.linspace(-width, width, points)
    return np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2), (line[1] - line[0]) ** 2


def straight_evidence(x, y):
    """Log evidence of the outputs of a straight function, whose weights are N(0, 1)."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return float(multivariate_normal(cov=x @ x.T + NOISE**2 * np.eye(len(y))).logpdf(y))
