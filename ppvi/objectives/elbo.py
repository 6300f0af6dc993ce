"""The evidence lower bound."""

from __future__ import annotations

from ppvi.ops import Array
from ppvi.program import Program


def elbo(p: Program, q: Program) -> Array:
    """Evidence lower bound, to be maximised.

        E_{z ~ q} [log p(x, z) - log q(z)]  =  log p(x) - KL(q || p(z | x))

    **Unbiased when** every strategy is, for any kind of site.
    Jordan et al. 1999; Kingma and Welling 2014.
    """
    z = q.simulate()
    return p.log_density(z) - z.log_density
