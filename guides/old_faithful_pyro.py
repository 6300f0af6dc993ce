"""The guide of `guides.old_faithful`, in Pyro."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.transforms import ExpTransform, OrderedTransform, SigmoidTransform


def normal(name, loc, scale):
    loc = pyro.param(f"{name}_loc", torch.tensor(loc))
    return dist.Normal(loc, pyro.param(f"{name}_scale", torch.tensor(scale), constraint=constraints.positive))


def guide(minutes):
    share = normal("share", 0.0, 0.3)
    pyro.sample("share", dist.TransformedDistribution(share, SigmoidTransform()))
    first_and_gap = normal("means", [2.0, 0.9], [0.1, 0.1]).to_event(1)
    pyro.sample("means", dist.TransformedDistribution(first_and_gap, OrderedTransform()))
    sds = normal("sds", [-1.0, -1.0], [0.1, 0.1])
    pyro.sample("sds", dist.TransformedDistribution(sds, ExpTransform()).to_event(1))

    constant, slope, curvature = pyro.param("label", torch.zeros(3))
    centred = minutes - 3
    logits = 10 * (constant + slope * centred + curvature * centred**2)
    with pyro.plate("eruptions", len(minutes)):
        pyro.sample("long", dist.Bernoulli(logits=logits))
