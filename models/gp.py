"""A Gaussian process seen at a few inducing points, and the exact one beside it.

    v ~ N(0, I)    u = L v    f_i ~ N(k_i' K^-1 u, k_ii - k_i' K^-1 k_i)    y_i ~ N(f_i, noise^2)

A function is drawn from a process whose covariance of two values is a kernel k of where they are. What it is at m places says
much of it: u, its values there, has the covariance K = L L', and is written by whitened values v. Given them each f_i is
Gaussian. One by one the f_i have the process's distributions, though not together; a sum over data asks for no more. So for any
guide that draws the f_i from the model's own distributions the bound is that of the process.

Titsias, "Variational learning of inducing variables in sparse Gaussian processes", AISTATS 2009; Hensman, Fusi and Lawrence,
"Gaussian processes for big data", UAI 2013. Exact: Rasmussen and Williams, "Gaussian processes for machine learning", 2006.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from numpyro.distributions import constraints

JITTER = 1e-4
"""Of the variance, for Cholesky's sake: the inducing values are seen with so little noise."""

compiled = partial(jax.jit, static_argnames="kernel")


def distance(a, b, lengthscale):
    """Squares, of rows measured in lengthscales, `(n, m)`."""
    a, b = a / lengthscale, b / lengthscale
    return jnp.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)


def squared_exponential(a, b, lengthscale):
    return jnp.exp(-0.5 * distance(a, b, lengthscale))


def matern32(a, b, lengthscale):
    r = jnp.sqrt(3 * distance(a, b, lengthscale) + 1e-12)
    return (1 + r) * jnp.exp(-r)


class Process(NamedTuple):
    """What the model learns of the process."""

    variance: Any
    lengthscale: Any
    """One for each input."""
    noise: Any
    """A standard deviation."""


def learned(inputs):
    """The process, as parameters."""
    return begun(Process(jnp.array(1.0), jnp.ones(inputs), jnp.array(0.5)))


def begun(start, prefix=""):
    """The same from these numbers, under names of their own."""
    named = zip(Process._fields, start, strict=True)
    return Process(*(numpyro.param(prefix + name, value, constraint=constraints.positive) for name, value in named))


def places(x, m):
    """Where the inducing points are: m data, at first."""
    return numpyro.param("places", lambda key: jax.random.choice(key, x, (m,), replace=False))


def factor(process, z, kernel=matern32, jitter=JITTER):
    """Cholesky's factor of the covariance at the inducing points, or at any others."""
    k = process.variance * kernel(z, z, process.lengthscale)
    return jnp.linalg.cholesky(k + jitter * process.variance * jnp.eye(len(z)))


def weights(process, z, x, kernel=matern32):
    """By how much values at x go with whitened ones, `(n, m)`, and the variances that are left."""
    k = process.variance * kernel(z, x, process.lengthscale)
    a = solve_triangular(factor(process, z, kernel), k, lower=True).T
    return a, jnp.maximum(process.variance - (a**2).sum(1), JITTER * process.variance)


def seen(a, y):
    """The Gaussian of whitened values v after outputs y ~ N(a v, I)."""
    precision = jnp.eye(a.shape[1]) + a.T @ a
    return dist.MultivariateNormal(jnp.linalg.solve(precision, a.T @ y), precision_matrix=precision)


def gaussian(f, process):
    return dist.Normal(f, process.noise)


def logistic(f, process):
    return dist.Bernoulli(logits=f)


def model(x, y, batch=None, m=20, kernel=matern32, likelihood=gaussian):
    """Of inputs `(n, d)` and outputs `(n,)`; a minibatch of so many of them stands for all."""
    process, z = learned(x.shape[1]), places(x, m)
    v = numpyro.sample("v", dist.MultivariateNormal(jnp.zeros(m), jnp.eye(m)))
    with numpyro.plate("data", len(x), subsample_size=batch) as rows:
        a, left = weights(process, z, x[rows], kernel)
        f = numpyro.sample("f", dist.Normal(a @ v, jnp.sqrt(left)))
        numpyro.sample("y", likelihood(f, process), obs=y[rows])


def covariance(process, x, kernel=matern32):
    """Of outputs, with their noise."""
    return process.variance * kernel(x, x, process.lengthscale) + process.noise**2 * jnp.eye(len(x))


def whole(x, y, kernel=matern32):
    """The same without inducing points, of all outputs together: their density is the evidence."""
    k = covariance(learned(x.shape[1]), x, kernel)
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), k), obs=y)


@compiled
def marginals(q, process, z, x, kernel=matern32):
    """Means and variances of values at x, of a Gaussian q on the whitened ones."""
    a, left = weights(process, z, x, kernel)
    return a @ q.loc, left + ((a @ q.scale_tril) ** 2).sum(1)


@compiled
def bound(q, process, z, x, y, kernel=matern32):
    """The evidence lower bound of such a q, in closed form."""
    mean, variance = marginals(q, process, z, x, kernel)
    fits = dist.Normal(mean, process.noise).log_prob(y) - 0.5 * variance / process.noise**2
    prior = dist.MultivariateNormal(jnp.zeros(len(z)), jnp.eye(len(z)))
    return fits.sum() - dist.kl_divergence(q, prior)


@compiled
def best(process, z, x, y, kernel=matern32):
    """The Gaussian on the whitened values that has the largest bound (Titsias 2009)."""
    a, _ = weights(process, z, x, kernel)
    return seen(a / process.noise, y / process.noise)


@compiled
def exact(process, x, y, new, kernel=matern32):
    """Log evidence of the data, and means and variances of values at new inputs, by Cholesky's factor of all data."""
    root = jnp.linalg.cholesky(covariance(process, x, kernel))
    white = solve_triangular(root, y, lower=True)
    across = solve_triangular(root, process.variance * kernel(x, new, process.lengthscale), lower=True)
    evidence = -0.5 * (white**2).sum() - jnp.log(jnp.diagonal(root)).sum() - 0.5 * len(x) * jnp.log(2 * jnp.pi)
    return evidence, across.T @ white, process.variance - (across**2).sum(0)


def log_score(mean, variance, noise, y):
    """Mean log density of new outputs, one by one, from means and variances of the function there."""
    return dist.Normal(mean, jnp.sqrt(variance + noise**2)).log_prob(y).mean()


def nodes(mean, variance, n=60):
    """Values `(n, *batch)` and weights `(n, 1)` with which Gaussians are averaged over, by Gauss and Hermite's rule."""
    points, mass = np.polynomial.hermite_e.hermegauss(n)
    return mean + jnp.sqrt(variance) * points[:, None], mass[:, None] / mass.sum()


def score(f, mass, y, process, likelihood=gaussian):
    """Mean log density of new outputs, one by one, from values of the function there `(n, new)` and their weights."""
    densities = np.exp(likelihood(jnp.asarray(f), process).log_prob(y))
    return float(np.log((mass * densities).sum(0)).mean())
