"""The variational autoencoder of `models.vae`, in Pyro."""

import pyro
import pyro.distributions as dist
import torch

from models.networks_pyro import perceptron

PIXELS, HIDDEN, LATENT = 784, 200, 50
DECODER = perceptron(LATENT, HIDDEN, HIDDEN, PIXELS)


def model(x, batch=None):
    """Of images `(n, 784)` of zeros and ones; a minibatch of so many of them stands for all."""
    decode = pyro.module("decoder", DECODER)
    with pyro.plate("images", len(x), subsample_size=batch) as rows:
        z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x[rows])
