"""Guides of weights: a spike and a slab for each, a Gaussian for each, or a point.

    active_k ~ Bernoulli(chance_k)    w_k ~ N(loc_k, scale_k^2)

Where a weight is not active its size meets no data, and the objective does not count it.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def locations(weights):
    return numpyro.param("loc", lambda key: 0.5 * jax.random.normal(key, (weights,)))


def scales(weights):
    return numpyro.param("scale", jnp.full(weights, 0.05), constraint=dist.constraints.positive)


def spike_and_slab(x, y, weights, function=None):
    """Returns chances, locations and scales."""
    chance = jax.nn.sigmoid(jnp.asarray(numpyro.param("logits", jnp.full(weights, 2.0))))
    numpyro.sample("active", dist.Bernoulli(chance).to_event(1))
    loc, scale = locations(weights), scales(weights)
    numpyro.sample("w", dist.Normal(loc, scale).to_event(1))
    return chance, loc, scale


def gaussian(x, y, weights):
    numpyro.sample("w", dist.Normal(locations(weights), scales(weights)).to_event(1))


def point(x, y, weights):
    numpyro.sample("w", dist.Delta(locations(weights), event_dim=1))


def draws(key, params, n):
    """Weights `(n, weights)` that a guide with these parameters draws."""
    first, second = jax.random.split(key)
    shape = (n, len(params["loc"]))
    w = params["loc"] + params.get("scale", 0.0) * jax.random.normal(first, shape)
    if "logits" in params:
        w = w * jax.random.bernoulli(second, jax.nn.sigmoid(params["logits"]), shape)
    return w
