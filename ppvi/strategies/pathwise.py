"""Pathwise gradients: move the parameters from the distribution into the draw, and let the chain rule do the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ppvi.strategies.base import Continuation, Distribution, Draw, Site, Strategy, Terms


@dataclass(frozen=True)
class Reparam(Strategy):
    """Reparameterisation, explicit (z = g(eps, theta)) or implicit (dz/dtheta = -dF/dtheta / q), as the library has it.

        d E_q[f(z)] = E[df + f'(z) dz/dtheta]

    **Unbiased when** f is locally Lipschitz in z with an integrable constant; a jump of f in z loses its boundary term.
    Cost: one run of the rest. Kingma and Welling 2014; Rezende et al. 2014; Figurnov et al. 2018.
    """

    pathwise: ClassVar[bool] = True
    fixed_support: ClassVar[bool] = False

    def misfit(self, dist: Distribution) -> str | None:
        if dist.has_rsample:
            return None
        return f"{dist.name} has no reparameterised sampler; Reinforce() or LeaveOneOut() need none"

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        return Draw(dist.rsample(rng))

    def estimate(self, site: Site, k: Continuation) -> Terms:
        return k(site.value)
