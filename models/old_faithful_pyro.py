"""The eruptions of `models.old_faithful`, in Pyro."""

from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import OrderedTransform

ERUPTIONS = torch.tensor(
    np.loadtxt(Path(__file__).with_name("faithful.csv"), delimiter=",", skiprows=1)[:, 0], dtype=torch.float32
)


def model(minutes):
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    first_and_gap = dist.Normal(torch.tensor([2.0, 0.9]), torch.tensor([1.0, 0.5])).to_event(1)
    means = pyro.sample("means", dist.TransformedDistribution(first_and_gap, OrderedTransform()))
    sds = pyro.sample("sds", dist.LogNormal(-1.0, 0.5).expand([2]).to_event(1))
    with pyro.plate("eruptions", len(minutes)):
        long = pyro.sample("long", dist.Bernoulli(share))
        mean, sd = (torch.where(long > 0, x[..., 1:], x[..., :1]) for x in (means, sds))
        pyro.sample("minutes", dist.Normal(mean, sd), obs=minutes)
