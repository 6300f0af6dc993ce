"""Functions of weights of which most are zero: a spike at zero and a slab for each weight.

    active_k ~ Bernoulli(RATE)    w_k ~ N(0, 1)    y_i ~ N(f(active w, x_i), NOISE^2)

f is a network with one hidden layer of rectified units, or straight, in which case a sum over all subsets of weights gives the
exact posterior. `dense` is the network with the slab alone. Outputs come from a teacher of two units that has seven numbers
which are not zero, and it is one of the networks.

Chérief-Abdellatif, "Convergence rates of variational inference in sparse deep learning", ICML 2020, has deep networks, and
takes all sets of so many weights for equally likely.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

INPUTS, NOISE, RATE = 6, 0.3, 0.2


def size(units):
    """How many weights the network has."""
    return (INPUTS + 2) * units + 1


def network(w, x):
    """Of all weights `(size,)` and inputs `(n, 6)`: `(n,)`."""
    units = len(w) // (INPUTS + 2)
    into, rest = w[: INPUTS * units].reshape(INPUTS, units), w[INPUTS * units :]
    return jax.nn.relu(x @ into + rest[:units]) @ rest[units:-1] + rest[-1]


def model(x, y, weights, function=network):
    active = numpyro.sample("active", dist.Bernoulli(RATE).expand([weights]).to_event(1))
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([weights]).to_event(1))
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Normal(function(active * w, x), NOISE), obs=y)


def dense(x, y, weights):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([weights]).to_event(1))
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Normal(network(w, x), NOISE), obs=y)


def teacher(x):
    return jax.nn.relu(1.5 * x[:, 0] - 1.5 * x[:, 1]) - jax.nn.relu(x[:, 2] + x[:, 3] + 0.5)


def data(seed, n):
    """Inputs `(n, 6)`, and outputs of the teacher with noise."""
    rng = np.random.default_rng(seed)
    x, noise = jnp.asarray(rng.normal(size=(n, INPUTS)), jnp.float32), jnp.asarray(rng.normal(size=n), jnp.float32)
    return x, teacher(x) + NOISE * noise


def upright(seed, n=20, weights=4):
    """Inputs at right angles to one another, `(n, weights)`, and outputs of a straight function of the first of them."""
    rng = np.random.default_rng(seed)
    x = np.linalg.qr(rng.normal(size=(n, weights)))[0]
    return x, 0.8 * x[:, 0] + NOISE * rng.normal(size=n)


def enumerated(x, y):
    """Of a straight function: log evidence, and probability of each weight to be active, by a sum over all subsets."""
    subsets = np.array([*itertools.product((0.0, 1.0), repeat=x.shape[1])])
    prior = subsets @ np.full(x.shape[1], np.log(RATE / (1 - RATE))) + x.shape[1] * np.log(1 - RATE)
    spread = [(x * on) @ x.T + NOISE**2 * np.eye(len(y)) for on in subsets]
    joint = prior + [multivariate_normal(cov=each).logpdf(y) for each in spread]
    return logsumexp(joint), np.exp(joint - logsumexp(joint)) @ subsets
