"""Proximal steps: a gradient step of the energy in locations and scales, and the entropy's exact step of the scales.

The entropy of N(m, L L') is sum_i log L_ii, whose gradient has no bound: near zero a plain step of any size is too large.
Transforms such as exp keep scales positive, at the cost of what is known of the energy, which in L itself is as smooth and as
convex as the log density. The proximal map of -h log is in closed form, and positive:

    L <- L - h tril(E[V''] L),   L_ii <- (L_ii + (L_ii^2 + 4 h)^(1/2)) / 2
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ppvi._ops import Array
from ppvi.optimizers.algebra import Algebra
from ppvi.optimizers.base import Arguments, Block, Geometric
from ppvi.optimizers.bures_wasserstein import GAUSSIANS, Schedule, proximal, refuse_step_size, size_at

DECAYS, EPSILON = (0.9, 0.999), 1e-8
"""Adam's."""


@dataclass(frozen=True)
class Proximal(Geometric):
    """Proximal gradient steps of the locations and scales of Gaussian sites (Domke 2020; Domke, Gower and Garrigos 2023).

        fit(bound, key, x, optimizer=ppvi.optimizers.Proximal(0.01))

    Of w = (m, L) and the slope G of the objective in w without its part of the entropy, sum_i log L_ii, which is known exactly,

        w <- w + h G,   then   L_ii <- (L_ii + (L_ii^2 + 4 h)^(1/2)) / 2

    where h is `step_size`. `adaptive`, each entry has Adam's: G is its first moment, h / (v^(1/2) + e) with the second moment v
    its step size, and the proximal map is taken with that (Kim et al. 2023). Scales are parameters themselves, with no
    transform between, whereas Adam in unconstrained space moves their logarithms.

    **Arguments**

    - `step_size`: h; or a function from the number of steps taken to it, such as, on JAX, a schedule of optax.
    - `adaptive`: whether step sizes are Adam's, with decays 0.9 and 0.999.
    - `rest`: what moves all other parameters, as `optimizer=` of `fit`; Adam by default.

    **Right where** the objective is an evidence lower bound, such as `elbo` or `stl`, in which q's entropy has weight one.
    """

    step_size: float | Schedule = 0.01
    adaptive: bool = True
    rest: Any = None

    families: ClassVar[Mapping[str, tuple[str, ...]]] = GAUSSIANS
    how: ClassVar[str] = "by proximal steps, the entropy's exactly"

    def __post_init__(self) -> None:
        refuse_step_size("Proximal", self.step_size)

    def init(self, block: Block, at: Arguments, algebra: Algebra) -> Any:
        if not self.adaptive:
            return ()
        zeros = {name: algebra.zeros_like(x) for name, x in at.items()}
        return zeros, zeros

    def update(
        self, block: Block, at: Arguments, slope: Arguments, memory: Any, step: Array, algebra: Algebra
    ) -> tuple[Arguments, Any]:
        loc, scale = self.families[block.family]
        factor = at[scale]
        mine = algebra.eye(factor.shape[-1], factor) if block.family == "MultivariateNormal" else 1.0  # the diagonal
        energy: Arguments = {loc: slope[loc], scale: slope[scale] - mine / (factor * mine + (1 - mine))}
        step_size = size_at(self.step_size, step)
        rates: Arguments = dict.fromkeys(energy, step_size)
        if self.adaptive:
            energy, rates, memory = adam(energy, memory, step, step_size, algebra)
        moved = {name: at[name] + rates[name] * energy[name] for name in energy}
        positive = proximal(moved[scale], rates[scale], algebra)
        return moved | {scale: positive * mine + moved[scale] * (1 - mine)}, memory


def adam(
    slope: Arguments, memory: Any, step: Array, step_size: Any, algebra: Algebra
) -> tuple[Arguments, Arguments, Any]:
    """First moments, corrected for their beginning at zero, step sizes by the second ones, and both as they are (Kingma and
    Ba 2015)."""
    moments = tuple(
        {name: decay * kept[name] + (1 - decay) * slope[name] ** power for name in slope}
        for decay, power, kept in zip(DECAYS, (1, 2), memory, strict=True)
    )
    way, size = (
        {name: x / (1 - decay ** (step + 1)) for name, x in each.items()}
        for decay, each in zip(DECAYS, moments, strict=True)
    )
    return way, {name: step_size / (algebra.sqrt(x) + EPSILON) for name, x in size.items()}, moments
