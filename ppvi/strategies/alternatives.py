"""Gradients by differences: the rest of the objective at alternative values, each weighed by the derivative of a weight.

    d E_q[f(z)] = E[df(z) + sum_k f(v_k) dw_k]

A draw keeps the alternatives v_k as `values` and the w_k as `weights`, of which only the derivatives matter. The
alternatives are evaluated without gradient machinery, so nested sites cost a sum of evaluations and not a product.
Strategies differ in their tables of v and w, and in whether lanes change one at a time or together.
"""

from __future__ import annotations

import math

import numpy as np

from ppvi.errors import StrategyError
from ppvi.ops import Array
from ppvi.strategies.base import Continuation, Site, Terms, phantom

LIMIT = 4096
"""The most alternative runs of a term, each a copy of what depends on the site."""


def together(site: Site, k: Continuation) -> Terms:
    """All lanes take their alternatives at once."""
    return k(site.value) + k.value_each(site.values).times(phantom(site, site.weights)).total()


def one_by_one(site: Site, k: Continuation) -> Terms:
    """Lanes that a term couples take their alternatives one at a time, the others keeping their draws."""
    total = k(site.value)
    for coupled, rest in k.by_coupling():
        values, weights = _spread(site, coupled)
        total = total + rest.value_each(values).times(phantom(site, weights)).total()
    return total


def _spread(site: Site, coupled: tuple[int, ...]) -> tuple[Array, Array]:
    """Alternatives and weights, `(C K, *lanes, ..)`, of C coupled lanes one by one; uncoupled lanes go side by side."""
    shape = [size if axis in coupled else 1 for axis, size in enumerate(site.lanes)]
    lanes, alternatives = math.prod(shape), site.values.shape[0]
    if lanes == 1:
        return site.values, site.weights
    if lanes * alternatives > LIMIT:
        raise StrategyError(
            f"site {site.name!r}: {lanes} coupled lanes, one at a time with {alternatives} alternatives each, would cost "
            f"{lanes * alternatives} runs of the objective, more than {LIMIT}. LeaveOneOut() or Reinforce() cost one."
        )
    chosen = np.eye(lanes, dtype=bool).reshape(lanes, 1, *shape)
    events = site.values.shape[1 + len(site.lanes) :]
    at = chosen.reshape(*chosen.shape, *[1] * len(events))
    values = site.ops.where(at, site.values, site.value)
    weights = site.ops.where(chosen, site.weights, 0.0)
    runs = lanes * alternatives
    return site.ops.reshape(values, (runs, *site.lanes, *events)), site.ops.reshape(weights, (runs, *site.lanes))
