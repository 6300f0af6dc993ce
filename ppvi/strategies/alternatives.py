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

from ppvi._ops import Array, Ops
from ppvi.errors import StrategyError
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
        total = at_the_draw(site, k)
        if site.draw.values is None:
            return total
        return sum((self.elsewhere(site, coupled, rest) for coupled, rest in k.by_coupling()), start=total)

    def elsewhere(self, site: Site, coupled: Mapping[int, int], k: Continuation) -> Terms:
        """The rest at the alternatives, for terms that couple these lane axes."""
        if not coupled:
            return k.value_each(site.values).vary(site.weights).total()
        chosen = one_lane_each(site, coupled)
        weights = site.ops.where(chosen[:, None], site.weights, 0.0)
        weights = site.ops.reshape(weights, (-1, *site.lanes))
        return k.value_where(site.value, site.values, chosen).vary(weights).total()

    def evaluations(self, alternatives: int, coupled: int) -> int:
        return alternatives * coupled


class Together(Strategy):
    """All lanes take their alternatives at once, which is right where these are draws of all lanes."""

    fixed_support: ClassVar[bool] = False

    def estimate(self, site: Site, k: Continuation) -> Terms:
        return at_the_draw(site, k) + k.value_each(site.values).vary(site.weights).total()

    def evaluations(self, alternatives: int, coupled: int) -> int:
        return alternatives


def at_the_draw(site: Site, k: Continuation) -> Terms:
    """The rest at the draw, with the weights that it has there.

    To evaluate it there is what its run does, and shared with it; and later sites are simply drawn as they are for the
    alternatives, so that what these draws do to either cancels in the difference.
    """
    total = k(site.value)
    if site.draw.log_prob is not None:
        total = total.scale(phantom(site, site.log_prob))
    if site.draw.weight is not None:
        total = total + k.value(site.value).vary(site.draw.weight)
    return total


def one_lane_each(site: Site, coupled: Mapping[int, int]) -> np.ndarray:
    """Which lanes take their alternatives in each of C runs, `(C, *lanes)` with size 1 along uncoupled axes."""
    shape = [coupled.get(axis, 1) for axis in range(len(site.lanes))]
    lanes, alternatives = math.prod(shape), site.values.shape[0]
    if lanes * alternatives > LIMIT:
        raise StrategyError(
            f"site {site.name!r}: {lanes} coupled lanes, which take their alternatives one at a time, would cost "
            f"{lanes * alternatives} runs of the objective, more than {LIMIT}. LeaveOneOut() or Reinforce() cost one."
        )
    return repeated(np.eye(lanes, dtype=bool).reshape(lanes, *shape), site, coupled, ahead=1)


def others(ops: Ops, support: Array, value: Array, lanes: int) -> tuple[Array, Array | None]:
    """Where in a support the draws of so many axes of lanes are, `(1, *lanes)`, and where its other values are."""
    size, events = support.shape[0], range(1 + lanes, len(support.shape))
    differs = ops.sum(1 * (support != value), events) if events else 1 * (support != value)
    index: Array = sum(number * (differs[number] == 0) for number in range(size))
    rest = [(index + step) % size for step in range(1, size)]
    return index[None], ops.stack(rest) if rest else None


def repeated(pattern: np.ndarray, site: Site, coupled: Mapping[int, int], ahead: int) -> np.ndarray:
    """A pattern of `coupled` lanes, repeated along the lane axes; they come behind that many axes of the pattern."""
    for axis, width in coupled.items():
        if width < site.lanes[axis]:
            pattern = np.take(pattern, np.arange(site.lanes[axis]) % width, ahead + axis)
    return pattern
