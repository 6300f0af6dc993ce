"""A linear bandit of which few features matter: at each round some arms are offered, one is taken, and its reward is seen.

    active_j ~ Bernoulli(RATE)    size_j ~ N(0, SLAB^2)    beta_j = active_j size_j
    reward_t ~ N(x_t beta, NOISE^2)

A spike and a slab for each coefficient. Rewards so far enter by two sums, X'X and X'r, so that a round costs the same early
and late.

Chakraborty, Roy and Tewari, "Thompson sampling for high-dimensional sparse linear contextual bandits", 2023, have a Laplace
slab and a prior on how many features there are.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import softmax

RATE, SLAB, NOISE = 0.05, 1.0, 0.5


def model(gram, cross, others):
    """Of X'X `(d, d)` and X'r `(d,)` of the arms that were taken, for each coefficient as if the others were what they are in
    the mean. The density lacks a factor that only rewards are in.
    """
    own = jnp.diagonal(gram)
    with numpyro.plate("features", len(cross)):
        active = numpyro.sample("active", dist.Bernoulli(RATE))
        beta = active * numpyro.sample("size", dist.Normal(0.0, SLAB))
        left = cross - gram @ others + own * others
        numpyro.factor("rewards", (left * beta - own * beta**2 / 2) / NOISE**2)


def jointly(gram, cross):
    """The same of all coefficients together."""
    with numpyro.plate("features", len(cross)):
        active = numpyro.sample("active", dist.Bernoulli(RATE))
        size = numpyro.sample("size", dist.Normal(0.0, SLAB))
    beta = active * size
    numpyro.factor("rewards", (cross @ beta - beta @ gram @ beta / 2) / NOISE**2)


def exactly(gram, cross):
    """Probability that each feature is active, mean and sd of each coefficient: a sum over all 2^d subsets."""
    subsets = [np.array(each, bool) for each in itertools.product((0, 1), repeat=len(cross))]
    evidence, means, squares = [], *np.zeros((2, len(subsets), len(cross)))
    for row, on in enumerate(subsets):
        covariance = np.linalg.inv(gram[np.ix_(on, on)] / NOISE**2 + np.eye(on.sum()) / SLAB**2)
        means[row, on] = covariance @ cross[on] / NOISE**2
        squares[row, on] = means[row, on] ** 2 + np.diag(covariance)
        gain = (
            cross[on] @ means[row, on] / (2 * NOISE**2) + np.linalg.slogdet(covariance)[1] / 2 - on.sum() * np.log(SLAB)
        )
        evidence.append(gain + on.sum() * np.log(RATE) + (~on).sum() * np.log(1 - RATE))
    weight = softmax(evidence)
    mean = weight @ means
    return weight @ np.array(subsets), mean, np.sqrt(weight @ squares - mean**2)


def by_coordinates(gram, cross, chance, loc):
    """One sweep of coordinate ascent of the mean-field bound, from there on: probability, mean and sd of each feature's slab.

    Carbonetto and Stephens, "Scalable variational inference for Bayesian variable selection in regression", 2012.
    """
    scale = (np.diag(gram) / NOISE**2 + SLAB**-2) ** -0.5
    chance, loc = np.array(chance, float), np.array(loc, float)
    for j in range(len(cross)):
        rest = gram[j] @ (chance * loc) - gram[j, j] * chance[j] * loc[j]
        loc[j] = scale[j] ** 2 * (cross[j] - rest) / NOISE**2
        odds = np.log(RATE / (1 - RATE)) + np.log(scale[j] / SLAB) + loc[j] ** 2 / (2 * scale[j] ** 2)
        chance[j] = 1 / (1 + np.exp(-odds))
    return chance, loc, scale


def offered(rng, seeds, rounds, arms, features, correlation=0.3):
    """Features of arms `(seed, round, arm, feature)`, of variance one and all alike correlated."""
    common = rng.normal(size=(seeds, rounds, arms, 1))
    own = rng.normal(size=(seeds, rounds, arms, features))
    return np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own


def small(features, seed):
    """X'X and X'r after 30 rewards, of which three coefficients are not zero: 1, -0.8 and 0.3."""
    rng, beta = np.random.default_rng(seed), np.zeros(features)
    x = offered(rng, 1, 30, 1, features)[0, :, 0]
    beta[:3] = 1.0, -0.8, 0.3
    return x.T @ x, x.T @ (x @ beta + NOISE * rng.normal(size=30))


def problems(seeds, rounds, arms, features, active):
    """Arms, noise, coefficients and which of these are not zero, for each seed."""
    rng = np.random.default_rng(0)
    offers, noise = offered(rng, seeds, rounds, arms, features), rng.normal(size=(seeds, rounds))
    which = np.argsort(rng.random((seeds, features)), 1) < active
    beta = which * rng.choice((-1, 1), which.shape) * rng.uniform(0.3, 1, which.shape)
    return [jnp.asarray(x, jnp.float32) for x in (offers, noise, beta, which)]


def played(policy, start, key, arms, noise, beta):
    """Regret of each round, for one seed: `policy(key, state, gram, cross, t)` gives coefficients to believe in, and its state.

    **Arguments**

    - `arms`: `(round, arm, feature)`; `noise`: `(round,)`, of variance one.
    """

    def round_of(carry, now):
        state, gram, cross = carry
        t, key, offers, e = now
        believed, state = policy(key, state, gram, cross, t)
        x, worth = offers[jnp.argmax(offers @ believed)], offers @ beta
        carry = state, gram + jnp.outer(x, x), cross + x * (x @ beta + NOISE * e)
        return carry, worth.max() - x @ beta

    d, rounds = arms.shape[-1], len(arms)
    each = jnp.arange(1.0, rounds + 1), jax.random.split(key, rounds), arms, noise
    return jax.lax.scan(round_of, (start, jnp.zeros((d, d)), jnp.zeros(d)), each)[1]


def lin_ts(prior_scale, key, state, gram, cross, t):
    """Thompson sampling with a Gaussian prior of that scale for each coefficient: a vector, 0 where it is known to be zero."""
    scaled = prior_scale[:, None] * gram * prior_scale / NOISE**2 + jnp.eye(len(cross))
    root = jnp.linalg.cholesky(scaled)
    mean = jax.scipy.linalg.cho_solve((root, True), prior_scale * cross / NOISE**2)
    wide = jax.scipy.linalg.solve_triangular(root.T, jax.random.normal(key, cross.shape))
    return prior_scale * (mean + wide), state


def lasso_bandit(weight, steps, key, beta, gram, cross, t):
    """The arm that is best by the lasso, whose penalty for each reward falls with the rounds, in the manner of Oh, Iyengar and
    Zeevi, "Sparsity-agnostic lasso bandit", ICML 2021: log t log d stands here where they have log t + log(d) / 2. The lasso
    goes on from the last round's, by proximal gradients.
    """
    penalty = weight * jnp.sqrt(4 * jnp.log(jnp.maximum(t, 2.0)) * jnp.log(len(cross)) * t)
    size = 1 / (jnp.linalg.norm(gram) + 1e-6)

    def step(_, beta):
        moved = beta - size * (gram @ beta - cross)
        return jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - size * penalty, 0)

    beta = jax.lax.fori_loop(0, steps, step, beta)
    return beta, beta
