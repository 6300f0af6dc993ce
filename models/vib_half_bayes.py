"""A variational information bottleneck: what is said of a picture passes through a few noisy numbers.

    z_i ~ N(0, I_16)        y_i ~ Categorical(softmax(W z_i + b))

Read as a model of labels alone, it draws numbers and says by them which label there is; the picture comes in by the guide.
`models.ivon` is the same task with a network whose weights are uncertain, in place of its numbers.

Alemi, Fischer, Dillon and Murphy, "Deep variational information bottleneck", ICLR 2017; Alemi, Morningstar, Poole, Fischer and
Dillon, "VIB is half Bayes", AABI 2020.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.ivon import CLASSES
from models.networks import glorot, perceptron

LATENT = 16


def model(x, y, total, latent=LATENT, hidden=()):
    """Of some pictures `(n, pixels)` and what they are, which stand for so many."""
    weights = numpyro.param("decoder", lambda key: glorot(key, latent, *hidden, CLASSES))
    with numpyro.plate("images", total, subsample_size=len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(latent), 1.0).to_event(1))
        numpyro.sample("y", dist.Categorical(logits=perceptron(weights, z)), obs=y)
