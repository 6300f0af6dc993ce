"""The Fisher information of a guide in parameters that reach its sites through any code: the curvature of a divergence.

    F = sum over sites of the Hessian of KL(q_site(u) || q_site(u')) at u' = u

with what is upstream of a site drawn from the guide. The Hessian of a divergence at its zero is J' F_site J, J the derivative
of the site's arguments: the curvature of the code between drops out, so that it is the Gauss-Newton matrix (Martens 2020).
Sites of a minibatch count as often as the rows that they stand for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppvi.engine.distributions import masks
from ppvi.engine.protocol import Params
from ppvi.engine.sites import Counted
from ppvi.numpyro._guide_sites import standard
from ppvi.numpyro._regions import base
from ppvi.program import Trace


def divergence_from(
    run: Callable[[Params, Mapping[str, Any] | None], Trace], at: Params, sites: Sequence[str]
) -> Callable[[Params], jax.Array]:
    """The divergence from the guide at some parameters to that at others, of which F is the Hessian, for one draw of the guide.

    **Arguments**

    - `run`: of unconstrained parameters, and of values that sites are given.
    - `sites`: those that the parameters reach, of which divergences have closed forms.
    """
    drawn = run(at, None)

    def divergences(there: Params) -> jax.Array:
        found = run(there, drawn.choices).distributions
        each = (cast(jax.Array, divergence(drawn.distributions[x], found[x])) for x in sites)
        return sum((jnp.sum(x) for x in each), jnp.zeros(()))

    return divergences


def divergence(q: Counted, p: Counted) -> jax.Array | None:
    """KL(q || p) by lane, as often as the site counts; None where no closed form is known."""
    try:
        found = dist.kl_divergence(q.fn, p.fn)
    except NotImplementedError:
        found = (
            None
            if any(masks(q.fn))
            else _by_lane(standard(q.fn), standard(p.fn), jnp.ndim(jnp.zeros(q.fn.batch_shape)))
        )
    if found is None:
        return None
    return found * math.prod(plate.scale for plate in q.plates) * (1.0 if q.scale is None else q.scale)


def _by_lane(q: dist.Distribution, p: dist.Distribution, ndim: int) -> jax.Array | None:
    """The divergence of distributions whose lanes are all batch axes, summed over those past the first ones."""
    rule = _RULES.get(type(base(q)))
    try:
        found = (
            rule(q, p) if rule is not None else _finite(q, p) if q.has_enumerate_support else dist.kl_divergence(q, p)
        )
    except NotImplementedError:
        return None
    found = jnp.broadcast_to(found, jnp.broadcast_shapes(jnp.shape(found), q.batch_shape))
    return jnp.sum(found, range(ndim, jnp.ndim(found)))


def _finite(q: dist.Distribution, p: dist.Distribution) -> jax.Array:
    values = q.enumerate_support()
    mine, theirs = jnp.asarray(q.log_prob(values)), jnp.asarray(p.log_prob(values))
    weights = jnp.exp(mine)
    return jnp.sum(jnp.where(weights > 0, weights * (mine - theirs), 0.0), 0)


def _poisson(q: Any, p: Any) -> jax.Array:
    q, p = base(q).rate, base(p).rate  # type: ignore[attr-defined]
    return q * (jnp.log(q) - jnp.log(p)) - q + p


def _exponential(q: Any, p: Any) -> jax.Array:
    q, p = base(q).rate, base(p).rate  # type: ignore[attr-defined]
    return jnp.log(q) - jnp.log(p) + p / q - 1


def _low_rank(q: Any, p: Any) -> jax.Array:
    q, p = (dist.MultivariateNormal(base(x).loc, base(x).covariance_matrix) for x in (q, p))  # type: ignore[attr-defined]
    return dist.kl_divergence(q, p)


_RULES: dict[type, Callable[[Any, Any], jax.Array]] = {
    dist.Poisson: _poisson,
    dist.Exponential: _exponential,
    dist.LowRankMultivariateNormal: _low_rank,
}
