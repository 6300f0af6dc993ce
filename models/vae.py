"""The variational autoencoder: a black-and-white image is made of a point of a latent space by a network.

    z_i ~ N(0, I)    x_i ~ Bernoulli(sigmoid(decode(z_i)))

A picture of 784 pixels is a point of a 50-dimensional space, and a perceptron with two hidden layers of 200 units says of each
pixel how likely it is white there. What nobody knows is the point of a given picture; a second network (`guides.vae`) says it.
Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014; widths as in Burda, Grosse and Salakhutdinov, ICLR 2016.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.networks import glorot, perceptron

PIXELS, HIDDEN, LATENT = 784, 200, 50


def model(x, batch=None, latent=LATENT, hidden=(HIDDEN, HIDDEN), activation=jnp.tanh):
    """Of images `(n, pixels)` of zeros and ones; a minibatch of so many of them stands for all."""
    weights = numpyro.param("decoder", lambda key: glorot(key, latent, *hidden, x.shape[1]))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        z = numpyro.sample("z", dist.Normal(jnp.zeros(latent), 1.0).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=perceptron(weights, z, activation)).to_event(1), obs=x[rows])


def gaussian(x, batch=None, latent=16, hidden=(HIDDEN,), prior=None, noise=0.5, activation=jnp.tanh):
    """Of rows of numbers `(n, outputs)`, known up to a noise that is learned:

        z_i ~ prior    x_i ~ N(decode(z_i), noise^2 I)

    **Arguments**

    - `prior`: of a point; N(0, I) in `latent` dimensions where none is given.
    - `noise`: from which training starts.
    """
    prior = prior or dist.Normal(jnp.zeros(latent), 1.0).to_event(1)
    weights = numpyro.param("decoder", lambda key: glorot(key, *prior.event_shape, *hidden, x.shape[1]))
    noise = numpyro.param("noise", noise, constraint=dist.constraints.positive)
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        z = numpyro.sample("z", prior)
        mean = perceptron(weights, z, activation)
        numpyro.sample("x", dist.Normal(mean, noise).to_event(1), obs=x[rows])
