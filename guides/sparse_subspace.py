"""Guides of weights in a subspace: independent Gaussians there, and the prior outside, which costs the bound nothing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import erf

from models.sparse_subspace import layers

START = 0.02
"""Of the scales."""


def weight(name, shape, prior, kept, loc):
    """A site of weights: learned in the subspace, and outside as in the prior, whose scale is given."""
    loc = numpyro.param(f"{name}_loc", loc)
    scale = numpyro.param(f"{name}_scale", jnp.full(shape, START), constraint=dist.constraints.positive)
    inside = kept[name] > 0
    numpyro.sample(name, dist.Normal(jnp.where(inside, loc, 0.0), jnp.where(inside, scale, prior)).to_event(len(shape)))


def guide(x, y, kept, batch=None, nudged=False):
    for name, (shape, prior) in layers(x.shape[1]).items():
        weight(name, shape, prior, kept, lambda key, shape=shape, prior=prior: prior * jax.random.normal(key, shape))


def linear(x, y, kept, nudged=False):
    weight("w", x.shape[1:], 1.0, kept, jnp.zeros(x.shape[1]))


def flat(kept, tree, end=""):
    """All weights of a tree of sites in one array."""
    return np.concatenate([np.ravel(tree[f"{site}{end}"]) for site in kept])


def shaped(kept, values):
    """The other way round: an array of all weights as a tree of sites."""
    parts = np.split(np.float32(values), np.cumsum([np.size(each) for each in kept.values()])[:-1])
    return {site: jnp.asarray(part.reshape(kept[site].shape)) for site, part in zip(kept, parts, strict=True)}


def at_random(kept, n, seed):
    """A subspace of n weights."""
    return shaped(kept, np.random.default_rng(seed).permutation(flat(kept, kept).size) < n)


def certainty(loc, scale):
    """Mean of |w| over its standard deviation, of w ~ N(loc, scale^2)."""
    mean = scale * jnp.sqrt(2 / jnp.pi) * jnp.exp(-0.5 * (loc / scale) ** 2) + loc * erf(loc / (scale * jnp.sqrt(2)))
    return mean / jnp.sqrt(loc**2 + scale**2 - mean**2)


def exchanged(kept, params, pull, n):
    """What is kept next, and where it begins; n weights are removed, and n added."""
    now, loc, scale = flat(kept, kept), flat(kept, params, "_loc"), flat(kept, params, "_scale")
    out = np.argsort(np.where(now > 0, certainty(loc, scale), np.inf))[:n]
    into = np.argsort(np.where(now > 0, -np.inf, np.abs(flat(kept, pull, "_nudge"))))[len(now) - n :]
    now[out], now[into], loc[into], scale[into] = 0, 1, 0, START
    params = dict(params)
    for end, values in (("_loc", loc), ("_scale", scale)):
        params |= {f"{site}{end}": each for site, each in shaped(kept, values).items()}
    return shaped(kept, now), params


def pulled(bound, **options):
    """Takes key, parameters, subspace and data to the gradient with respect to all weights."""
    nudged = jax.jit(partial(bound.value_and_grad, nudged=True, **options))

    def pull(key, params, kept, *data):
        nudges = {f"{site}_nudge": 0 * each for site, each in kept.items()}
        return nudged(key, params | nudges, *data, kept)[1]

    return pull
