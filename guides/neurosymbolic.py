"""Guides of `models.neurosymbolic`: a program says the bit, or a network does; a network says the point in both."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.networks import glorot, normal, perceptron
from models.neurosymbolic import HIDDEN, LATENT, PROGRAMS


def read(name, path, outputs):
    """What a network makes of paths, by where they begin and of their steps."""
    seen = jnp.concatenate([path[:, 0], jnp.diff(path, axis=1).reshape(len(path), -1)], -1)
    return perceptron(numpyro.param(name, lambda key: glorot(key, seen.shape[-1], HIDDEN, outputs)), seen)


def point(path):
    """What a network says of the points of paths."""
    numpyro.sample("z", normal(read("encoder", path, 2 * LATENT)))


def guide(path, numbers, batch=None):
    """Which program is a choice; each has its own slope and threshold."""
    program = numpyro.sample("program", dist.Categorical(logits=numpyro.param("programs", jnp.zeros(len(PROGRAMS)))))
    slope = numpyro.param("slope", jnp.full(len(PROGRAMS), 2.0))[program]
    threshold = numpyro.param("threshold", jnp.zeros(len(PROGRAMS)))[program]
    with numpyro.plate("paths", len(path), subsample_size=batch) as rows:
        number = jnp.take(numbers[rows], program, axis=1)
        numpyro.sample("bit", dist.Bernoulli(logits=slope * (number - threshold)))
        point(path[rows])


def neural_guide(path, numbers, batch=None):
    """A network in place of programs, for the model without them."""
    with numpyro.plate("paths", len(path), subsample_size=batch) as rows:
        numpyro.sample("bit", dist.Bernoulli(logits=read("classifier", path[rows], 1)[:, 0]))
        point(path[rows])
