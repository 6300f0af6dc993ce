"""A Gaussian process that goes on from what earlier labels have said of it.

    v ~ p(v) t(L v) / Z    f_i ~ N(a_i' v, left_i)    y_i ~ p(y_i | f_i)    t(u) = N(outputs; R u, I)

v are whitened values at inducing points, u = L v the values. What is known of data that are gone is a Gaussian factor t of u,
a product of one for each of them, exp(s_j f_j(u) - w_j f_j(u)^2 / 2), where f_j(u) is what inducing values say of the datum's.
Slopes s and weights w are its dual parameters, and those of t sums over data; kept as R and outputs, they are precise in single
precision. The prior is the process times t. How well the process agrees with t is Z, all that is left of those data's evidence:
by it the kernel may change.

Adam, Chang, Khan and Solin, "Dual parameterization of sparse variational Gaussian processes", NeurIPS 2021; Chang, Verma,
John, Solin and Khan, "Memory-based dual Gaussian processes for sequential learning", ICML 2023.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular

from models import gp
from models.gp_classification import learned, probit, process

NODES, WEIGHTS = (jnp.asarray(x, jnp.float32) for x in gp.nodes(0.0, 1.0, 32))


NOISE = 0.3
"""Of outputs that are no labels."""


def gaussian(f, its):
    return dist.Normal(f, NOISE)


class Past(NamedTuple):
    """Outputs that nobody saw and that say what all who are gone have said: a factor N(outputs; rows u, I)."""

    rows: Any
    """A triangular root of the weights, `(m, m)`: these are rows' rows, and the slope is rows' outputs."""
    outputs: Any


def nothing(m):
    return Past(np.zeros((m, m), np.float32), np.zeros(m, np.float32))


weights, factor = gp.compiled(gp.weights), gp.compiled(gp.factor)
"""Which are traced once for each shape."""


def grid(side):
    """Places in a square, `(side^2, 2)`."""
    line = np.linspace(-1, 1, side, dtype=np.float32)
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


def known(root, past):
    """The Gaussian of whitened values that the factor makes of the prior, and log Z; root is L."""
    rows = past.rows @ root
    q = gp.seen(rows, past.outputs)
    return q, past.outputs @ rows @ q.loc / 2 + jnp.log(jnp.diagonal(q.scale_tril)).sum()


def model(x, y, count, past, z, hyper=learned, likelihood=probit):
    """Of inputs `(n, 2)` and outputs `(n,)`. Returns the prior, and by how much values go with the whitened ones."""
    its = process(hyper())
    prior, evidence = known(factor(its, z), past)
    numpyro.factor("past", evidence)
    v = numpyro.sample("v", prior)
    a, left = weights(its, z, x)
    with numpyro.plate("data", len(x)):
        f = numpyro.sample("f", dist.Normal(a @ v, jnp.sqrt(left)))
        numpyro.sample("y", likelihood(f, its), obs=y)
    return prior, a, left


def sites(likelihood, its, mean, variance, y):
    """Slope and weight of each output's own Gaussian factor, by the expected log likelihood's gradient, `(n,)` each."""

    def expected(mean, variance):
        return (WEIGHTS * likelihood(mean + jnp.sqrt(variance) * NODES, its).log_prob(y)).sum()

    by_mean, by_variance = jax.grad(expected, (0, 1))(mean, variance)
    return by_mean - 2 * by_variance * mean, -2 * by_variance


@jax.jit
def added(past, where, slope, weight):
    """The factor, times those of some data, as far as inducing values carry them; by one QR decomposition."""
    root, a = where
    counted = jnp.sqrt(jnp.maximum(weight, 1e-10))
    rows = solve_triangular(root, a.T, trans=1, lower=True).T * counted[:, None]
    both = jnp.block([[past.rows, past.outputs[:, None]], [rows, (slope / counted)[:, None]]])
    both = jnp.linalg.qr(both, mode="r")[: len(root)]
    return Past(both[:, :-1], both[:, -1])


def by_columns(x, y, batches):
    """Data from left to right, in batches of the same size."""
    x, y = np.asarray(x), np.asarray(y)
    order = np.argsort(x[:, 0], kind="stable")
    return [(x[rows], y[rows]) for rows in np.split(order, batches)]
