"""Networks that entries share, as plain functions of weights, which are trees of arrays that `numpyro.param` may hold."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist


def dense(key, **sizes):
    """Weights of layers, uniform within 1 / sqrt(inputs), by name and the numbers of inputs and outputs.

    They are pieces of one draw, which is compiled in a fraction of the time that one for each would take.
    """
    draws = jax.random.uniform(key, (sum((inputs + 1) * outputs for inputs, outputs in sizes.values()),), minval=-1.0)
    layers = {}
    for name, (inputs, outputs) in sizes.items():
        mine, draws = jnp.split(draws, [(inputs + 1) * outputs])
        rows = inputs**-0.5 * mine.reshape(inputs + 1, outputs)
        layers[name] = rows[:-1], rows[-1]
    return layers


def layer(weights, x):
    w, b = weights
    return x @ w + b


def glorot(key, *sizes):
    """Weights of a perceptron of these widths, inputs first: uniform within sqrt(6 / (inputs + outputs)), biases zero.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.
    """
    pairs = list(itertools.pairwise(sizes))
    return [
        (jax.random.uniform(k, pair, minval=-1.0) * (6 / sum(pair)) ** 0.5, jnp.zeros(pair[1]))
        for k, pair in zip(jax.random.split(key, len(pairs)), pairs, strict=True)
    ]


def perceptron(weights, x, activation: Callable = jnp.tanh):
    """Layers with this activation between them; the last one is linear."""
    *hidden, last = weights
    for each in hidden:
        x = activation(layer(each, x))
    return layer(last, x)


def normal(out):
    """The Gaussian of independent numbers that a network writes: locations, and as many logarithms of scales beside them."""
    loc, log_scale = jnp.split(out, 2, -1)
    return dist.Normal(loc, jnp.exp(log_scale)).to_event(1)
