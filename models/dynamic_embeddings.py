"""Vectors of words and of contexts that drift from one time to the next: a skip-gram with a diffusion as its prior.

    u_0 ~ N(0, SPREAD^2),   u_t ~ N(u_{t-1} / (1 + (drift / SPREAD)^2), 1 / (drift^-2 + SPREAD^-2))
    log p(pairs) = sum_tij seen_tij log s(u_ti v_tj) + unseen_tij log s(-u_ti v_tj),   s(x) = 1 / (1 + exp(-x))

The vectors v of contexts drift as those of words do. `seen` counts how often a word has had another within a few words of it,
`unseen` how often it would have, were words drawn one by one. Words and contexts are one array, `(2, words, dimensions)`.

Bamler and Mandt, "Dynamic word embeddings", ICML 2017; Levy and Goldberg, "Neural word embedding as implicit matrix
factorization", NeurIPS 2014.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

SPREAD = 1.0


def step(drift):
    """What is kept of a vector from one time to the next, and the standard deviation of what is new."""
    return 1 / (1 + (drift / SPREAD) ** 2), (drift**-2 + SPREAD**-2) ** -0.5


def diffusion(shape, times, drift):
    """Draws arrays of a shape, one after another: `(times, *shape)`."""
    keep, new = step(drift)
    found = [numpyro.sample("u0", dist.Normal(jnp.zeros(shape), SPREAD).to_event(len(shape)))]
    for t in range(1, times):
        found.append(numpyro.sample(f"u{t}", dist.Normal(keep * found[-1], new).to_event(len(shape))))
    return jnp.stack(found)


def log_odds(u):
    """Of pairs being seen, `(..., words, contexts)`."""
    return u[..., 0, :, :] @ jnp.swapaxes(u[..., 1, :, :], -1, -2)


def likelihood(odds, seen, unseen):
    return ((seen + unseen) * jax.nn.log_sigmoid(odds) - unseen * odds).sum()


def model(seen, unseen, dimensions, drift):
    """All times at once, `(times, words, contexts)`."""
    u = diffusion((2, seen.shape[1], dimensions), len(seen), drift)
    numpyro.factor("pairs", likelihood(log_odds(u), seen, unseen))


def at_one_time(seen, unseen, loc, scale):
    """One time, `(words, contexts)`, and what is known of its vectors."""
    u = numpyro.sample("u", dist.Normal(loc, scale).to_event(3))
    numpyro.factor("pairs", likelihood(log_odds(u), seen, unseen))


def one_word(seen, unseen, contexts, drift):
    """All times of one word, `(times, contexts)`, where the vectors of contexts are known, `(contexts, dimensions)`."""
    u = diffusion(contexts.shape[1:], len(seen), drift)
    numpyro.factor("pairs", likelihood(u @ contexts.T, seen, unseen))


def measured(y, noise, drift):
    """The diffusion itself, `(times, dimensions)`, seen through noise."""
    u = diffusion(y.shape[1:], len(y), drift)
    numpyro.sample("y", dist.Normal(u, noise).to_event(2), obs=y)


def exactly(y, noise, drift):
    """Of `measured`: means and standard deviations after all of y, and the log evidence."""
    keep, new = step(drift)
    covariance = np.zeros((len(y), len(y)))
    variance = SPREAD**2
    for t in range(len(y)):
        covariance[t:, t] = covariance[t, t:] = variance * keep ** np.arange(len(y) - t)
        variance = keep**2 * variance + new**2
    total = covariance + noise**2 * np.eye(len(y))
    gain = covariance @ np.linalg.inv(total)
    evidence = -0.5 * (np.sum(y * np.linalg.solve(total, y)) + y.shape[1] * np.linalg.slogdet(2 * np.pi * total)[1])
    return gain @ y, np.sqrt(np.diagonal(covariance - gain @ covariance)), evidence


def diffused(loc, scale, drift):
    """What is known of a vector at the next time, from a mean and a standard deviation at this one."""
    keep, new = step(drift)
    return keep * loc, np.sqrt((keep * scale) ** 2 + new**2)


def kalman(y, noise, drift):
    """Of `measured`: what is known of the last time, time by time."""
    known = np.zeros(y.shape[1]), np.full(y.shape[1], SPREAD)
    for t, each in enumerate(y):
        loc, scale = diffused(*known, drift) if t else known
        variance = 1 / (scale**-2 + noise**-2)
        known = variance * (loc / scale**2 + each / noise**2), np.sqrt(variance)
    return known


def unseen_of(seen):
    """As many pairs at each time as are seen there, `(times, words, contexts)`, spread as words are, and as contexts to the
    power of 3/4 (Mikolov et al. 2013).
    """
    words, contexts = seen.sum((0, 2)), seen.sum((0, 1)) ** 0.75
    share = np.outer(words / words.sum(), contexts / contexts.sum())
    return (seen.sum((1, 2), keepdims=True) * share).astype(np.float32)


def made(words, times, dimensions, drift, pairs, seed):
    """Pairs that the model draws, of which half are seen, on the average."""
    rng = np.random.default_rng(seed)
    keep, new = step(drift)
    u = [rng.normal(size=(2, words, dimensions)) * SPREAD]
    for _ in range(times - 1):
        u.append(keep * u[-1] + new * rng.normal(size=u[0].shape))
    seen = rng.binomial(pairs, 1 / (1 + np.exp(-np.asarray(log_odds(np.stack(u))))))
    return seen.astype(np.float32), (pairs - seen).astype(np.float32)


def halves(pairs, seed):
    """Pairs, seen and unseen, in two parts."""
    rng = np.random.default_rng(seed)
    first = [rng.binomial(each.astype(int), 0.5).astype(np.float32) for each in pairs]
    return first, [each - part for each, part in zip(pairs, first, strict=True)]


def score(loc, scale, seen, unseen):
    """Log probability of pairs, in nats a pair, by the mean over draws of vectors `(times, 2, words, dimensions)`."""
    p = np.asarray(_probabilities(loc, scale), np.float64)
    return float(np.sum(seen * np.log(p) + unseen * np.log1p(-p)) / np.sum(seen + unseen))


@jax.jit
def _probabilities(loc, scale):
    def once(key):
        return jax.nn.sigmoid(log_odds(loc + scale * jax.random.normal(key, loc.shape)))

    return jax.lax.map(once, jax.random.split(jax.random.key(0), 20)).mean(0)


def alike(u, v):
    """Cosines of vectors, one by one."""
    return (u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)


def neighbours(u, i, words, n=3):
    """The words whose vectors, `(words, dimensions)`, are most alike to that of one of them."""
    return [words[j] for j in np.argsort(-alike(u, u[i])) if j != i][:n]
