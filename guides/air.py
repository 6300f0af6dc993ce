"""Guide for Attend, Infer, Repeat: a recurrent network looks at an image and finds one object after the other."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.air import STEPS, WHERE_LOC, WHERE_SCALE
from models.air_networks import UNITS, WHAT, WHERE, attend, encode, heads, look, lstm, recognition


def guide(images):
    """Where an object is absent, its place and appearance have their priors, so that they cost nothing.

    Places are in units of the prior, as windows of no size would else be likely at first.
    """
    weights = numpyro.param("recognition", recognition)
    n = len(images)
    present, where, what = jnp.ones(n), jnp.zeros((n, WHERE)), jnp.zeros((n, WHAT))
    seen, state = look(weights, images), (jnp.zeros((n, UNITS)), jnp.zeros((n, UNITS)))
    with numpyro.plate("images", n):
        for t in range(STEPS):
            state = lstm(weights, seen, (where, what, present[..., None]), state)
            further, loc, scale = heads(weights, state[0])
            present = numpyro.sample(f"pres_{t}", dist.Bernoulli(further * present))
            found = present[..., None] > 0
            loc = WHERE_LOC + jnp.where(found, loc, 0.0) * WHERE_SCALE
            scale = WHERE_SCALE * jnp.where(found, scale, 1.0)
            where = numpyro.sample(f"where_{t}", dist.Normal(loc, scale).to_event(1))
            loc, scale = encode(weights, attend(where, images))
            loc, scale = jnp.where(found, loc, 0.0), jnp.where(found, scale, 1.0)
            what = numpyro.sample(f"what_{t}", dist.Normal(loc, scale).to_event(1))
