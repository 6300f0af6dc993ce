"""Two views of a picture, and no decoder: what one view says is a prior of what the other says.

    z_i ~ N(teacher(x'_i))    log p(t_i | z_i) = kappa cos(predict(z_i), t_i) + const    t_i = the teacher's location of x'_i

Of each picture there are two views x_i and x'_i, such as the picture moved and partly covered. The teacher is a network that
writes a Gaussian of the view that the guide does not see; a second network predicts from a point where the teacher's location
lies, up to its length, with a density of von Mises and Fisher's kind. The teacher is not trained: it is a running mean of the
guide's network, and a mutable state of the program, which each gradient moves once.

Yavuz and Yanikoglu, "Variational self-supervised learning", arXiv 2504.04318, 2025.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.primitives import mutable

from models.networks import glorot, perceptron

HIDDEN, LATENT, KAPPA, KEPT = (200, 200), 32, 50.0, 0.99
"""`KEPT` is the share of the teacher that a step leaves."""


def encoder(pixels):
    """The student's weights, which model and guide share."""
    return numpyro.param("encoder", lambda key: glorot(key, pixels, *HIDDEN, 2 * LATENT))


def said(weights, x):
    """What a network says of views: a Gaussian for each. Over the views at hand each number of the location has mean 0 and
    deviation 1, so that a network cannot say the same of all of them."""
    loc, log_scale = jnp.split(perceptron(weights, x, jax.nn.elu), 2, -1)
    loc = (loc - loc.mean(0)) / jnp.sqrt(loc.var(0) + 1e-6)
    return dist.Normal(loc, jnp.exp(log_scale)).to_event(1)


def cosine(a, b):
    lengths = jnp.sqrt((a**2).sum(-1) * (b**2).sum(-1) + 1e-12)
    return (a * b).sum(-1) / lengths


def model(x, other, kappa=KAPPA):
    """Of views `(n, pixels)` and of the other view of each."""
    student = jax.lax.stop_gradient(encoder(x.shape[1]))
    state = mutable("teacher", {"weights": student})
    teacher = state["weights"]
    state["weights"] = jax.tree.map(lambda mean, now: KEPT * mean + (1 - KEPT) * now, teacher, student)
    predictor = numpyro.param("predictor", lambda key: glorot(key, LATENT, 2 * LATENT, LATENT))
    prior = said(teacher, other)
    with numpyro.plate("views", len(x)):
        z = numpyro.sample("z", prior)
        numpyro.factor("direction", kappa * cosine(perceptron(predictor, z, jax.nn.elu), prior.mean))
