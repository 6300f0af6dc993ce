"""A Bayesian autoencoder: a network with a bottleneck that gives back what it is shown, and whose weights have a prior.

    W_l ~ N(0, s_l^2)    log noise ~ N(-1.5, 1)    x_i ~ N(f_W(x_i), noise^2 I)    f: 6 -> 5 -> 2 -> 5 -> 6 numbers

The scales s_l, one for the weights and one for the biases of each layer, are the prior. They say what the network gives back
before it has seen anything, which `outputs` draws: each row by weights of its own.

Tran, Rossi, Milios, Michiardi, Bonilla and Filippone, "Model selection for Bayesian autoencoders", NeurIPS 2021.
"""

import itertools

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

SIZES = (6, 5, 2, 5, 6)
SHAPES = {}
for k, pair in enumerate(itertools.pairwise(SIZES)):
    SHAPES |= {f"weights{k}": pair, f"biases{k}": pair[1:]}


def reconstructed(w, x):
    """Of rows `(n, 6)`, by weights by site."""
    for k in range(4):
        x = x @ w[f"weights{k}"] + w[f"biases{k}"]
        x = x if k in (1, 3) else jnp.tanh(x)
    return x


def learned():
    """Scales by site, as parameters."""
    return {name: numpyro.param(f"{name}_sd", 1.0, constraint=constraints.positive) for name in SHAPES}


def weights(sd, *rows):
    """Draws from the prior, so many times."""
    return {
        name: numpyro.sample(name, dist.Normal(0, sd[name]).expand((*rows, *shape)).to_event(len(rows) + len(shape)))
        for name, shape in SHAPES.items()
    }


def log_noise():
    return numpyro.sample("log_noise", dist.Normal(-1.5, 1.0))


def outputs(x):
    """What the prior gives back of rows `(n, 6)`, each by weights of its own."""
    return jax.vmap(reconstructed)(weights(learned(), len(x)), x)


def model(x, sd):
    """Of rows `(n, 6)`, given scales by site."""
    w, noise = weights(sd), jnp.exp(log_noise())
    numpyro.sample("x", dist.Normal(reconstructed(w, x), noise).to_event(2), obs=x)
