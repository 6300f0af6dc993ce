"""A network of which most weights are zero, and the others uncertain.

    w ~ N(0, scale^2)    y_i ~ Categorical(softmax(network(kept w, x_i)))

`kept` is one for the weights of a subspace, and zero for the others, which count for nothing. A layer is one site, the last row
of which is its biases. The same for a linear regression, of which the posterior in each subspace is known:

    w ~ N(0, I)    y_i ~ N(x_i' (kept w), noise^2)

Li, Miao, Qiu and Zhang, "Training Bayesian neural networks with sparse subspace variational inference", ICLR 2024. There the
network is a ResNet-18.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models import gp
from models.networks import perceptron

UNITS, CLASSES, NOISE = (50,), 10, 1.0


def layers(pixels):
    """Names and shapes of the weights, and the prior's scales."""
    sizes = enumerate(itertools.pairwise((pixels, *UNITS, CLASSES)))
    return {f"layer{i}": ((inputs + 1, outputs), (2 / inputs) ** 0.5) for i, (inputs, outputs) in sizes}


def logits(weights, x):
    """Ten scores of each picture, `(n, 10)`."""
    return perceptron([(each[:-1], each[-1]) for each in weights.values()], x, jax.nn.relu)


def model(x, y, kept, batch=None, nudged=False):
    """Of pictures `(n, pixels)` and what they are. `nudged` adds parameters of zero to all weights, for gradients there."""
    weights = {}
    for name, (shape, scale) in layers(x.shape[1]).items():
        weights[name] = kept[name] * numpyro.sample(name, dist.Normal(0.0, scale).expand(shape).to_event(2))
        if nudged:
            weights[name] += numpyro.param(f"{name}_nudge", jnp.zeros(shape))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        numpyro.sample("y", dist.Categorical(logits=logits(weights, x[rows])), obs=y[rows])


def linear(x, y, kept, nudged=False):
    """Of inputs `(n, d)` and outputs `(n,)`."""
    w = kept["w"] * numpyro.sample("w", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    if nudged:
        w += numpyro.param("w_nudge", jnp.zeros(x.shape[1]))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(x @ w, NOISE), obs=y)


@jax.jit
def exact(x, y, kept):
    """The Gaussian of the weights of `linear` after the data, in a subspace, and the log evidence."""
    root = jnp.linalg.cholesky((x * kept) @ x.T + NOISE**2 * jnp.eye(len(x)))
    return gp.seen(x * kept / NOISE, y / NOISE), dist.MultivariateNormal(jnp.zeros(len(x)), scale_tril=root).log_prob(y)


@partial(jax.jit, static_argnums=2)
def evidences(x, y, n):
    """Log evidences of all subspaces of n weights."""
    size = x.shape[1]
    subspaces = [np.isin(np.arange(size), each) for each in itertools.combinations(range(size), n)]
    return jax.lax.map(lambda kept: exact(x, y, kept)[1], jnp.array(subspaces, float))


def regression(seed, n=60, d=12):
    """Correlated inputs, and outputs on which four of them have an effect."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, d)) + rng.normal(size=(n, 1))) / 2**0.5
    w = np.where(rng.permutation(d) < 4, rng.choice([-1, 1], d) * rng.uniform(0.4, 1.2, d), 0)
    return jnp.asarray(x, jnp.float32), jnp.asarray(x @ w + rng.normal(size=n), jnp.float32)


@partial(jax.jit, static_argnums=3)
def predicted(params, kept, new, draws):
    """Mean probabilities over so many networks, `(n, 10)`."""
    noise = jax.random.normal(jax.random.key(0), (draws, sum(inside.size for inside in kept.values())))

    def probabilities(noise):
        weights, used = {}, 0
        for site, inside in kept.items():
            drawn = noise[used : used + inside.size].reshape(inside.shape)
            weights[site], used = inside * (params[f"{site}_loc"] + params[f"{site}_scale"] * drawn), used + inside.size
        return jax.nn.softmax(logits(weights, new))

    return jax.lax.map(probabilities, noise).mean(0)
