"""Bounds from several draws of the guide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ppvi._doors import count, described, number
from ppvi._ops import Array
from ppvi.errors import ProgramError, StrategyError
from ppvi.objectives.families import Objective, family
from ppvi.objectives.weights import log_weights, normalized
from ppvi.program import (
    Plates,
    Program,
    Trace,
    by_paths,
    each,
    logmeanexp,
    replicate,
    session,
    stop_gradient,
    total,
)

_VIMCO = "what weighs a particle's score does not depend on its draw (Mnih and Rezende 2016)"
_DREG = "the doubly reparameterised gradient puts the score's part into the weights of the path (Tucker et al. 2019)"

Scalar = Callable[[Array], Array]


@family
def iwelbo(particles: int, *, per: Plates | None = None) -> Objective:
    """Importance-weighted evidence lower bound, to be maximised.

        E_{z_1..z_K ~ q} [log 1/K sum_k w_k],    w_k = p(x, z_k) / q(z_k)

    Between the ELBO (K = 1) and log p(x), and non-decreasing in K.

    **Arguments**

    - `particles`: K, at least 1.
    - `per`: plates over which everything is independent; each index then has its own K weights, and the bound is their sum,
      as for the independent images of an autoencoder. Where a plate runs over a minibatch, the bound is that of all its rows
      on average; without `per` the logarithm of a minibatch's weights would be biased, and a `BiasWarning` says so.

    **Unbiased when** every strategy is, for any kind of site; score-function sites are credited with the whole bound.
    Burda, Grosse and Salakhutdinov 2016.
    """
    count("iwelbo: the number of particles", particles)

    def importance_weighted_elbo(p: Program, q: Program) -> Array:
        return total(logmeanexp(log_weights(p, q, particles, per)), per)

    return importance_weighted_elbo


@family
def vimco(particles: int, *, per: Plates | None = None) -> Objective:
    """The importance-weighted ELBO with a baseline for each particle's score, to be maximised.

        E_{z_1..z_K ~ q} [L - sum_k L_-k (log q(z_k) - stop(log q(z_k)))],    L = log 1/K sum_j w_j

    where L_-k is L with log w_k replaced by the mean of the other log w_j, for one k at a time, so that it does not depend on
    z_k. Value and expected gradient are those of `iwelbo`; draws by score functions have far less variance.

    **Arguments**: as for `iwelbo`, with K at least 2.

    **Unbiased when** every strategy is. Mnih and Rezende 2016.
    """
    count("vimco: the number of particles", particles, least=2)

    def bound(p: Program, q: Program) -> Array:
        def particle() -> tuple[Array, Array]:
            z = q.simulate()
            return p.log_density(z, per=per) - z.per(per), z.score(per)

        log_w, scores = replicate(particles, particle)
        control = (stop_gradient(without_each(log_w), because=_VIMCO) * scores).sum(0)
        return total(logmeanexp(log_w) - control, per)

    return bound


def without_each(log_w: Array) -> Array:
    """For each k the log mean weight with log w_k replaced by the mean of the others: `(particle, *plates)`."""
    ops, k = session().ops, len(log_w)
    others = (ops.sum(log_w, [0]) - log_w) / (k - 1)
    itself = np.eye(k, dtype=bool).reshape(k, k, *[1] * (len(log_w.shape) - 1))
    return logmeanexp(ops.where(itself, others[None], log_w[:, None]))


@family
def renyi(alpha: float, particles: int, *, per: Plates | None = None) -> Objective:
    """Variational Renyi bound by K draws, to be maximised.

        1 / (1 - alpha)  E_{z_1..z_K ~ q} [log 1/K sum_k w_k^(1 - alpha)],    w_k = p(x, z_k) / q(z_k)

    alpha = 0 is the importance-weighted ELBO; alpha -> 1 tends to the ELBO. The bound with finitely many particles is
    the quantity estimated, and its gradient is its own: for K -> infinity it tends to the Renyi bound itself.

    **Arguments**

    - `alpha`: order, any real but 1 (where the bound is `elbo`).
    - `particles`: K, at least 1.
    - `per`: plates over which everything is independent, as for `iwelbo`.

    **Unbiased when** every strategy is, for the K-particle bound above. Li and Turner 2016.
    """
    count("renyi: the number of particles", particles)
    number("renyi: alpha", alpha)
    if alpha == 1:
        raise ProgramError("renyi: order alpha = 1 is the ELBO itself; use `ppvi.objectives.elbo`.")

    def renyi_bound(p: Program, q: Program) -> Array:
        return total(logmeanexp((1 - alpha) * log_weights(p, q, particles, per)), per) / (1 - alpha)

    return renyi_bound


@family
def vr_max(particles: int, *, per: Plates | None = None) -> Objective:
    """The Renyi bound of order minus infinity by K draws, to be maximised: the best weight takes all.

        E_{z_1..z_K ~ q} [max_k log w_k]

    **Arguments**: as for `iwelbo`.

    **Unbiased when** every strategy is, for the K-particle quantity above, which is no lower bound of log p(x): it may
    exceed it for K > 1. The maximum is Lipschitz, so pathwise gradients are valid. Li and Turner 2016, section 4.2.
    """
    count("vr_max: the number of particles", particles)

    def bound(p: Program, q: Program) -> Array:
        return total(session().ops.max(log_weights(p, q, particles, per), 0), per)

    return bound


@family
def dreg(particles: int, *, of: tuple[Scalar, Scalar, Scalar] | None = None, per: Plates | None = None) -> Objective:
    """The importance-weighted ELBO, or a function of it, by its doubly reparameterised gradient; the former is maximised.

        value    F(L),    L = log 1/K sum_k w_k
        d phi    (F'(L) - F''(L)) sum_k v_k^2 (d log w_k / d z_k) (d z_k / d phi),    v_k = w_k / sum_j w_j
        d theta  F'(L) sum_k v_k d log p(x, z_k)

    For F(L) = L, the bound itself, its signal-to-noise ratio grows with K, where that of `iwelbo` falls (Rainforth et al.
    2018).

    **Arguments**

    - `particles`: K, at least 1.
    - `of`: F, F' and F'' as functions of L. For example F(L) = exp(2 L), whose expectation is the chi-square moment of K draws,
      to be minimised.
    - `per`: plates over which everything is independent; the sum of F(L) over them, each L from K weights of its own.

    **Raises** `StrategyError` unless every site of the guide is reparameterised: the formula holds for pathwise draws, and for
    functions of the log mean weight, and for nothing else.

    **Unbiased when** every site of the guide is `Reparam`, the weights are continuous and F is twice differentiable: value and
    gradient have the expectations of F(L) by `Reparam`. Tucker et al. 2019; for other F than the identity, by the same
    argument as theirs, see also Geffner and Domke 2021 and Bauer and Mnih 2021.
    """
    count("dreg: the number of particles", particles)
    if of is not None and not (isinstance(of, list | tuple) and len(of) == 3 and all(map(callable, of))):
        raise ProgramError(f"dreg: of= is a function and its first two derivatives, (F, F', F''), not {described(of)}.")

    def held(x: Array) -> Array:
        return stop_gradient(x, because=_DREG)

    def bound(p: Program, q: Program) -> Array:
        def log_weight(z: Trace, stop_params: bool | str = False) -> Array:
            return p.log_density(z, per=per, stop_params=stop_params) - q.log_density(z, per=per, stop_params=_DREG)

        def scaled(z: Trace, weight: Array) -> Trace:
            def moved(site: str, x: Array) -> Array:
                along = weight if per is None else z.along(weight, site, per, len(x.shape))
                return held(x) + along * (x - held(x))

            return replace(z, choices={site: moved(site, x) for site, x in z.items()})

        traces = replicate(particles, q.simulate)
        other = sorted(set(traces) - traces.pathwise)
        if other:
            raise StrategyError(
                f"dreg: the draw of site {other[0]!r} does not carry its own gradient, and the doubly reparameterised gradient "
                f"is wrong for it. Name Reparam() for it, or use `iwelbo`, which is right for any strategy."
            )
        weights = normalized(held(each(log_weight, traces)))

        def log_mean(stop_params: bool | str) -> Array:
            return logmeanexp(each(lambda z, weight: log_weight(scaled(z, weight), stop_params), traces, weights))

        both = log_mean(False)
        if of is None:
            return total(both, per)
        value, first, second = (function(held(both)) for function in of)
        path = log_mean(_DREG)
        return total(value + first * (both - held(both)) - second * (path - held(path)), per)

    return by_paths(bound)
