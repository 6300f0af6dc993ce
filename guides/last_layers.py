"""Guides of a network whose last layer is Bayesian: what is learned of the features, and what of the last layer."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from models.last_layers import SCALE, UNITS


def points(x, gain):
    """Hidden layer and noise, from draws of the prior on."""
    shape = (x.shape[1] + 1, UNITS)
    hidden = numpyro.param("hidden_loc", lambda key: gain * x.shape[1] ** -0.5 * jax.random.normal(key, shape))
    numpyro.sample("noise", dist.Delta(numpyro.param("noise_loc", 0.5, constraint=constraints.positive)))
    return hidden, numpyro.param("last_loc", lambda key: SCALE * jax.random.normal(key, (UNITS + 1,)))


def point(x, y, gain):
    """All weights as points: what maximises the posterior's density."""
    hidden, last = points(x, gain)
    numpyro.sample("hidden", dist.Delta(hidden, event_dim=2))
    numpyro.sample("last", dist.Delta(last, event_dim=1))


def last_layer(x, y, gain):
    """A Gaussian for the last layer, with its covariance. Returns mean and factor."""
    hidden, loc = points(x, gain)
    factor = numpyro.param("last_factor", 0.1 * jnp.eye(UNITS + 1), constraint=constraints.lower_cholesky)
    numpyro.sample("hidden", dist.Delta(hidden, event_dim=2))
    numpyro.sample("last", dist.MultivariateNormal(loc, scale_tril=factor))
    return loc, factor


def mean_field(x, y, gain):
    """A Gaussian for each weight of both layers."""
    for name, loc in zip(("hidden", "last"), points(x, gain), strict=True):
        scale = numpyro.param(f"{name}_scale", jnp.full(loc.shape, 0.05), constraint=constraints.positive)
        numpyro.sample(name, dist.Normal(loc, scale).to_event(loc.ndim))
