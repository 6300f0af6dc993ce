"""Two models of many textbooks, so small that the exact answer is a sum: spins on a grid, and a mixture of two Gaussians.

    p(s) = exp(h s + s J s / 2) / Z,  s_i = -1 or 1        spins that want to be as their neighbours

    mean_k ~ N(centre_k, 1)    label_i ~ Bernoulli(1/2)    y_i ~ N(mean_{label_i}, sd)        a Bayesian mixture

    label_i ~ Bernoulli(share)    y_i ~ N(mean_{label_i}, sd_{label_i})        the mixture whose numbers are parameters

Beside them are the methods that books derive for these by hand, and the exact answers, in NumPy.

Younes, "Introduction to Machine Learning", 2024.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import expit, logsumexp, softmax
from scipy.stats import norm

CENTRES, SD = np.array([-1.0, 1.0]), 1.0
"""Of the Bayesian mixture: prior means of its components, and the standard deviation of data about them."""


def spins(field, coupling):
    """With the prior's factors of one half undone, so that the evidence is Z."""
    with numpyro.plate("places", len(field)):
        s = 2 * numpyro.sample("up", dist.Bernoulli(0.5)) - 1.0
    numpyro.factor("energy", field @ s + s @ coupling @ s / 2 + len(field) * jnp.log(2.0))


def mixture(y):
    means = numpyro.sample("means", dist.Normal(jnp.asarray(CENTRES, jnp.float32), 1.0).to_event(1))
    with numpyro.plate("data", len(y)):
        label = numpyro.sample("label", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(means[label], SD), obs=y)


def likelihood(y):
    share = numpyro.param("share", 0.5, constraint=dist.constraints.unit_interval)
    means = numpyro.param("means", jnp.array([2.5, 4.0]))
    sds = numpyro.param("sds", jnp.ones(2), constraint=dist.constraints.positive)
    with numpyro.plate("data", len(y)):
        label = numpyro.sample("label", dist.Bernoulli(share))
        numpyro.sample("y", dist.Normal(means[label], sds[label]), obs=y)


def grid(rows, columns, strength):
    """The coupling of neighbours on a grid."""
    places = np.array(list(itertools.product(range(rows), range(columns))))
    return strength * (np.abs(places[:, None] - places).sum(2) == 1)


def spins_exactly(field, coupling):
    """Log Z, and the probability that each spin is up, by a sum over all 2^n states."""
    s = np.array(list(itertools.product((-1, 1), repeat=len(field))))
    energy = s @ field + np.einsum("si,ij,sj->s", s, coupling, s) / 2
    return logsumexp(energy), softmax(energy) @ (s + 1) / 2


def spins_by_gibbs(rng, field, coupling, chains, sweeps):
    """Probabilities by draws of each spin given the others; the first half of the sweeps is left out."""
    s, ups = rng.choice((-1, 1), (chains, len(field))), np.zeros(len(field))
    for sweep in range(sweeps):
        for i in range(len(field)):
            s[:, i] = 2 * (rng.random(chains) < expit(2 * (field[i] + s @ coupling[i]))) - 1
        ups += (s > 0).mean(0) if sweep >= sweeps // 2 else 0
    return ups / (sweeps - sweeps // 2)


def means_given(y, share):
    """Mean and standard deviation of each component's mean, where of each datum a share, `(..., n)`, is the second's."""
    weight = np.stack([1 - share, share], -2)
    precision = 1 + weight.sum(-1) / SD**2
    return (CENTRES + weight @ y / SD**2) / precision, precision**-0.5


def mixture_exactly(y):
    """Log evidence; probabilities of the labels; means and standard deviations of the means: a sum over 2^n assignments."""
    labels = np.array(list(itertools.product((0, 1), repeat=len(y))))
    loc, scale = means_given(y, labels)
    member = np.stack([1 - labels, labels], 1)
    squares = (member @ y**2) / SD**2 + CENTRES**2 - (loc / scale) ** 2
    counts = member.sum(2)
    log_weight = (np.log(scale) - squares / 2 - counts * np.log(SD * np.sqrt(2 * np.pi) * 2)).sum(1)
    weight = softmax(log_weight)
    mean = weight @ loc
    return logsumexp(log_weight), weight @ labels, mean, np.sqrt(weight @ (loc**2 + scale**2) - mean**2)


def mixture_by_mean_field(y, sweeps=500):
    """Probabilities of labels, means and standard deviations, by coordinate ascent: one given the expectations of the other."""
    share = np.full(len(y), 0.5)
    for _ in range(sweeps):
        loc, scale = means_given(y, share)
        first, second = (y - loc[:, None]) ** 2 + scale[:, None] ** 2
        share = expit((first - second) / (2 * SD**2))
    return share, loc, scale


def mixture_by_gibbs(rng, y, chains, sweeps):
    """Draws of the means, `(sweeps, chains, 2)`, and probabilities of the labels; the first half of the sweeps is left out."""
    labels, draws, ups = rng.integers(0, 2, (chains, len(y))), [], []
    for _ in range(sweeps):
        loc, scale = means_given(y, labels)
        means = loc + scale * rng.normal(size=loc.shape)
        away = (y - means[..., None]) ** 2
        up = expit((away[:, 0] - away[:, 1]) / (2 * SD**2))
        labels = (rng.random(up.shape) < up).astype(int)
        draws.append(means)
        ups.append(up.mean(0))
    return np.array(draws[sweeps // 2 :]), np.mean(ups[sweeps // 2 :], 0)


def likelihood_by_em(y, share, means, sds, steps):
    """Parameters and log-likelihoods, of which none is less than the one before (Dempster, Laird and Rubin 1977)."""
    course = []
    for _ in range(steps):
        log_joint = np.log([1 - share, share]) + norm.logpdf(y[:, None], means, sds)
        course.append(logsumexp(log_joint, 1).sum())
        belongs = softmax(log_joint, 1)
        total = belongs.sum(0)
        share, means = total[1] / len(y), belongs.T @ y / total
        sds = np.sqrt((belongs * (y[:, None] - means) ** 2).sum(0) / total)
    return {"share": share, "means": means, "sds": sds}, np.array(course)


def beside(exact, mean, sd, labels=None):
    """How far means are from the exact ones, in sds, how wide they are, in parts of these, and how far labels are."""
    _, exact_labels, exact_mean, exact_sd = exact
    measures = {"mean": float(np.max(np.abs(mean - exact_mean) / exact_sd)), "width": float(np.mean(sd / exact_sd))}
    return measures if labels is None else {**measures, "label": float(np.max(np.abs(labels - exact_labels)))}
