"""How good a model of many independent data is, datum by datum, which no evaluation may mix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def by_datum(estimate: Callable[..., Any]) -> Callable[[jax.Array, Any, Any], np.ndarray]:
    """Takes key, parameters and data to estimates of an objective for each row by itself, `(n,)`.

    Rows come one after the other, so that memory is that of one. With `vi.objective(iwelbo(5000), model, guide).estimate` the
    estimates are log densities of the data, from below. It is compiled once for data of a shape.
    """

    @jax.jit
    def one_by_one(key: jax.Array, params: Any, x: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(x))
        return jax.lax.map(lambda each: estimate(each[0], params, each[1][None]), (keys, x))

    return lambda key, params, x: np.asarray(one_by_one(key, params, jnp.asarray(x)), np.float64)


def frechet_distance(drawn: Any, real: Any, directions: int = 50) -> float:
    """Fréchet distance of two sets of rows as Gaussians, in the leading principal directions of the real ones.

        |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2))

    Dowson and Landau 1982; with features of a network in place of pixels it is the FID of Heusel et al. 2017.
    """
    a, b = (np.asarray(rows, np.float64).reshape(len(rows), -1) for rows in (drawn, real))
    axes = np.linalg.eigh(np.cov(b.T))[1][:, -directions:]
    means, covariances = zip(*(((x @ axes).mean(0), np.cov((x @ axes).T)) for x in (a, b)), strict=True)
    product = np.linalg.eigvals(covariances[0] @ covariances[1])
    cross = np.sqrt(np.maximum(product.real, 0)).sum()
    return float(((means[0] - means[1]) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * cross)


def reliability(probabilities: np.ndarray, answer: Any, bins: int = 15) -> tuple[np.ndarray, ...]:
    """Of bins by the probability of what is predicted: shares of the rows, mean probabilities there, shares that are right."""
    sure, right = probabilities.max(1), probabilities.argmax(1) == np.asarray(answer)
    which = np.minimum((bins * sure).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    means = [np.bincount(which, each, bins) / np.maximum(count, 1) for each in (sure, right)]
    return count / len(sure), *means


def classified(probabilities: np.ndarray, answer: Any) -> tuple[float, float, float]:
    """Error in percent, negative log-likelihood, expected calibration error in percent, of probabilities `(n, classes)`."""
    share, sure, right = reliability(probabilities, answer)
    likelihood = np.log(np.maximum(probabilities[np.arange(len(probabilities)), np.asarray(answer)], 1e-30)).mean()
    wrong = np.mean(probabilities.argmax(1) != np.asarray(answer))
    return float(100 * wrong), float(-likelihood), float(100 * np.sum(share * np.abs(sure - right)))
