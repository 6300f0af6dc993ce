"""Guides simpler than their posteriors: one normal for each value of the bit; hidden neurons that go by the past alone."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.nn import sigmoid
from numpyro.contrib.control_flow import scan

from models.forward_chi_square import DECAY, HIDDEN, NEURONS


def normals(x, size):
    loc = numpyro.param("loc", jnp.array([-9.0, 9.0]))
    scale = numpyro.param("scale", jnp.ones(2), constraint=dist.constraints.positive)
    with numpyro.plate("data", len(x), subsample_size=size) as rows:
        bit = x[rows].astype(int)
        numpyro.sample("z", dist.Normal(loc[bit], scale[bit]))


def past(recorded):
    weights = numpyro.param("hidden_couplings", jnp.zeros((NEURONS, HIDDEN)))
    bias = numpyro.param("hidden_bias", jnp.zeros(HIDDEN))

    def step(history, seen):
        with numpyro.plate("sequences", len(seen)):
            hidden = numpyro.sample("hidden", dist.Poisson(sigmoid(bias + history @ weights)).to_event(1))
        return DECAY * (history + jnp.concatenate([seen, hidden], -1)), None

    scan(step, jnp.zeros((len(recorded), NEURONS)), jnp.swapaxes(recorded, 0, 1))
