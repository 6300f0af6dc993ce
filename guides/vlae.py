"""The guide of `models.vlae.of_noise`: the Gaussians of `guides.vae`, moved by the layers that the prior of the other has."""

import numpyro

from guides.vae import encode
from models.flows import flow, inverse_autoregressive


def guide(x):
    loc, scale = encode(numpyro.param("encoder", None), x)
    with numpyro.plate("images", len(x)):
        numpyro.sample("z", flow(inverse_autoregressive, loc, scale, numpyro.param("prior", None)))
