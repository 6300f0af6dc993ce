"""A Gaussian process of which each value knows its nearest earlier ones alone, and what such values say of others.

    f_i | f_1 .. f_{i-1}  ~  N(sum_j b_ij f_j, s_i^2),  j among the k places nearest to x_i of x_1 .. x_{i-1}

Places come from coarse to fine: each is the farthest from all before it. The rows (1, -b_i) / s_i are a triangular matrix
that whitens the values, with k entries beside the diagonal: a sparse Cholesky factor of the inverse covariance. With b and s
those of the process's own conditional distributions it is, of all factors with these entries, the nearest to the process in
Kullback and Leibler's divergence (Vecchia 1988; Schäfer, Katzfuss and Owhadi 2021). With b and s that learn it is a family of
posteriors: Cao, Kang, Jimenez, Sang, Schäfer and Katzfuss, "Variational sparse inverse Cholesky approximation for latent
Gaussian processes via double Kullback-Leibler minimization", ICML 2023.
"""

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from numpyro.distributions import constraints

from models.generated import smooth
from models.gp import gaussian, matern32

NUGGET = 1e-5
"""Of the variance, to solve with in single precision."""


class InTurn(dist.Distribution):
    """Values one after the other, each given some earlier ones.

    **Arguments**

    - `loc`: means, `(n,)`; `weights`: b, `(n, k)`; `scale`: s, `(n,)`.
    - `before`: which values they are of, `(n, k)`; -1 is none.
    """

    support = constraints.real_vector
    arg_constraints: ClassVar = {
        "loc": constraints.real_vector,
        "weights": constraints.real_matrix,
        "scale": constraints.independent(constraints.positive, 1),
    }
    reparametrized_params = ("loc", "weights", "scale")
    pytree_data_fields = ("loc", "weights", "scale", "before")

    def __init__(self, loc, weights, scale, before):
        self.loc, self.weights, self.scale, self.before = loc, jnp.where(before < 0, 0, weights), scale, before
        super().__init__(event_shape=loc.shape)

    def sample(self, key, sample_shape=()):
        return self.loc + self.moved(jax.random.normal(key, (*sample_shape, *self.event_shape)))

    def moved(self, noise):
        """Noise, `(*draws, n)`, to values about their means."""
        n = len(self.loc)
        taken = jnp.zeros((n, n)).at[jnp.arange(n)[:, None], self.before].add(self.weights)
        flat = (self.scale * noise).reshape(-1, n)
        return solve_triangular(jnp.eye(n) - taken, flat.T, lower=True, unit_diagonal=True).T.reshape(noise.shape)

    def log_prob(self, value):
        apart = value - self.loc
        return dist.Normal((self.weights * apart[..., self.before]).sum(-1), self.scale).log_prob(apart).sum(-1)

    def root(self):
        """R, `(n, n)`: the covariance is R R'."""
        return self.moved(jnp.eye(len(self.loc))).T


def coarse_to_fine(x):
    """Order of places `(n, d)`: the first is the nearest to the middle, each other the farthest from all before it."""
    found = [int(np.argmin(((x - x.mean(0)) ** 2).sum(1)))]
    apart = np.full(len(x), np.inf)
    for _ in x[1:]:
        apart = np.minimum(apart, ((x - x[found[-1]]) ** 2).sum(1))
        found.append(int(np.argmax(apart)))
    return np.array(found)


def nearest(x, k, among=None):
    """The k nearest of the places before each, or of others, the nearest first, `(n, k)`; -1 where there are fewer."""
    others = x if among is None else among
    squares = ((x[:, None] - others) ** 2).sum(2)
    if among is None:
        squares = np.where(np.tri(len(x), k=-1, dtype=bool), squares, np.inf)
    order = np.argsort(squares, axis=1, kind="stable")[:, :k]
    return np.where(np.isfinite(np.take_along_axis(squares, order, 1)), order, -1)


@partial(jax.jit, static_argnames="kernel")
def conditional(process, x, before, among, kernel=matern32):
    """Weights `(n, k)` and scales `(n,)` of the process's values at x, given those at some of other places."""

    def one(here, which):
        there = which >= 0
        places = among[which]
        k = process.variance * jnp.where(there[:, None] & there, kernel(places, places, process.lengthscale), 0)
        k = k + jnp.diag(jnp.where(there, NUGGET * process.variance, 1.0))
        across = process.variance * jnp.where(there, kernel(here[None], places, process.lengthscale)[0], 0)
        weights = jnp.linalg.solve(k, across)
        return weights, jnp.sqrt(process.variance * (1 + NUGGET) - across @ weights)

    return jax.lax.map(lambda each: one(*each), (x, before))


def prior(process, x, k, kernel=matern32):
    """The process at places which come from coarse to fine."""
    before = jnp.asarray(nearest(np.asarray(x), k))
    return InTurn(jnp.zeros(len(x)), *conditional(process, x, before, x, kernel), before)


def model(y, prior, process, likelihood=gaussian):
    """Of outputs `(n,)`, in the order of the prior."""
    f = numpyro.sample("f", prior)
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", likelihood(f, process), obs=y)


def elsewhere(q, process, x, new, k, kernel=matern32):
    """Means and variances at new places, each given its k nearest of those where q is."""
    before = jnp.asarray(nearest(np.asarray(new), k, np.asarray(x)))
    weights, scale = conditional(process, new, before, x, kernel)
    taken = jnp.zeros((len(new), len(x))).at[jnp.arange(len(new))[:, None], before].add(weights)
    return taken @ q.loc, scale**2 + ((taken @ q.root()) ** 2).sum(1)


def logits(y, root):
    """The process itself at all places, of which the first have outputs of zero and one; the covariance is root root'."""
    v = numpyro.sample("v", dist.Normal(jnp.zeros(len(root)), 1.0).to_event(1))
    f = numpyro.deterministic("f", root @ v)
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=f[: len(y)]), obs=y)


def exact(process, x, y, before, kernel=matern32):
    """The guide's parameters at which it is the posterior after outputs with noise, where each value knows all before it."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    k = process.variance * (np.asarray(kernel(x, x, process.lengthscale), np.float64) + NUGGET * np.eye(len(x)))
    gain = np.linalg.solve(k + process.noise**2 * np.eye(len(x)), k).T
    inverse = np.linalg.inv(np.linalg.cholesky(k - gain @ k))
    scale = 1 / np.diagonal(inverse)
    weights = -np.take_along_axis(inverse, np.maximum(before, 0), 1) * scale[:, None]
    return {"loc": jnp.asarray(gain @ y), "weights": jnp.asarray(weights), "scale": jnp.asarray(scale)}


def places_and_outputs(n, new, lengthscale, noise, seed=0):
    """A function's values at n places that come from coarse to fine, and at new ones; without noise, zeros and ones."""
    x, y = smooth(n + new, lengthscale=lengthscale, noise=noise, seed=seed)
    if not noise:
        y = (np.random.default_rng(seed).uniform(size=len(y)) < 1 / (1 + np.exp(-2 * y))).astype(np.float32)
    order = coarse_to_fine(x[:n])
    return tuple(map(jnp.asarray, (x[order], y[order], x[n:], y[n:])))
