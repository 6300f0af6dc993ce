"""Guides of `models.restoration`, of which every picture has its own: a Gaussian, or a point."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.restoration import latent_size


def guide(y, prior, damage):
    loc = numpyro.param("loc", jnp.zeros((len(y), latent_size(prior))))
    scale = numpyro.param("scale", jnp.full((len(y), latent_size(prior)), 0.5), constraint=dist.constraints.positive)
    with numpyro.plate("images", len(y)):
        numpyro.sample("z", dist.Normal(loc, scale).to_event(1))


def points(y, prior, damage):
    loc = numpyro.param("loc", jnp.zeros((len(y), latent_size(prior))))
    with numpyro.plate("images", len(y)):
        numpyro.sample("z", dist.Delta(loc, event_dim=1))
