"""Networks of binary weights that learn one task after another, in the space of fields.

    w_ij = 1 or -1,   p(w_ij) = exp(prior_ij w_ij) / (2 cosh prior_ij),   y ~ F(network(w, x))

What a task has left is the prior of the next: a field for each weight, whose hyperbolic tangent is the weight's mean. One
layer with one output is a perceptron, which says 1 with probability Phi(x w / sqrt(n) / NOISE); more layers are a network,
whose outputs are scores of classes.

A sum over many independent weights is nearly Gaussian. In `model` each unit's sum is therefore a site of its own, with the
mean and the variance that the fields give it, and the weights are there for their prior alone. `direct` is the perceptron
with its weights as they are; `points` a network whose weights are the signs of hidden numbers (Courbariaux et al. 2016).

Li, Huang, Zou and Huang, "Statistical mechanics of continual learning: variational principle and mean-field potential",
Physical Review E 108 (2023).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.special
from jax.scipy.special import log_ndtr

NOISE = 0.3
"""Of a perceptron's answer."""


def weights(i, fields):
    """Signs of a layer, `(inputs, outputs)`: 1 for a positive one and 0 for a negative one."""
    with numpyro.plate(f"inputs{i}", len(fields), dim=-2), numpyro.plate(f"outputs{i}", fields.shape[1], dim=-1):
        return numpyro.sample(f"w{i}", dist.Bernoulli(logits=2 * fields))


def sums(fields, z):
    """What units add up of inputs `(n, inputs)`, by the central limit theorem."""
    means = jnp.tanh(fields)
    variance = z**2 @ (1 - means**2) / len(fields)
    return dist.Normal(z @ means / len(fields) ** 0.5, jnp.sqrt(variance + 1e-6)).to_event(1)


def network(fields, x):
    """Draws the sums of each layer, and returns the last ones."""
    for i, each in enumerate(fields):
        h = numpyro.sample(f"h{i}", sums(each, x))
        x = jnp.tanh(2 * h)
    return h


def signed(fields, x):
    """The same sums of the signs of fields, through which gradients go as if each sign were its field."""
    for each in fields:
        sign = each + jax.lax.stop_gradient(jnp.sign(each) - each)
        h = x @ sign / len(each) ** 0.5
        x = jnp.tanh(2 * h)
    return h


def answers(h):
    """What is said at the sums of the last layer, `(n, outputs)`."""
    if h.shape[1] > 1:
        return dist.Categorical(logits=4 * h)
    return dist.Bernoulli(logits=log_ndtr(h[:, 0] / NOISE) - log_ndtr(-h[:, 0] / NOISE))


def learned(prior):
    """The fields of all layers, by default the prior's at first."""
    return [numpyro.param(f"fields{i}", each) for i, each in enumerate(prior)]


def model(x, y, prior, batch=None):
    """Of rows `(n, inputs)`, what they are, and the fields of the prior, layer by layer."""
    for i, each in enumerate(prior):
        weights(i, each)
    with numpyro.plate("rows", len(x), subsample_size=batch) as rows:
        numpyro.sample("y", answers(network(learned(prior), x[rows])), obs=y[rows])


def direct(x, y, prior, batch=None):
    w = 2 * weights(0, prior[0]) - 1
    with numpyro.plate("rows", len(x), subsample_size=batch) as rows:
        numpyro.sample("y", answers(x[rows] @ w / len(w) ** 0.5), obs=y[rows])


def points(x, y, prior, batch=None):
    with numpyro.plate("rows", len(x), subsample_size=batch) as rows:
        numpyro.sample("y", answers(signed(learned(prior), x[rows])), obs=y[rows])


def teachers(n, overlap, patterns, seed):
    """Two perceptrons, `(2, n)`, whose mean product of weights is the overlap; and of each, Gaussian inputs and answers."""
    rng = np.random.default_rng(seed)
    first = rng.choice([-1, 1], n)
    both = np.stack([first, first])
    both[1, rng.permutation(n)[: round(n * (1 - overlap) / 2)]] *= -1
    x = rng.normal(size=(2, patterns, n))
    odds = np.einsum("tpn,tn->tp", x, both) / n**0.5 + NOISE * rng.normal(size=(2, patterns))
    return both, [(jnp.asarray(a, jnp.float32), jnp.asarray(b > 0, jnp.float32)) for a, b in zip(x, odds, strict=True)]


def enumerated(n):
    """All vectors of n signs, `(2^n, n)`."""
    return np.array(list(itertools.product([-1.0, 1.0], repeat=n)))


def log_likelihoods(x, y):
    """Of all perceptrons, `(2^n,)`."""
    w, x = enumerated(x.shape[1]), np.asarray(x, np.float64)
    towards = (2 * np.asarray(y, np.float64) - 1) * (w @ x.T) / x.shape[1] ** 0.5
    return scipy.special.log_ndtr(towards / NOISE).sum(1)


def exact_bound(theta, prior, like):
    """The bound of fields `(n, 1)`, from log likelihoods of all perceptrons."""
    w = enumerated(len(theta))
    log_q, log_p = (w @ x - np.logaddexp(x, -x).sum() for x in (np.asarray(theta, np.float64)[:, 0], prior))
    return np.exp(log_q) @ (like + log_p - log_q)


def exact_means(like):
    """Of weights, in the posterior, by the same."""
    return scipy.special.softmax(like) @ enumerated(int(np.log2(len(like))))


def errors(teacher, means):
    """How often the perceptron of these means answers otherwise than a teacher, of Gaussian inputs, in percent."""
    cosine = teacher @ np.asarray(means, np.float64) / np.linalg.norm(means, axis=0) / len(teacher) ** 0.5
    return 100 * np.arccos(np.clip(cosine, -1, 1)) / np.pi


def two_orders(images, labels, seed):
    """Images `(n, 28, 28)` as rows of 14 by 14 pixels, and with these in another order; each with the labels."""
    rows = images[:, ::2, ::2].reshape(len(images), -1) / 127.5 - 1
    orders = np.arange(196), np.random.default_rng(seed).permutation(196)
    return [(jnp.asarray(rows[:, order], jnp.float32), jnp.asarray(labels, jnp.int32)) for order in orders]


@jax.jit
def scores(bits, x):
    """Mean probabilities of networks, whose weights have a leading axis."""
    return jax.lax.map(lambda each: answers(signed(each, x)).probs, bits).mean(0)


def accuracy(fields, x, truth, draws):
    """In percent, of the mean of so many networks that fields draw; of none, the network of their signs."""
    rng = np.random.default_rng(0)
    bits = [each[None] for each in fields]
    if draws:
        bits = [jnp.asarray(np.tanh(each) - rng.uniform(-1, 1, (draws, *each.shape)), jnp.float32) for each in fields]
    return 100 * float(np.mean(np.argmax(scores(bits, x), 1) == truth))
