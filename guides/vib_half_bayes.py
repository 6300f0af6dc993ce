"""Guides of the information bottleneck: a network reads the picture, and writes a Gaussian for each number, or the number."""

import numpyro
import numpyro.distributions as dist

from guides.vae import encode
from models.ivon import HIDDEN
from models.networks import glorot
from models.vib_half_bayes import LATENT


def guide(x, y, total, latent=LATENT, noisy=True):
    """Returns location and scale of each picture's Gaussian, `(images, latent)` both."""
    weights = numpyro.param("encoder", lambda key: glorot(key, x.shape[1], *HIDDEN, 2 * latent))
    with numpyro.plate("images", total, subsample_size=len(x)):
        loc, scale = encode(weights, x)
        numpyro.sample("z", dist.Normal(loc, scale).to_event(1) if noisy else dist.Delta(loc, event_dim=1))
    return loc, scale
