"""The rest of a picture, given a part of it: a point of a latent space, whose prior the part decides, says which of the many.

    z_i ~ N(net(x_i))    y_i ~ Bernoulli(sigmoid(net(z_i, x_i)))

Where several continuations are possible, a network from x to y answers with their average, pixel by pixel. With z the pixels
agree with one another. Sohn, Lee and Yan, "Learning structured output representation using deep conditional generative models",
NIPS 2015; `plain` is the network without z.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.networks import glorot, normal, perceptron

LATENT, HIDDEN = 20, (200,)


def prior_network(x, latent, hidden):
    return numpyro.param("prior", lambda key: glorot(key, x.shape[1], *hidden, 2 * latent))


def prior(x, y, batch=None, latent=LATENT, hidden=HIDDEN):
    """The points alone, as the seen part has them."""
    weights = prior_network(x, latent, hidden)
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        numpyro.sample("z", normal(perceptron(weights, x[rows])))


def rest(weights, x, z):
    """Logits of the pixels that are not seen."""
    return perceptron(weights, jnp.concatenate([x, z], -1))


def model(x, y, batch=None, latent=LATENT, hidden=HIDDEN):
    """Of seen pixels `(n, seen)` and the others `(n, rest)`, all zeros and ones."""
    weights = prior_network(x, latent, hidden)
    decoder = numpyro.param("decoder", lambda key: glorot(key, x.shape[1] + latent, *hidden, y.shape[1]))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        z = numpyro.sample("z", normal(perceptron(weights, x[rows])))
        numpyro.sample("y", dist.Bernoulli(logits=rest(decoder, x[rows], z)).to_event(1), obs=y[rows])


def plain(x, y, batch=None, hidden=HIDDEN):
    """Each pixel by itself, given the seen ones."""
    weights = numpyro.param("network", lambda key: glorot(key, x.shape[1], *hidden, y.shape[1]))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        numpyro.sample("y", dist.Bernoulli(logits=perceptron(weights, x[rows])).to_event(1), obs=y[rows])
