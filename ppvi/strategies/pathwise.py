"""Pathwise gradients: move the parameters from the distribution into the draw, and let the chain rule do the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ppvi._doors import count, described, number
from ppvi._ops import Array, Ops
from ppvi.errors import StrategyError
from ppvi.strategies.alternatives import OneByOne
from ppvi.strategies.base import Continuation, Distribution, Draw, Site, Strategy, Terms


@dataclass(frozen=True)
class Reparam(Strategy):
    """Reparameterisation, explicit (z = g(eps, theta)) or implicit (dz/dtheta = -dF/dtheta / q), as the library has it.

        d E_q[f(z)] = E[df + f'(z) dz/dtheta]

    **Unbiased when** f is locally Lipschitz in z with an integrable constant; a jump of f in z loses its boundary term.
    Cost: one run of the rest. Kingma and Welling 2014; Rezende et al. 2014; Figurnov et al. 2018.
    """

    route: ClassVar[Literal["credit", "path", "both"]] = "path"
    fixed_support: ClassVar[bool] = False

    @property
    def to_all_orders(self) -> bool:
        return True

    def misfit(self, dist: Distribution) -> str | None:
        if dist.has_rsample:
            return None
        return f"{dist.name} has no reparameterised sampler; Reinforce() or LeaveOneOut() need none"

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        return Draw(dist.rsample(rng))


class Averaged(Strategy):
    """The average of pathwise estimates at several quantiles, each by itself uniform."""

    n: int
    route: ClassVar[Literal["credit", "path", "both"]] = "both"
    fixed_support: ClassVar[bool] = False

    @property
    def to_all_orders(self) -> bool:
        return True

    def misfit(self, dist: Distribution) -> str | None:
        if dist.has("icdf"):
            return None
        return f"{dist.name} has no inverse of its distribution function, which {self} needs; Reparam() needs none"

    def quantiles(self, dist: Distribution, rng: Any) -> Array:
        """`(n, *lanes)`"""
        raise NotImplementedError

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        values = dist.icdf(self.quantiles(dist, rng))
        return Draw(values[0], values=values)

    def estimate(self, site: Site, k: Continuation) -> Terms:
        return k.each(site.values).total() * (1 / self.n)

    def runs(self, alternatives: int, coupled: int) -> int:
        return self.n


@dataclass(frozen=True)
class Stratified(Averaged):
    """The pathwise estimator averaged over n draws, one from each of n slices of equal probability, in random order.

        d E_q[f(z)] = E[1/n sum_i d f(F^-1(u_i))],    u_i = (order_i + v_i) / n,  v uniform

    F is the cumulative distribution function; each lane has an order of its own, as in Latin hypercube sampling.

    **Arguments**

    - `n`: number of draws, at least 2.

    **Unbiased when** f is locally Lipschitz, as for `Reparam`. Cost: n runs of the rest. McKay, Beckman and Conover 1979.
    """

    n: int = 2

    def __post_init__(self) -> None:
        count("Stratified: n", self.n, 2, StrategyError)

    def quantiles(self, dist: Distribution, rng: Any) -> Array:
        order = dist.ops.argsort(dist.noise(rng, "uniform", 0, n=self.n), 0)
        return (order + dist.noise(rng, "uniform", 1, n=self.n)) / self.n


@dataclass(frozen=True)
class Antithetic(Averaged):
    """The pathwise estimator averaged over a draw and its mirror image.

        d E_q[f(z)] = E[1/2 (d f(F^-1(u)) + d f(F^-1(1 - u)))],    u uniform

    For f monotone in z this has less variance than two independent draws.

    **Unbiased when** f is locally Lipschitz, as for `Reparam`. Cost: two runs of the rest. Hammersley and Morton 1956.
    """

    n: int = field(default=2, init=False, repr=False)

    def quantiles(self, dist: Distribution, rng: Any) -> Array:
        u = dist.noise(rng, "uniform", 0)
        return dist.ops.stack([u, 1 - u])


@dataclass(frozen=True)
class BoundaryReparam(OneByOne):
    """Reparameterisation of an objective that jumps where an affine function of the lanes crosses a threshold.

        d E_q[f(z)] = E[df + f'(z) dz - sum_surfaces sum_i (f(c_i+) - f(c_i-)) dF_i(c_i)]

    where c_i is the value of lane i, the other lanes at their draws, at which the surface is crossed; f(c_i+) and f(c_i-)
    are the rest on either side of it, and F_i is the lane's cumulative distribution function.

    **Arguments**

    - `surfaces`: each a threshold for every lane by itself, or a pair: the weights of the lanes of a one-dimensional site, and
      the value of their weighted sum where the objective jumps.
    - `gap`: how far from the surface, relative to the scale of c, its two sides are evaluated.

    **Unbiased when** the jumps of f in z are all among the surfaces and f is locally Lipschitz between them, up to a term
    of the order of the gap. Cost: one run of the rest and two plain evaluations for each surface and coupled lane.
    Lee, Yu and Yang 2018.
    """

    surfaces: tuple[float | tuple[tuple[float, ...], float], ...]
    gap: float = 1e-5
    route: ClassVar[Literal["credit", "path", "both"]] = "both"
    assumes: ClassVar[str] = "the objective jumps in the site on the surfaces that are named, and nowhere else."

    @property
    def needs_continuity(self) -> bool:
        return False  # beyond its surfaces it does

    def __post_init__(self) -> None:
        if not isinstance(self.surfaces, tuple) or not self.surfaces:
            raise StrategyError(
                f"BoundaryReparam: surfaces must be a tuple of at least one, such as (0.5,), not {described(self.surfaces)}."
            )
        number("BoundaryReparam: the gap", self.gap, above=0, error=StrategyError)

    def misfit(self, dist: Distribution) -> str | None:
        if dist.has("cdf"):
            return None
        return f"{dist.name} has no reparameterised sampler with a known distribution function, which {self} needs"

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        ops, z = dist.ops, dist.rsample(rng)
        values, weights = [], []
        for surface in self.surfaces:
            c = ops.stop_gradient(_crossing(ops, surface, z))
            gap, probability = self.gap * (1 + abs(c)), dist.cdf(c)
            values += [c + gap, c - gap]
            weights += [-probability, probability]
        return Draw(z, values=ops.stack(values), weights=ops.stack(weights))


def _crossing(ops: Ops, surface: float | tuple[tuple[float, ...], float], z: Array) -> Array:
    """For each lane the value at which the surface is crossed, the other lanes at theirs."""
    if not isinstance(surface, tuple):
        return surface + 0 * z
    normal, threshold = surface
    if len(z.shape) != 1 or len(normal) != z.shape[0] or 0 in normal:
        raise StrategyError(
            f"BoundaryReparam: a surface has {len(normal)} weights, which must be as many as the lanes of the site, of shape "
            f"{tuple(z.shape)}, and none zero."
        )
    along = sum(weight * z[i] for i, weight in enumerate(normal))
    return z + (threshold - along) / ops.stack([weight + 0 * z[0] for weight in normal])
