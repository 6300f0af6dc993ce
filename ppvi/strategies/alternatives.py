"""Gradients by differences: the rest of the objective at alternative values, each weighed by the derivative of a weight.

    d E_q[f(z)] = E[df(z) + sum_k f(v_k) dw_k]

A draw keeps the alternatives v_k as `values` and the w_k as `weights`, of which only the derivatives matter. The
alternatives are evaluated without gradient machinery, so nested sites cost a sum of evaluations and not a product.
Strategies differ in their tables of v and w, and in whether lanes change one at a time or together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ppvi.errors import StrategyError
from ppvi.ops import Array
from ppvi.strategies.base import Continuation, Site, Strategy, Terms, phantom

LIMIT = 4096
"""The most runs of a term that a strategy may cost before it is refused."""


class OneByOne(Strategy):
    """Lanes that a term couples take their alternatives one at a time, the others keeping their draws.

    Where entries of a term depend on `width` lanes in a row, every width-th lane takes its alternative at the same time.

    A draw may keep a log_prob too: that of the parameters of which the weights have no derivative, credited by the score.
    """

    fixed_support: ClassVar[bool] = False

    def estimate(self, site: Site, k: Continuation) -> Terms:
        total = k(site.value)
        if site.draw.log_prob is not None:
            total = total.scale(phantom(site, site.log_prob))
        for coupled, rest in k.by_coupling():
            values, weights = self.alternatives(site, coupled)
            total = total + rest.value_each(values).times(phantom(site, weights)).total()
        return total

    def alternatives(self, site: Site, coupled: Mapping[int, int]) -> tuple[Array, Array]:
        """Values `(C, *lanes, *event)` and weights `(C, *lanes)` for terms that couple these lane axes."""
        return one_lane_each(site, coupled)

    def evaluations(self, alternatives: int, coupled: int) -> int:
        return alternatives * coupled


class Together(Strategy):
    """All lanes take their alternatives at once, which is right where these are draws of all lanes."""

    fixed_support: ClassVar[bool] = False

    def estimate(self, site: Site, k: Continuation) -> Terms:
        return k(site.value) + k.value_each(site.values).times(phantom(site, site.weights)).total()

    def evaluations(self, alternatives: int, coupled: int) -> int:
        return alternatives


def one_lane_each(site: Site, coupled: Mapping[int, int]) -> tuple[Array, Array]:
    """Alternatives and weights, `(C K, *lanes, ..)`, of C coupled lanes one by one; uncoupled lanes go side by side."""
    shape = [coupled.get(axis, 1) for axis in range(len(site.lanes))]
    lanes, alternatives = math.prod(shape), site.values.shape[0]
    if lanes == 1:
        return site.values, site.weights
    if lanes * alternatives > LIMIT:
        raise StrategyError(
            f"site {site.name!r}: {lanes} coupled lanes, one at a time with {alternatives} alternatives each, would cost "
            f"{lanes * alternatives} runs of the objective, more than {LIMIT}. LeaveOneOut() or Reinforce() cost one."
        )
    chosen = repeated(np.eye(lanes, dtype=bool).reshape(lanes, 1, *shape), site, coupled, ahead=2)
    events = site.values.shape[1 + len(site.lanes) :]
    at = chosen.reshape(*chosen.shape, *[1] * len(events))
    values = site.ops.where(at, site.values, site.value)
    weights = site.ops.where(chosen, site.weights, 0.0)
    runs = lanes * alternatives
    return site.ops.reshape(values, (runs, *site.lanes, *events)), site.ops.reshape(weights, (runs, *site.lanes))


def repeated(pattern: np.ndarray, site: Site, coupled: Mapping[int, int], ahead: int) -> np.ndarray:
    """A pattern of `coupled` lanes, repeated along the lane axes; they come behind that many axes of the pattern."""
    for axis, width in coupled.items():
        if width < site.lanes[axis]:
            pattern = np.take(pattern, np.arange(site.lanes[axis]) % width, ahead + axis)
    return pattern
