"""A stochastic differential equation whose noise remembers: fractional, and made of a few processes that do not.

    dX = -LAW.drift X dt + dB_H    B_H(t) = int_0^t (t - s)^(H - 1/2) dB(s) / Gamma(H + 1/2)    y_i ~ N(X(t_i), LAW.noise^2)

B_H is fractional Brownian motion (of type II, which begins at zero with no past); H is its Hurst index: at 1/2 it is Brownian
motion, below this it turns back all the time, above it goes on. It is no Markov process. But the kernel is nearly a sum of
exponentials, and so B_H nearly sum_k weight_k Y_k with dY_k = -rate_k Y_k dt + dB, all driven by one B: the weights of least
mean square error have a closed form. X, too, is then a sum of such processes, one more of them with the rate of its drift.

Time goes in steps in which the white noise is constant; within a step the Y_k are exact.

Daems, Opper, Crevecoeur and Birdal, "Variational inference for SDEs driven by fractional noise", ICLR 2024.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammainc, gammaln
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from scipy.special import gamma, hyp2f1
from scipy.stats import multivariate_normal


class Law(NamedTuple):
    """What is known of the equation."""

    drift: float = 1.0
    noise: float = 0.1
    horizon: float = 5.0
    rates: tuple = tuple(np.geomspace(0.2, 50.0, 6).tolist())


LAW = Law()


def moments(hurst, law=LAW):
    """Integrals over time of the mean of Y_k Y_l, of Y_k B_H and of B_H's square."""
    rate, end, a = jnp.array(law.rates), law.horizon, hurst + 0.5
    both = rate[:, None] + rate
    products = (end + jnp.expm1(-both * end) / both) / both
    with_b = (gammainc(a, rate * end) * end - a / rate * gammainc(a + 1, rate * end)) / rate**a
    return products, with_b, end ** (2 * hurst + 1) / ((2 * hurst + 1) * 2 * hurst) / jnp.exp(2 * gammaln(a))


def weights(hurst, law=LAW):
    """Of the processes, such that the mean square of B_H - sum_k weight_k Y_k, over time, is least."""
    products, with_b, _ = moments(hurst, law)
    return jnp.linalg.solve(products, with_b)


def by_quadrature(hurst, law=LAW):
    """Of the processes, where H is below 1/2: B_H is an integral over rates, cut into cells from zero on, each of which has
    one of the rates for all."""
    rate = np.array(law.rates)
    ends = np.append(0, rate * np.sqrt(rate[1] / rate[0]))
    return np.diff(ends ** (0.5 - hurst)) / (0.5 - hurst) / (gamma(hurst + 0.5) * gamma(0.5 - hurst))


def error(weight, hurst, law=LAW):
    """The mean square that such weights leave, in parts of B_H's."""
    products, with_b, whole = moments(hurst, law)
    return 1 + (weight @ products @ weight - 2 * with_b @ weight) / whole


def mixed(hurst, law=LAW):
    """By how much each process, in its stationary standard deviations, goes into X, `(1 + rates,)`: the first has the drift's
    rate."""
    rate, weight = jnp.array(law.rates), weights(hurst, law)
    apart = rate - law.drift
    return jnp.append(-(weight * law.drift / apart).sum(), weight * rate / apart) / jnp.sqrt(2 * all_rates(law))


def all_rates(law=LAW):
    return jnp.array((law.drift, *law.rates))


def moved(steps, law=LAW):
    """What a step keeps of each process, and adds of a standard normal number to it."""
    rate, time = all_rates(law), law.horizon / steps
    keep = jnp.exp(-rate * time)
    return keep, (1 - keep) / (rate * jnp.sqrt(time)) * jnp.sqrt(2 * rate)


def learned():
    return numpyro.param("hurst", 0.5, constraint=constraints.interval(0.1, 0.9))


def model(y, hurst=learned):
    """Of outputs `(n,)`, one a step. Returns the path."""
    mix, (keep, add) = mixed(hurst()), moved(len(y))

    def step(z, seen):
        z = keep * z + add * numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mix @ z, LAW.noise), obs=seen)
        return z, mix @ z

    return scan(step, jnp.zeros(len(mix)), y)[1]


@functools.cache
def of_noise(hurst, n, law=LAW):
    """By how much X at the ends of steps goes with the steps' noise, `(n, n)`."""
    mix, keep, add = (np.asarray(x, np.float64) for x in (mixed(hurst, law), *moved(n, law)))
    response = (mix * add) @ keep[:, None] ** np.arange(n)
    lag = np.arange(n)[:, None] - np.arange(n)
    return np.where(lag < 0, 0, response[np.maximum(lag, 0)])


def of_processes(hurst, n, law=LAW):
    """Covariance of X at the ends of steps as the model has it, `(n, n)`."""
    root = of_noise(hurst, n, law)
    return root @ root.T


@functools.cache
def of_fractional(hurst, n, law=LAW, fine=4):
    """The same of the equation itself, X = B_H - drift int_0^t e^(-drift (t - s)) B_H(s) ds, by a rule of so many points a
    step."""
    t = np.arange(1, n * fine + 1) * law.horizon / (n * fine)
    a, early, late = hurst - 0.5, np.minimum(t[:, None], t), np.maximum(t[:, None], t)
    of_b = late**a * early ** (a + 1) / (a + 1) * hyp2f1(-a, 1, a + 2, early / late) / gamma(a + 1) ** 2
    apart = t[:, None] - t
    rule = np.where(apart < 0, 0, np.exp(-law.drift * np.maximum(apart, 0))) * np.where(apart == 0, 0.5, 1.0) * t[0]
    root = (np.eye(len(t)) - law.drift * rule)[fine - 1 :: fine]
    return root @ of_b @ root.T


def evidence(covariance, y, law=LAW):
    """Log density of outputs."""
    return multivariate_normal(cov=covariance + law.noise**2 * np.eye(len(y))).logpdf(y)


def apart(hurst, y, law=LAW):
    """The largest bound of all guides of which the steps' noise is independent: of the posterior's precision they have the
    diagonal."""
    root = of_noise(hurst, len(y), law)
    precision = np.eye(len(y)) + root.T @ root / law.noise**2
    lost = np.log(np.diagonal(precision)).sum() - np.linalg.slogdet(precision)[1]
    return evidence(root @ root.T, y, law) - lost / 2


def smoothed(covariance, y, law=LAW):
    """Means and standard deviations of X given all outputs."""
    gain = np.linalg.solve(covariance + law.noise**2 * np.eye(len(y)), covariance).T
    return gain @ y, np.sqrt(np.diagonal(covariance - gain @ covariance))


def made(hurst, n, seed, law=LAW):
    """Outputs of the equation itself."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(of_fractional(hurst, n, law) + 1e-10 * np.eye(n))
    return (root @ rng.normal(size=n) + law.noise * rng.normal(size=n)).astype(np.float32)


def by_index(y, grid):
    """Log evidence of the equation, of the sum, and the bound of independent noise, at each index of a grid, `(3, grid)`."""
    rows = [
        (evidence(of_fractional(h, len(y), fine=2), y), evidence(of_processes(h, len(y)), y), apart(h, y)) for h in grid
    ]
    return np.transpose(rows)
