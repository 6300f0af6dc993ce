"""An image is made of a point of a latent space and of one kind among several.

    z_i ~ N(0, I)    c_i ~ Categorical(1/K, ..., 1/K)    x_i ~ Bernoulli(sigmoid(decode(z_i, c_i)))

What a digit is and how it is written are different sorts of fact, and a space that is continuous everywhere has no room for the
first. Nothing in this model says which is which: it is by how much each of the two may say that they are told apart.
Dupont, "Learning disentangled joint continuous and discrete representations", NeurIPS 2018, with perceptrons.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.networks import glorot, perceptron

LATENT, HIDDEN = 8, 128


class OneHot(dist.Distribution):
    """One kind among several, as a vector that is 1 there: of indices, mixtures would be indices too."""

    arg_constraints = {"logits": dist.constraints.real_vector}  # noqa: RUF012
    support = dist.constraints.simplex
    has_enumerate_support = True

    def __init__(self, logits, *, validate_args=None):
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        kinds = jax.random.categorical(key, self.logits, shape=(*sample_shape, *self.batch_shape))
        return jax.nn.one_hot(kinds, *self.event_shape)

    def log_prob(self, value):
        return (jax.nn.log_softmax(self.logits) * value).sum(-1)

    def enumerate_support(self, expand=True):
        k = self.logits.shape[-1]
        each = jnp.eye(k).reshape(k, *[1] * len(self.batch_shape), k)
        return jnp.broadcast_to(each, (k, *self.logits.shape)) if expand else each


def model(x, share=1.0, kinds=10):
    """Of images `(n, pixels)` of zeros and ones; `share`, of the course of training that is over, is for the objective."""
    weights = numpyro.param("decoder", lambda key: glorot(key, LATENT + kinds, HIDDEN, x.shape[1]))
    with numpyro.plate("images", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
        c = numpyro.sample("c", OneHot(jnp.zeros(kinds)))
        logits = perceptron(weights, jnp.concatenate([z, c], -1))
        numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)
