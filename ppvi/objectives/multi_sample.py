"""Bounds from several draws of the guide."""

from __future__ import annotations

from collections.abc import Callable

from ppvi.errors import ProgramError
from ppvi.ops import Array
from ppvi.program import Program, logmeanexp, replicate


def iwelbo(particles: int) -> Callable[[Program, Program], Array]:
    """Importance-weighted evidence lower bound, to be maximised.

        E_{z_1..z_K ~ q} [log 1/K sum_k w_k],    w_k = p(x, z_k) / q(z_k)

    Between the ELBO (K = 1) and log p(x), and non-decreasing in K.

    **Arguments**

    - `particles`: K, at least 1.

    **Unbiased when** every strategy is, for any kind of site; score-function sites are credited with the whole bound.
    Burda, Grosse and Salakhutdinov 2016.
    """

    def importance_weighted_elbo(p: Program, q: Program) -> Array:
        def log_weight() -> Array:
            z = q.simulate()
            return p.log_density(z) - z.log_density

        return logmeanexp(replicate(particles, log_weight))

    return importance_weighted_elbo


def renyi(alpha: float, particles: int) -> Callable[[Program, Program], Array]:
    """Variational Renyi bound by K draws, to be maximised.

        1 / (1 - alpha)  E_{z_1..z_K ~ q} [log 1/K sum_k w_k^(1 - alpha)],    w_k = p(x, z_k) / q(z_k)

    alpha = 0 is the importance-weighted ELBO; alpha -> 1 tends to the ELBO. The bound with finitely many particles is
    the quantity estimated, and its gradient is its own: for K -> infinity it tends to the Renyi bound itself.

    **Arguments**

    - `alpha`: order, any real but 1 (where the bound is `elbo`).
    - `particles`: K, at least 1.

    **Unbiased when** every strategy is, for the K-particle bound above. Li and Turner 2016.
    """
    if alpha == 1:
        raise ProgramError("renyi: order alpha = 1 is the ELBO itself; use `ppvi.objectives.elbo`.")

    def renyi_bound(p: Program, q: Program) -> Array:
        def log_weight() -> Array:
            z = q.simulate()
            return p.log_density(z) - z.log_density

        return logmeanexp((1 - alpha) * replicate(particles, log_weight)) / (1 - alpha)

    return renyi_bound
