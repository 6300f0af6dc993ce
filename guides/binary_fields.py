"""A field for each binary weight; and, with them, what they say of the sums of units."""

import jax
import jax.numpy as jnp
import numpyro
import optax

from models.binary_fields import learned, network, weights


def fields(x, y, prior, batch=None):
    for i, each in enumerate(learned(prior)):
        weights(i, each)


def guide(x, y, prior, batch=None):
    """Here the sums are drawn; the model has the same distributions, so that they cost the bound nothing."""
    fields(x, y, prior)
    with numpyro.plate("rows", len(x), subsample_size=batch) as rows:
        network(learned(prior), x[rows])


def nothing(x, y, prior, batch=None):
    """Of a model that has parameters only."""


def metaplastic(strength, rate):
    """Adam, but updates that take a number h towards zero are smaller by 1 - tanh(strength h)^2.

    Laborieux, Ernoult, Hirtzlin and Querlioz, "Synaptic metaplasticity in binarized neural networks", 2021.
    """

    def held(update, h):
        return jnp.where(update * h < 0, update * (1 - jnp.tanh(strength * h) ** 2), update)

    def update(updates, state, params=None):
        return jax.tree.map(held, updates, params), state

    return optax.chain(optax.adam(rate), optax.GradientTransformation(lambda params: optax.EmptyState(), update))
