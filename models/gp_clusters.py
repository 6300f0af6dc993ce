"""Functions of several kinds: a mixture of Gaussian processes, each about a mean that is drawn from a process too.

    share ~ parameters    label_i ~ Categorical(share)    mean_k ~ GP(0, k_mean)
    y_i(t) = mean_{label_i}(t) + f_i(t) + noise           f_i ~ GP(0, k_own)

Tasks, such as patients or athletes, are each seen at a few times of a common grid. What all tasks of a kind have in common is a
function, the kind's mean; about it each goes its own way. A task that is seen only at the beginning is then foretold by those
of its kind.

Leroy, Latouche, Guedj and Gey, "Cluster-specific predictions with multi-task Gaussian processes", JMLR 24 (2023).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import block_diag
from jax.scipy.special import logsumexp
from numpyro import handlers
from numpyro.distributions import constraints

from models import gp


class Kinds(NamedTuple):
    """What the model learns."""

    share: Any
    """Of each kind."""
    common: gp.Process
    """Of the means; its noise is not used."""
    own: gp.Process
    """Of each task about them."""


def learned(kinds):
    def process(name, variance, lengthscale):
        return gp.begun(gp.Process(*map(jnp.array, (variance, lengthscale, 0.3))), f"{name}_")

    share = numpyro.param("share", jnp.full(kinds, 1 / kinds), constraint=constraints.simplex)
    return Kinds(share, process("common", 4.0, 2.0), process("own", 0.5, 1.0))


def learned_by(params, kinds):
    """What a fit has learned."""
    with handlers.substitute(data=params):
        return learned(kinds)


def covariances(kinds, times):
    """Of what tasks are seen to be, about the mean of their kind, `(task, time, time)` of times `(task, time)`."""
    apart = (times[..., None] - times[..., None, :]) / kinds.own.lengthscale
    same = jnp.eye(times.shape[-1])
    return kinds.own.variance * jnp.exp(-0.5 * apart**2) + (kinds.own.noise**2 + 1e-4) * same


def root(kinds, grid):
    """Cholesky's factor of the covariance of a mean's values."""
    return gp.factor(kinds.common, grid[:, None], gp.squared_exponential)


def model(grid, at, y, kinds=3):
    """Of outputs `(task, time)` at those times `at` of a grid."""
    k = learned(kinds)
    with numpyro.plate("kinds", kinds):
        mean = numpyro.sample("mean", dist.MultivariateNormal(jnp.zeros(len(grid)), scale_tril=root(k, grid)))
    with numpyro.plate("tasks", len(y)):
        label = numpyro.sample("label", dist.Categorical(k.share))
        seen = dist.MultivariateNormal(mean[label[..., None], at], covariances(k, grid[at]))
        numpyro.sample("y", seen, obs=y)


def alone(grid, at, y):
    """Each task by itself: no means, and one process for all."""
    numpyro.sample(
        "y", dist.MultivariateNormal(jnp.zeros(at.shape), covariances(learned(1), grid[at])).to_event(1), obs=y
    )


def given_labels(kinds, grid, at, y, label):
    """Log density of outputs and these labels, with the means integrated out."""
    task, factor = jnp.repeat(label, at.shape[1]), root(kinds, grid)[at.ravel()]
    covariance = jnp.where(task[:, None] == task, factor @ factor.T, 0) + block_diag(*covariances(kinds, grid[at]))
    outputs = dist.MultivariateNormal(jnp.zeros(y.size), covariance).log_prob(y.ravel())
    return outputs + jnp.log(kinds.share)[label].sum()


def foretold(share, loc, covariance, y):
    """Weights `(task, kind)` in logarithms, and means and standard deviations of later outputs, of the first `(task, time)`.

    Of each kind's share, and its Gaussian for the outputs of a task at all times, `(kind, time)` and `(kind, time, time)`.
    """
    n = y.shape[1]
    first = dist.MultivariateNormal(loc[:, :n], covariance[:, :n, :n])
    gain = jnp.linalg.solve(covariance[:, :n, :n], covariance[:, :n, n:])
    mean = loc[:, n:] + jnp.einsum("ikt,ktu->iku", y[:, None] - loc[:, :n], gain)
    left = jnp.diagonal(covariance[:, n:, n:], axis1=1, axis2=2) - (gain * covariance[:, :n, n:]).sum(1)
    return jax.nn.log_softmax(jnp.log(share) + first.log_prob(y[:, None])), mean, jnp.sqrt(left)


def ahead(params, kinds, grid, y):
    """The same of parameters; of no kinds, with each task alone."""
    k = learned_by(params, max(kinds, 1))
    own = covariances(k, grid[None])
    if kinds == 0:
        return foretold(jnp.ones(1), jnp.zeros((1, len(grid))), own, y)
    return foretold(k.share, params["loc"], params["scale"] @ jnp.swapaxes(params["scale"], 1, 2) + own, y)


def scores(told, later):
    """Root mean squared error of the mixture's mean, and mean log density of outputs one by one."""
    weight, mean, sd = told
    error = jnp.sqrt((((jnp.exp(weight)[..., None] * mean).sum(1) - later) ** 2).mean())
    density = logsumexp(weight[..., None] + dist.Normal(mean, sd).log_prob(later[:, None]), axis=1).mean()
    return {"error": float(error), "score": float(density)}


class Tasks(NamedTuple):
    at: Any
    """Which times of the grid, `(task, time)`."""
    y: Any
    label: Any
    whole: Any
    """Outputs at every time of the grid."""


def tasks(n, times, grid, kinds=3, seed=0, mixed=True):
    """So many tasks, drawn from the model at its first values; seen at any times of the grid, or else at the first ones."""
    rng = np.random.default_rng([seed, kinds])
    squares = (grid[:, None] - grid) ** 2
    common, own = (
        np.linalg.cholesky(variance * np.exp(-squares / 2 / length**2) + 1e-6 * np.eye(len(grid)))
        for variance, length in ((4.0, 2.0), (0.5, 1.0))
    )
    means = rng.normal(size=(kinds, len(grid))) @ common.T
    rng = np.random.default_rng([seed, kinds, n, mixed])
    label = rng.integers(0, kinds, n)
    whole = means[label] + rng.normal(size=(n, len(grid))) @ own.T + 0.3 * rng.normal(size=(n, len(grid)))
    at = np.stack([np.sort(rng.permutation(len(grid))[:times]) if mixed else np.arange(times) for _ in range(n)])
    return Tasks(jnp.asarray(at), jnp.asarray(np.take_along_axis(whole, at, 1), jnp.float32), label, whole)
