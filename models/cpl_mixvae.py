"""A cell is of one type among several and in a state of its own; each of some arms has networks that say so from its own copy.

    c_ai ~ Categorical(1/K, ..., 1/K)    s_ai ~ N(0, I)    x_ai ~ N(decode_a(s_ai, c_ai), noise_a^2)    for arm a and cell i

Types are what biologists look for, states are what varies within one. An autoencoder that has both may put types into states,
and others each time that it is trained. Here arms see different copies of a cell, which have its type in common and not their
noise, and have to agree on the type. In the model they are independent; what couples them is the objective. A copy here is half
of a cell's molecules, each of which has been counted by one arm or by the other.

Marghi, Gala and Sümbül, "Mixture representation learning with coupled autoencoders", 2020.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.cluster.vq import kmeans2
from scipy.stats import multivariate_normal

from models.datasets import cell_lines
from models.joint_vae import OneHot
from models.networks import glorot, perceptron

HIDDEN = 32


def per_arm(arms, *sizes):
    """Weights of a perceptron for each arm, side by side."""
    return lambda key: jax.vmap(lambda k: glorot(k, *sizes))(jax.random.split(key, arms))


def by_networks(weights, s, c):
    """Means of genes, `(arms, cells, genes)`, of states and types."""
    return jax.vmap(lambda w, z: perceptron(w, z, jax.nn.relu))(weights, jnp.concatenate([s, c], -1))


def model(x, types=3, states=1, decode=by_networks):
    """Of copies of cells, `(arms, cells, genes)`."""
    arms, cells, genes = x.shape
    weights = numpyro.param("decoder", per_arm(arms, states + types, HIDDEN, genes))
    log_noise = numpyro.param("log_noise", jnp.zeros((arms, 1, genes)))
    with numpyro.plate("arms", arms, dim=-2), numpyro.plate("cells", cells, dim=-1):
        c = numpyro.sample("c", OneHot(jnp.zeros(types)))
        s = numpyro.sample("s", dist.Normal(jnp.zeros(states), 1.0).to_event(1))
        numpyro.sample("x", dist.Normal(decode(weights, s, c), jnp.exp(log_noise)).to_event(1), obs=x)


def halves(rng, counts, total):
    """Two copies, `(2, cells, genes)`, of counts `(cells, genes)` in cells of so many molecules: logarithms, standardised."""
    first = rng.binomial(counts, 0.5)
    logs = np.log1p(2e4 * np.stack([first, counts - first]) / total[:, None])
    return ((logs - logs.mean((0, 1))) / (logs.std((0, 1)) + 1e-6)).astype(np.float32)


def variable(counts, n):
    """The n genes that vary most among those about as frequent as they are, the first of them first."""
    logs = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    seen = np.flatnonzero((counts > 0).mean(0) > 0.1)
    beyond = np.full(counts.shape[1], -np.inf)
    for alike in np.array_split(seen[np.argsort(logs[:, seen].mean(0))], 20):
        spread = logs[:, alike].var(0)
        beyond[alike] = (spread - np.median(spread)) / spread.std()
    return np.argsort(-beyond)[:n]


def by_k_means(x, types, tries=10):
    """The best of some runs of k-means on rows."""
    runs = [kmeans2(x, types, minit="++", seed=i) for i in range(tries)]
    return min(runs, key=lambda run: ((x - run[0][run[1]]) ** 2).sum())[1]


def lines(genes=150):
    """Cells of three lines: counts of variable genes, the molecules of each cell, and which line each is of by k-means on twice
    as many other genes, since the counts come without that.
    """
    counts = cell_lines()
    top = variable(counts, 3 * genes)
    logs = np.log1p(1e4 * np.delete(counts[:, top], np.s_[::3], 1) / counts.sum(1, keepdims=True))
    return counts[:, top[::3]], counts.sum(1), by_k_means((logs - logs.mean(0)) / logs.std(0), 3)


def made(cells=400, genes=40, types=5, seed=0):
    """Counts of cells whose types are known, and which have one state that moves genes differently in each type."""
    rng = np.random.default_rng(seed)
    of_type, of_state = rng.normal(size=(types, genes)), 0.7 * rng.normal(size=(types, genes))
    kind = rng.integers(0, types, cells)
    rates = np.exp(0.7 * of_type[kind] + rng.normal(size=(cells, 1)) * of_state[kind])
    counts = rng.poisson(10 * rates)
    return counts, counts.sum(1), kind


def straight(key, arms=2, types=3, genes=4):
    """A decoder that is linear in the state, with the type's own mean and direction; and the encoder that is exact for it, with
    a variance of 1 about the decoder.
    """
    mean, way = jax.random.normal(key, (2, arms, 1, types, genes))

    def decode(_, s, c):
        return (c[..., None] * (mean + s[..., None] * way)).sum(-2)

    def encode(_, x):
        precision, off = 1 + (way**2).sum(-1), x[:, :, None] - mean
        at = (off * way).sum(-1) / precision
        logits = -0.5 * ((off**2).sum(-1) - precision * at**2 + jnp.log(precision))

        def states(c):
            loc, scale = (
                (c * jnp.broadcast_to(each, c.shape)).sum(-1, keepdims=True) for each in (at, precision**-0.5)
            )
            return dist.Normal(loc, scale).to_event(1)

        return logits, states

    return decode, encode, (np.asarray(mean[:, 0]), np.asarray(way[:, 0]))


def log_evidence(x, mean, way):
    """Of each type and copy, `(arms, types, cells)`, in closed form: the joint density with the type."""
    types, genes = mean.shape[1:]
    return np.array(
        [
            [multivariate_normal(m, np.eye(genes) + np.outer(w, w)).logpdf(copy) for m, w in zip(*arm, strict=True)]
            for copy, *arm in zip(x, mean, way, strict=True)
        ]
    ) - np.log(types)
