"""The guides of `guides.cone`, in Pyro."""

import math

import pyro
import pyro.distributions as dist
import torch


def mean_field(z, start=(0.0, 0.0)):
    """Independent normals."""
    for site, loc in zip("xy", start, strict=True):
        loc = pyro.param(f"{site}_loc", torch.tensor(loc))
        pyro.sample(site, dist.Normal(loc, pyro.param(f"{site}_log_scale", torch.tensor(1.0)).exp()))


def ring(z):
    """u is uniform, and (x, y) normal around the point at angle 2 pi u of the ring; keep x and y, and marginalise u."""
    angle = 2 * math.pi * pyro.sample("u", dist.Uniform(0.0, 1.0))
    x_scale, y_scale = (pyro.param(f"{site}_log_scale", torch.tensor(0.0)).exp() for site in "xy")
    pyro.sample("x", dist.Normal(z.sqrt() * angle.cos(), x_scale))
    pyro.sample("y", dist.Normal(z.sqrt() * angle.sin(), y_scale))
