"""Bounds for guides with auxiliary variables: the guide's density is a marginal, estimated without bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ppvi._ops import Array
from ppvi.inference import marginal
from ppvi.objectives.elbo import elbo
from ppvi.objectives.families import Objective, family
from ppvi.objectives.multi_sample import iwelbo
from ppvi.program import Plates, Program

Reverse = Callable[..., Any]
"""A program of the framework that is called with the kept choices and the objective's arguments, and draws the rest."""


@family
def diwhvi(
    keep: Sequence[str], reverse: Reverse | None, inner: int, outer: int, *, per: Plates | None = None
) -> Objective:
    """Doubly importance-weighted hierarchical bound, to be maximised.

        E [log 1/L sum_l p(x, z_l) / xi_l],    xi_l = 1/K sum_k q(z_l, u_lk) / r(u_lk; z_l),    (z_l, u_l1) ~ q

    where the other u_lk are drawn from r. Below log p(x), and non-decreasing in K and in L.

    **Arguments**

    - `keep`: the guide's sites that are the model's; its other sites are the auxiliary u.
    - `reverse`: r, called with the kept choices; None for the guide's own auxiliary draws.
    - `inner`, `outer`: K and L, at least 1.
    - `per`: plates over which everything is independent.

    **Unbiased when** every strategy is. Sobolev and Vetrov 2019.
    """

    def bound(p: Program, q: Program) -> Array:
        return iwelbo(outer, per=per)(p, marginal(q, keep, reverse, inner, per=per))

    return bound


@family
def iwhvi(keep: Sequence[str], reverse: Reverse | None, particles: int, *, per: Plates | None = None) -> Objective:
    """Importance-weighted hierarchical bound, to be maximised: `diwhvi` with one outer draw.

        E [log p(x, z) - log 1/K sum_k q(z, u_k) / r(u_k; z)],    (z, u_1) ~ q,  u_2..u_K ~ r

    Below the ELBO of the marginal q(z), to which it tends with K. **Unbiased when** every strategy is.
    Sobolev and Vetrov 2019.
    """

    def bound(p: Program, q: Program) -> Array:
        return elbo(p, marginal(q, keep, reverse, particles, per=per))

    return bound


@family
def hvi(keep: Sequence[str], reverse: Reverse | None = None, *, per: Plates | None = None) -> Objective:
    """Hierarchical variational bound, to be maximised: `iwhvi` with one particle.

        E_{(z, u) ~ q} [log p(x, z) + log r(u; z) - log q(z, u)]

    Without a reverse program r is the guide's own distribution of u, and the bound E [log p(x, z) - log q(z | u)].
    **Unbiased when** every strategy is. Ranganath, Tran and Blei 2016.
    """
    return iwhvi(keep, reverse, 1, per=per)


@family
def sivi(keep: Sequence[str], particles: int, *, per: Plates | None = None) -> Objective:
    """Semi-implicit variational bound, to be maximised.

        E [log p(x, z) - log 1/(K + 1) sum_k q(z | u_k)],    (z, u_0) ~ q,  u_1..u_K ~ q(u)

    The density of u is never needed, so it may be as implicit as a site followed by a network.

    **Arguments**

    - `keep`: the guide's sites that are the model's.
    - `particles`: K >= 0, the number of draws of u beside the one that came with z.
    - `per`: plates over which everything is independent.

    **Unbiased when** every strategy is; tends to the ELBO of the marginal q(z) with K. Yin and Zhou 2018.
    """
    return iwhvi(keep, None, particles + 1, per=per)
