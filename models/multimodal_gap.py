"""One point of a latent space, several views of it, each by a network of its own.

    z_i ~ N(0, I)    x_im ~ likelihood(decode_m(z_i)),  m = 1 .. M

A photograph and its caption, or a cell's genes and its proteins, have something in common, and each has something that the
other knows nothing of. All of it is in one point z. With likelihoods that are Gaussian and decoders that are linear it is
factor analysis, of which everything is known in closed form. Wu and Goodman, "Multimodal generative models for scalable
weakly-supervised learning", NeurIPS 2018; Shi et al., "Variational mixture-of-experts multi-modal deep generative models",
NeurIPS 2019.

What is known of the linear model is below it: data with something shared and something of each modality's own, their evidence,
the expectation of a bound whose guide sees some of the modalities, and the maximum of that.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax

from models.networks import glorot, perceptron


def networks(modalities, *sizes):
    """Takes a key to the weights of a perceptron for every modality, along a leading axis."""
    return lambda key: jax.vmap(lambda each: glorot(each, *sizes))(jax.random.split(key, modalities))


def black_and_white(logits):
    return dist.Bernoulli(logits=logits).to_event(1)


def gaussian(loc):
    scale = numpyro.param("noise", jnp.array(0.5), constraint=dist.constraints.positive)
    return dist.Normal(loc, scale).to_event(1)


def model(x, latent=20, hidden=(200,), likelihood=black_and_white):
    """Of views `(modality, datum, pixel)`."""
    modalities, n, pixels = x.shape
    weights = numpyro.param("decoders", networks(modalities, latent, *hidden, pixels))
    with numpyro.plate("data", n, dim=-1):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(latent), 1.0).to_event(1))
        with numpyro.plate("modalities", modalities, dim=-2):
            numpyro.sample("x", likelihood(jax.vmap(perceptron, (0, None))(weights, z)), obs=x)


NOISE = 0.3


def truth(modalities):
    """Decoders `(modality, latent, 2)`: the first latent number is shared, each other one belongs to a modality, and every
    modality has its two turned by an angle of its own."""
    angle, latent = 1.0 + jnp.arange(modalities), jnp.eye(modalities + 1)
    shared, own = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1), jnp.stack([-jnp.sin(angle), jnp.cos(angle)], -1)
    return latent[0][None, :, None] * shared[:, None] + latent[1:, :, None] * own[:, None]


def views(key, decoders, n):
    """Data `(modality, n, 2)` that these decoders make."""
    points, noise = jax.random.split(key)
    z = jax.random.normal(points, (n, decoders.shape[1]))
    return jnp.einsum("nl,mlp->mnp", z, decoders) + NOISE * jax.random.normal(noise, (len(decoders), n, 2))


def flat(decoders):
    """All modalities' outputs side by side, `(latent, output)`."""
    return jnp.moveaxis(decoders, 1, 0).reshape(decoders.shape[1], -1)


def covariance(decoders):
    return flat(decoders).T @ flat(decoders) + NOISE**2 * jnp.eye(flat(decoders).shape[1])


def evidence(decoders):
    """The mean log density of what these decoders make, under themselves: no bound of any model is higher."""
    data = covariance(decoders)
    return -0.5 * (len(data) + jnp.linalg.slogdet(2 * jnp.pi * data)[1])


def expected_bound(weights, data, seen):
    """The expectation, over data of this covariance and over draws, of the ELBO whose guide sees some modalities.

    **Arguments**

    - `weights`: decoders `(modality, latent, output)`; the log of the noise; of each modality's Gaussian what its inputs are
      multiplied by for precision times mean, `(modality, input, latent)`, and the log of its precision, `(modality, latent)`.
    """
    decoders, log_noise, natural, log_precision = weights
    precision = 1 + seen @ jnp.exp(log_precision)
    encode, decode = (seen[:, None, None] * natural).reshape(-1, len(precision)) / precision, flat(decoders)
    residual, mean = jnp.eye(len(data)) - encode @ decode, encode.T @ data @ encode
    squares = jnp.trace(residual.T @ data @ residual) + ((decode**2).sum(1) / precision).sum()
    likelihood = -0.5 * (len(data) * (jnp.log(2 * jnp.pi) + 2 * log_noise) + squares * jnp.exp(-2 * log_noise))
    return likelihood - 0.5 * (jnp.trace(mean) + (1 / precision + jnp.log(precision) - 1).sum())


@partial(jax.jit, static_argnames="steps")
def best(key, data, subsets, steps):
    """The highest mean of `expected_bound` over subsets `(subset, modality)`, of eight starts, and the weights there."""
    rule, modalities = optax.adam(optax.cosine_decay_schedule(0.03, steps)), subsets.shape[1]

    def loss(weights):
        return -jax.vmap(lambda seen: expected_bound(weights, data, seen))(subsets).mean()

    def step(_, at):
        change, state = rule.update(jax.grad(loss)(at[0]), at[1])
        return optax.apply_updates(at[0], change), state

    def one(key):
        decoders, natural = 0.5 * jax.random.normal(key, (2, modalities, modalities + 1, 2))
        weights = decoders, jnp.log(0.5), jnp.moveaxis(natural, 1, 2), jnp.zeros((modalities, modalities + 1))
        weights, _ = jax.lax.fori_loop(0, steps, step, (weights, rule.init(weights)))
        return -loss(weights), weights

    values, found = jax.vmap(one)(jax.random.split(key, 8))
    return values.max(), jax.tree.map(lambda each: each[values.argmax()], found)


def params_of(decoders, log_noise, natural, log_precision):
    """The same weights as `model` and `guides.multimodal_gap.guide` have them, without hidden layers."""
    encoders = jnp.concatenate([natural, jnp.zeros_like(natural)], -1)
    offsets = jnp.concatenate([jnp.zeros_like(log_precision), log_precision], -1)
    decoders = [(decoders, jnp.zeros(decoders.shape[::2]))]
    return {"decoders": decoders, "noise": jnp.exp(log_noise), "encoders": [(encoders, offsets)]}


def posterior(decoders):
    """The weights of the truth, whose guide is the posterior where all modalities are seen."""
    precision = (decoders**2).sum(-1) / NOISE**2
    return params_of(decoders, jnp.log(NOISE), jnp.moveaxis(decoders, 1, 2) / NOISE**2, jnp.log(precision + 1e-12))


def subsets(kind, modalities):
    """Which modalities the guides see, `(subset, modality)`: all of them, every subset, or single ones."""
    every = jnp.array([seen for seen in itertools.product((0.0, 1.0), repeat=modalities) if any(seen)])
    return {"joint": jnp.ones((1, modalities)), "MoPoE": every, "MMVAE": jnp.eye(modalities)}[kind]
