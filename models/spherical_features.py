"""A Gaussian process on a sphere, of which neurons know a part, and inducing points a part of what is left.

    f = g + h    g(x) = k_u(x)' K_u^-1 u    h ~ GP(0, k - k_u' K_u^-1 k_u)    y_i ~ N(f(x_i), noise^2)

Inputs get a coordinate of one and are scaled to length one. A kernel of the angle between two of them, and a neuron sigma(z'x),
are sums over the sphere's harmonics, level by level, with coefficients that are integrals on a line (Funk and Hecke). So what a
neuron has in common with the process is itself, k_u(x) = sigma(z'x), and two neurons have in common

    K_u = sum_n (sigma_n^2 / kappa_n) N_n P_n(z z')

where P_n are Legendre's polynomials of this dimension, and N_n harmonics are on level n. Levels end somewhere, for both.

Dutordoir, Hensman, van der Wilk, Ek, Ghahramani and Durrande, "Deep neural networks as point estimates for deep Gaussian
processes", NeurIPS 2021; Shi, Titsias and Mnih, "Sparse orthogonal variational inference for Gaussian processes", AISTATS 2020;
Tiao, Dutordoir and Picheny, "Spherical inducing features for orthogonally-decoupled Gaussian processes", ICML 2023.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from scipy.special import comb, roots_gegenbauer

from models.gp import JITTER, matern32, seen

LEVELS = 8


def on_sphere(x):
    """Inputs `(n, d - 1)` as points of a sphere, `(n, d)`."""
    return unit(np.concatenate([x, np.ones((len(x), 1))], 1))


def unit(x):
    return x / (x**2).sum(-1, keepdims=True) ** 0.5


def legendre(t, d, levels=LEVELS):
    """P_n of a product of points in d dimensions, `(levels, *shape)`; P_n(1) = 1."""
    found = [0 * t + 1, t]
    for n in range(1, levels - 1):
        found.append(((2 * n + d - 2) * t * found[n] - n * found[n - 1]) / (n + d - 2))
    return (np if isinstance(t, np.ndarray) else jnp).stack(found[:levels])


def harmonics(d, levels=LEVELS):
    """How many there are on each level."""
    n = np.arange(levels)
    return comb(n + d - 1, d - 1) - np.where(n > 1, comb(n + d - 3, d - 1), 0)


def coefficients(function, d, levels=LEVELS):
    """Of a function of the product of two points, on each level: it is the sum of c_n N_n P_n."""
    t, weights = roots_gegenbauer(400, (d - 2) / 2)
    return legendre(t, d, levels) @ (weights * function(t)) / weights.sum()


def kernel_of(process):
    """Matérn's kernel of the chord, as a function of the product."""

    def r(t):
        return np.sqrt(3 * np.maximum(2 - 2 * t, 0)) / np.asarray(process.lengthscale)

    return lambda t: process.variance * (1 + r(t)) * np.exp(-r(t))


def softplus(t):
    return np.logaddexp(0, 4 * t) / 4


def neurons(process, z, activation=softplus, levels=LEVELS):
    """Covariance of values at neurons, and a function to that with values at x."""
    d = z.shape[1]
    many, own = harmonics(d, levels), coefficients(kernel_of(process), d, levels)
    ours = coefficients(activation, d, levels)
    within = jnp.tensordot(jnp.asarray(many * ours**2 / own), legendre(z @ z.T, d, levels), 1)
    return within, lambda x: jnp.tensordot(jnp.asarray(many * ours), legendre(z @ x.T, d, levels), 1)


def points(process, z):
    """The same of inducing points."""

    def k(a, b):
        return process.variance * matern32(a, b, process.lengthscale)

    return k(z, z), lambda x: k(z, x)


def root(covariance):
    scale = jnp.diagonal(covariance).mean()
    return jnp.linalg.cholesky(covariance + JITTER * scale * jnp.eye(len(covariance)))


def parts(process, x, first, second):
    """By how much values at x go with whitened ones of neurons or points and of orthogonal points, and the variance left."""
    within, across = first
    factor = root(within)
    a = solve_triangular(factor, across(x), lower=True).T
    if second is None:
        c = jnp.zeros((len(x), 0))
    else:
        at = solve_triangular(factor, across(second), lower=True).T
        within, across = points(process, second)
        c = solve_triangular(root(within - at @ at.T), across(x) - at @ a.T, lower=True).T
    left = process.variance - (a**2).sum(1) - (c**2).sum(1)
    return a, c, jnp.maximum(left, JITTER * process.variance)


def places(name, x, m):
    """Points of the sphere that learn; m data, at first."""
    return unit(numpyro.param(name, lambda key: jax.random.choice(key, x, (m,), replace=False)))


def features(x, process, kind, m, k):
    """The two parts at x, of parameters that model and guide both name."""
    first, second = places("first", x, m), places("second", x, k) if k else None
    return partial(parts, process, first=kind(process, first), second=second)


def model(x, y, process, kind=neurons, m=15, k=15):
    """Of points of the sphere `(n, d)` and outputs `(n,)`; kind is that of the first m values, and k are of points."""
    a, c, left = features(x, process, kind, m, k)(x)
    u = numpyro.sample("u", dist.MultivariateNormal(jnp.zeros(m), jnp.eye(m)))
    v = numpyro.sample("v", dist.MultivariateNormal(jnp.zeros(k), jnp.eye(k))) if k else jnp.zeros(0)
    with numpyro.plate("data", len(x)):
        f = numpyro.sample("f", dist.Normal(a @ u + c @ v, jnp.sqrt(left)))
        numpyro.sample("y", dist.Normal(f, process.noise), obs=y)


def moments(q, parts):
    """Means and variances of values, of Gaussians on the whitened ones, from their parts."""
    *weights, left = parts
    mean = sum(a @ each.loc for each, a in zip(q, weights, strict=False))
    return mean, left + sum(((a @ each.scale_tril) ** 2).sum(1) for each, a in zip(q, weights, strict=False))


def bound(q, parts, process, y):
    """The evidence lower bound in closed form."""
    mean, variance = moments(q, parts)
    fits = dist.Normal(mean, process.noise).log_prob(y) - 0.5 * variance / process.noise**2
    priors = [dist.MultivariateNormal(jnp.zeros(len(each.loc)), jnp.eye(len(each.loc))) for each in q]
    return fits.sum() - sum(dist.kl_divergence(each, prior) for each, prior in zip(q, priors, strict=True))


def best(parts, process, y):
    """The largest bound of a Gaussian on all the whitened values together (Titsias 2009)."""
    *weights, left = parts
    both = jnp.concatenate(weights, 1)
    return bound([seen(both / process.noise, y / process.noise)], (both, left), process, y)


def drawn(n, inputs, process, seed=0):
    """Points of the sphere, `(n, inputs + 1)`, and outputs of a function that the process draws."""
    rng = np.random.default_rng(seed)
    x = on_sphere(rng.uniform(-1, 1, (n, inputs)))
    k = kernel_of(process)(np.minimum(x @ x.T, 1)) + process.noise**2 * np.eye(n)
    return jnp.asarray(x, jnp.float32), jnp.asarray(np.linalg.cholesky(k) @ rng.normal(size=n), jnp.float32)
