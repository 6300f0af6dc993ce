"""Attend, Infer, Repeat as in `models.air`, in Pyro."""

import pyro
import pyro.distributions as dist
import torch

from models.air_networks_pyro import IMAGE, WHAT, Decoder, paint

PRESENT = (0.05, 0.05**2.3, 0.05**5)
WHERE_LOC, WHERE_SCALE = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.2, 1.0, 1.0])
NOISE = 0.3
DECODER = Decoder()


def model(images):
    """Of images `(n, 50, 50)`."""
    decode = pyro.module("decoder", DECODER)
    with pyro.plate("images", len(images)):
        present, canvas = torch.ones(len(images)), torch.zeros(IMAGE, IMAGE)
        for t, prior in enumerate(PRESENT):
            present = pyro.sample(f"pres_{t}", dist.Bernoulli(prior * present))
            where = pyro.sample(f"where_{t}", dist.Normal(WHERE_LOC, WHERE_SCALE).to_event(1))
            what = pyro.sample(f"what_{t}", dist.Normal(torch.zeros(WHAT), 1.0).to_event(1))
            canvas = canvas + present[..., None, None] * paint(where, decode(what))
        pyro.sample("image", dist.Normal(canvas, NOISE).to_event(2), obs=images)
