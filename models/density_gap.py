"""A phrase word by word: each one given the three before it, and a point of a latent space.

    z_i ~ N(0, I)    x_it ~ Categorical(softmax(net(x_i,t-1, x_i,t-2, x_i,t-3, z_i)))

The words before tell much of a word, so that the evidence lower bound has little reason to use the point. Zhang, Bai, Lin, Wang
and Rong, "Improving variational autoencoders with density gap-based regularization", NeurIPS 2022, with a perceptron over
three words in place of recurrent networks.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.networks import glorot, perceptron

LATENT, HIDDEN, EMBEDDING, BEFORE = 16, 128, 32, 3


def logits(weights, x, z):
    """Of words `(n, places, words)`, given phrases `(n, places)` and points `(n, 16)`."""
    seen = jnp.pad(weights["embedding"][x], ((0, 0), (BEFORE, 0), (0, 0)))
    places = x.shape[1]
    before = [seen[:, lag : lag + places] for lag in range(BEFORE)]
    point = jnp.broadcast_to(z[:, None], (*x.shape, z.shape[-1]))
    return perceptron(weights["layers"], jnp.concatenate([*before, point], -1))


def decoder(key, words):
    """Weights from which training starts."""
    one, other = jax.random.split(key)
    embedding = 0.1 * jax.random.normal(one, (words, EMBEDDING))
    return {"embedding": embedding, "layers": glorot(other, BEFORE * EMBEDDING + LATENT, HIDDEN, words)}


def model(x, batch=None, words=500):
    """Of phrases `(n, places)`, numbers of words; a minibatch of so many of them stands for all."""
    weights = numpyro.param("decoder", lambda key: decoder(key, words))
    with numpyro.plate("phrases", len(x), subsample_size=batch) as rows:
        z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
        numpyro.sample("x", dist.Categorical(logits=logits(weights, x[rows], z)).to_event(1), obs=x[rows])
