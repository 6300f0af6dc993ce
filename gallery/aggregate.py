"""Objectives of autoencoders that ask something of all posteriors together: bounds less a distance of the aggregated posterior
from the prior, by the points that a minibatch's guide draws, or by what the guide returns of it.

    ELBO - n weight distance(q(z), p(z))    q(z) = mean of q(z | x) over data
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import ppvi


def apart(distance: Callable[..., Any], weight: float, plate: str = "images") -> Callable[..., Any]:
    """The bound less n times a weighted distance, which is given the points and what the guide returns."""

    def bound(p: Any, q: Any) -> Any:
        z = q.simulate()
        each = p.log_density(z, per=plate) - z.per(plate)
        return ppvi.total(each - weight * distance(z["z"], *z.returned), per=plate)

    return bound


def mmd(z: jax.Array, *_: Any) -> jax.Array:
    """Square of the maximum mean discrepancy of points `(n, d)` and the standard Gaussian, whose means of kernels are known.
    The kernel is the exponential of minus the mean square of differences. Zhao, Song and Ermon, "InfoVAE", AAAI 2019.
    """
    n, d = z.shape
    among = (jnp.exp(-((z[:, None] - z) ** 2).mean(-1)).sum() - n) / (n * (n - 1))
    to_prior = (d / (d + 2)) ** (d / 2) * jnp.exp(-(z**2).sum(-1) / (d + 2)).mean()
    return among - 2 * to_prior + (d / (d + 4)) ** (d / 2)


def covariance(_: jax.Array, loc: jax.Array, scale: jax.Array) -> jax.Array:
    """Square of what the covariance of points lacks of the identity. Kumar, Sattigeri and Balakrishnan, ICLR 2018."""
    c = jnp.cov(loc, rowvar=False) + jnp.diag((scale**2).mean(0))
    return ((c - jnp.eye(len(c))) ** 2).sum()
