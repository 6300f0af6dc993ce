"""Multinomial variational auto-encoder: what a user clicks is a bag of items, drawn at rates that a network makes of a taste.

    z_u ~ N(0, I_200)        x_u ~ Multinomial(N_u, softmax(decode(z_u)))        decode: one hidden layer of 600 units, tanh

The items share one budget of probability, so that what counts is which are ranked above which. The divergence from the prior
is weighed by beta, near 0 at first and then raised to at most 1: 200 dimensions for a user with ten clicks are held back too
much by all of it.

Liang, Krishnan, Hoffman and Jebara, "Variational Autoencoders for Collaborative Filtering", WWW 2018.
"""

import numpyro
import numpyro.distributions as dist

from models.networks import glorot, perceptron

LATENT, HIDDEN = 200, 600


def model(clicks, beta):
    """Of clicks `(users, items)`, 0 or 1."""
    users, items = clicks.shape
    weights = numpyro.param("decoder", lambda key: glorot(key, LATENT, HIDDEN, items))
    with numpyro.plate("users", users):
        with numpyro.handlers.scale(scale=beta):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([LATENT]).to_event(1))
        logits = perceptron(weights, z)
        numpyro.sample("x", dist.Multinomial(logits=logits, total_count=clicks.sum(-1)), obs=clicks)
