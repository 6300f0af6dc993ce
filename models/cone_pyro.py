"""The noisy cone of `models.cone`, in Pyro."""

import pyro
import pyro.distributions as dist
import torch

OBSERVED = torch.tensor(5.0)


def model(z=None):
    x = pyro.sample("x", dist.Normal(0.0, 10.0))
    y = pyro.sample("y", dist.Normal(0.0, 10.0))
    r = x**2 + y**2
    pyro.sample("z", dist.Normal(r, 0.1 + r / 100), obs=z)
