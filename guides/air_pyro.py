"""The guide of `guides.air`, in Pyro."""

import pyro
import pyro.distributions as dist
import torch

from models.air_networks_pyro import UNITS, WHAT, WHERE, Recognition, attend
from models.air_pyro import PRESENT, WHERE_LOC, WHERE_SCALE

RECOGNITION = Recognition()


def guide(images):
    """Where an object is absent, its place and appearance have their priors, so that they cost nothing."""
    net = pyro.module("recognition", RECOGNITION)
    n = len(images)
    present, where, what = torch.ones(n), torch.zeros(n, WHERE), torch.zeros(n, WHAT)
    seen, state = net.look(images), (torch.zeros(n, UNITS), torch.zeros(n, UNITS))
    with pyro.plate("images", n):
        for t in range(len(PRESENT)):
            shape = torch.broadcast_shapes(where.shape[:-1], present.shape)
            before = (where.expand(*shape, WHERE), what.expand(*shape, WHAT), present.expand(shape)[..., None])
            state = net.lstm(seen, before, tuple(x.expand(*shape, UNITS) for x in state))
            further, loc, scale = net.heads(state[0])
            present = pyro.sample(f"pres_{t}", dist.Bernoulli(further * present))
            found = present[..., None] > 0
            loc = WHERE_LOC + torch.where(found, loc, 0.0) * WHERE_SCALE
            where = pyro.sample(
                f"where_{t}", dist.Normal(loc, WHERE_SCALE * torch.where(found, scale, 1.0)).to_event(1)
            )
            loc, scale = net.encode(attend(where, images))
            loc, scale = torch.where(found, loc, 0.0), torch.where(found, scale, 1.0)
            what = pyro.sample(f"what_{t}", dist.Normal(loc, scale).to_event(1))
