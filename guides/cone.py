"""Guides for the noisy cone: a Gaussian, which cannot follow the ring, and one that goes round it by an auxiliary angle."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def mean_field(z, start=(0.0, 0.0)):
    """Independent normals."""
    for site, loc in zip("xy", start, strict=True):
        loc = numpyro.param(f"{site}_loc", loc)
        numpyro.sample(site, dist.Normal(loc, jnp.exp(numpyro.param(f"{site}_log_scale", 1.0))))


def ring(z):
    """u is uniform, and (x, y) normal around the point at angle 2 pi u of the ring; keep x and y, and marginalise u."""
    angle = 2 * jnp.pi * numpyro.sample("u", dist.Uniform(0.0, 1.0))
    x_scale, y_scale = (jnp.exp(numpyro.param(f"{site}_log_scale", 0.0)) for site in "xy")
    numpyro.sample("x", dist.Normal(jnp.sqrt(z) * jnp.cos(angle), x_scale))
    numpyro.sample("y", dist.Normal(jnp.sqrt(z) * jnp.sin(angle), y_scale))


def angle(choices, z):
    """A learned reverse program: the angle given the point, a normal of learned width around the point's own."""
    u = jnp.arctan2(choices["y"], choices["x"]) / (2 * jnp.pi) % 1.0
    width = jnp.exp(numpyro.param("u_log_scale", -2.0))
    numpyro.sample("u", dist.TruncatedNormal(u, width, low=0.0, high=1.0))
