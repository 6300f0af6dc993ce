"""Guide of `models.green_vae`: one network says of every image which points may have made it, another which made those."""

import numpyro

from models.green_vae import TOP
from models.networks import glorot, normal, perceptron
from models.vae import HIDDEN, LATENT


def guide(x, batch=None, latent=LATENT, hidden=(HIDDEN, HIDDEN)):
    weights = numpyro.param("encoder", lambda key: glorot(key, x.shape[1], *hidden, 2 * latent))
    top = numpyro.param("top encoder", lambda key: glorot(key, latent, TOP, 2 * latent))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        z = numpyro.sample("z", normal(perceptron(weights, x[rows])))
        numpyro.sample("u", normal(perceptron(top, z)))
