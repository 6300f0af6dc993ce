"""Normalizing flows as a guide: a Gaussian draw goes through layers of `models.flows`."""

import functools

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.flows import first_weights, flow, planar


def guide(seeds=1, kind=planar, layers=0):
    """A flow of its own for each energy and seed of `models.energies`."""
    batch = (4, seeds)
    loc = numpyro.param("loc", lambda key: jax.random.normal(key, (*batch, 2)))
    scale = numpyro.param("scale", jnp.ones((*batch, 2)), constraint=dist.constraints.positive)
    weights = numpyro.param("weights", functools.partial(first_weights, kind, layers, 2, batch, 16))
    with numpyro.plate("seeds", seeds, dim=-1), numpyro.plate("energies", 4, dim=-2):
        numpyro.sample("z", flow(kind, loc, scale, weights))
