"""Divergences in closed form, of sites that scales and masks count more than once, or not at all.

    E[c_q log q(z) - c_p log p(z)]  =  c KL(q || p)    where both programs count alike, c_q = c_p = c

Where they do not there is no closed form, and the site keeps log q - log p at its draw: entry by entry under masks, which may
be known at run time only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ppvi._ops import Array, Ops
from ppvi.engine.distributions import MASSES, SiteDistribution, masks
from ppvi.engine.sessions import Session
from ppvi.engine.sites import Counted
from ppvi.program import of_minibatches


def closed_form(session: Session, q: Counted, p: Counted, ratio: Array) -> Array | None:
    """KL divergence between the distributions of one site, counted and summed; None where no closed form is known.

    **Arguments**

    - `ratio`: log q - log p at the draw, scaled and masked, of the site's batch shape.
    """
    masked = any(mask is not True for counted in (q, p) for mask, _ in masks(counted.fn))
    scales = _same_scale(session, q.scale, p.scale)
    found = _by_entry(session, q, p) if masked else (_divergence(session, q.fn, p.fn), True)
    if found is None or found[0] is None or scales is False or q.plates != p.plates:
        return None
    divergence, kept_alike = found
    chosen = of_minibatches("a divergence", divergence if q.scale is None else q.scale * divergence, q.plates)
    for alike in (kept_alike, scales):
        chosen = chosen if alike is True else session.ops.where(alike, chosen, ratio)
    return session.ops.sum(chosen, range(len(chosen.shape)))


def _same_scale(session: Session, one: Any, other: Any) -> Array | bool:
    """Whether two scales are equal, by entry where they are arrays."""
    if one is other:
        return True
    one, other = (1.0 if scale is None else scale for scale in (one, other))
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return one == other if numbers else session.array(one) == session.array(other)


def _by_entry(session: Session, q: Counted, p: Counted) -> tuple[Array, Array] | None:
    """The divergence of the entries that the guide counts, and where the model counts the same, both of the batch shape."""
    mine, other = session.scope.distribution(q.fn), session.scope.distribution(p.fn)
    divergence = _divergence(session, mine.peeled, other.peeled)
    if divergence is None or not mine.lanes == other.lanes == tuple(divergence.shape):
        return None
    ops, events = session.ops, range(len(q.fn.batch_shape), len(mine.lanes))
    kept, theirs = (_kept(session, counted.fn, mine.lanes, dist) for counted, dist in ((q, mine), (p, other)))
    differing = ops.sum(abs(kept - theirs), events)
    return ops.sum(ops.where(kept > 0, divergence, 0.0), events), differing == 0


MOST = 10_000
"""Values that are summed over; of more the framework is asked."""


def _divergence(session: Session, q: Any, p: Any) -> Array | None:
    """That of finite sites, by the sum over their values, or of the framework; of the batch shape of q."""
    mine, other = session.scope.distribution(q), session.scope.distribution(p)
    if mine.has_enumerate_support and mine.lanes == other.lanes:
        weights = mine.weights()
        if weights[0].shape[-1] <= MOST:
            by_lane = _of_finite(session.ops, weights, mine, other) + session.ops.zeros(mine.lanes)
            return session.ops.sum(by_lane, range(len(q.batch_shape), len(mine.lanes)))
    return session.engine.divergence(q, p)


def _of_finite(ops: Ops, weights: tuple[Array, bool], mine: SiteDistribution, other: SiteDistribution) -> Array:
    """sum_v q(v) (log q(v) - log p(v)), 0 where q(v) is 0, infinite where p(v) alone is; of lanes that are alike one entry."""
    given = other.weights() if mine.family == other.family in MASSES else None
    if given is None or given[0].shape[-1] != weights[0].shape[-1]:
        given = ops.moveaxis(other.log_prob(mine.whole), 0, -1), False
    (q, log_q), (p, log_p) = (_both(ops, *x) for x in (weights, given))
    return ops.sum(ops.where(q == 0, 0.0, ops.where(p == 0, math.inf, q * (log_q - log_p))), (-1,))


def _both(ops: Ops, weights: Array, is_probability: bool) -> tuple[Array, Array]:
    """Probabilities and their logarithms, which are 0 where there is none."""
    probabilities = weights if is_probability else ops.exp(weights)
    if is_probability:
        return probabilities, ops.log(ops.where(probabilities == 0, 1.0, probabilities))
    return probabilities, ops.where(probabilities == 0, 0.0, weights)


def _kept(session: Session, fn: Any, lanes: Sequence[int], distribution: Any) -> Array:
    """1 for lanes that no mask leaves out, 0 for others."""
    kept = session.ops.zeros(tuple(lanes)) + 1.0
    for mask, event_ndim in masks(fn):
        array = session.array(mask) * 1.0
        within = event_ndim - len(distribution.peeled.event_shape)
        kept = kept * session.ops.reshape(array, (*array.shape, *[1] * within))
    return kept
