"""The guide of `guides.vae`, in Pyro."""

import pyro
import pyro.distributions as dist

from models.networks_pyro import perceptron
from models.vae_pyro import HIDDEN, LATENT, PIXELS

ENCODER = perceptron(PIXELS, HIDDEN, HIDDEN, 2 * LATENT)


def guide(x, batch=None):
    encode = pyro.module("encoder", ENCODER)
    with pyro.plate("images", len(x), subsample_size=batch) as rows:
        loc, log_scale = encode(x[rows]).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
