"""Paths of animals, each with a bit that a short program would say of it, and a point that a network would.

    program ~ 2^-words    bit_i ~ Bernoulli(1/2)    z_i ~ N(0, 1)
    step_it ~ N(net(place_it, bit_i) + w z_i, sigma)

A program takes a number from a path and asks on which side of a threshold it is: `last x`, `mean speed`, `last y - first y`.
Short programs are likelier, and each has a decoder of its own, which learns what its bit is good for; which program says the
bit is for the guide to find. Zhan, Sun,
Kennedy, Yue and Chaudhuri, "Unsupervised learning of neurosymbolic encoders", TMLR 2022, whose programs are searched for in a
language of folds and branches.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models.networks import glorot, perceptron

LATENT, HIDDEN = 1, 16

FEATURES = {
    "x": lambda path: path[:, :-1, 0],
    "y": lambda path: path[:, :-1, 1],
    "speed": lambda path: np.linalg.norm(np.diff(path, axis=1), axis=-1),
    "turn": lambda path: np.diff(np.unwrap(np.arctan2(*np.moveaxis(np.diff(path, axis=1), -1, 0)[::-1]))),
}
"""Of paths `(n, times, 2)`: numbers over time."""
FOLDS = {
    "first {}": lambda row: row[:, 0],
    "last {}": lambda row: row[:, -1],
    "mean {}": lambda row: row.mean(1),
    "max {}": lambda row: row.max(1),
    "last {0} - first {0}": lambda row: row[:, -1] - row[:, 0],
}
"""Of numbers over time: one."""
PROGRAMS = [fold.format(feature) for fold in FOLDS for feature in FEATURES]


def run_programs(path):
    """What each program takes from each path, `(n, programs)`, in standard deviations over paths."""
    found = np.stack([fold(feature(path)) for fold in FOLDS.values() for feature in FEATURES.values()], 1)
    return ((found - found.mean(0)) / found.std(0)).astype(np.float32)


def paths(kind, n, seed, times=25):
    """Paths `(n, times, 2)` and their bits: where they drift ("drift") or go ("goal"), or which way they turn ("turn")."""
    rng = np.random.default_rng(seed)
    bit, place = rng.integers(0, 2, n), 4 * rng.normal(size=(n, 2))
    sign, height = 2.0 * bit - 1, rng.normal(size=n)
    drift, goal = 0.4 * np.stack([sign, height], 1), np.stack([5 * sign, 4 * height], 1)
    path = [place]
    for _ in range(times - 1):
        x, y = path[-1].T
        around = 0.15 * sign[:, None] * np.stack([-y, x + 2 * height], 1)
        mean = {"drift": drift, "goal": 0.1 * (goal - path[-1]), "turn": around}[kind]
        path.append(path[-1] + mean + 0.2 * rng.normal(size=(n, 2)))
    return np.stack(path, 1).astype(np.float32), bit


def decoder(key):
    """Weights from which training starts: those that read the bit, those that read the point, and the noise, as a logarithm."""
    of_bit, of_point = jax.random.split(key)
    return glorot(of_bit, 3, HIDDEN, 2), 0.1 * jax.random.normal(of_point, (LATENT, 2)), jnp.log(0.5)


def decoders(key):
    """One for each program."""
    return jax.vmap(decoder)(jax.random.split(key, len(PROGRAMS)))


def told(path, batch, of_bit, of_point, log_noise):
    """Paths of bits and points, by a decoder."""
    with numpyro.plate("paths", len(path), subsample_size=batch) as rows:
        bit = numpyro.sample("bit", dist.Bernoulli(0.5))
        z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
        place = path[rows][:, :-1] / 5
        sign = jnp.broadcast_to(2.0 * bit[..., None, None] - 1, (*place.shape[:-1], 1))
        mean = perceptron(of_bit, jnp.concatenate([place, sign], -1)) + (z @ of_point)[..., None, :]
        noise = jnp.exp(log_noise)
        numpyro.sample("step", dist.Normal(mean, noise).to_event(2), obs=jnp.diff(path[rows], axis=1))


def model(path, numbers=None, batch=None):
    """Of paths `(n, times, 2)`; what programs take from them is for the guide."""
    words = jnp.array([len(name.split()) for name in PROGRAMS])
    program = numpyro.sample("program", dist.Categorical(logits=-jnp.log(2.0) * words))
    told(path, batch, *jax.tree.map(lambda each: each[program], numpyro.param("decoder", decoders)))


def neural_model(path, numbers=None, batch=None):
    """The same without programs."""
    told(path, batch, *numpyro.param("decoder", decoder))
