"""Natural gradients: the steepest ascent where lengths are divergences between guides, and not differences of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ppvi._doors import count, number
from ppvi._ops import Array
from ppvi.optimizers.algebra import Algebra
from ppvi.optimizers.base import Arguments, Block, Geometric
from ppvi.optimizers.families import FAMILIES


@dataclass(frozen=True)
class Natural(Geometric):
    """Natural gradient steps of a guide's distributions (Amari 1998), in natural parameters:

        l <- l + step_size * F(l)^-1 grad_l objective

    In a conjugate model a step of size one leads to the exact posterior with `trust=None`; in one that is conjugate given the
    other sites, to coordinate ascent's update of the site (Hoffman et al. 2013).

    Parameters that reach the guide's sites through other code, as a network's, or that sites share, are moved by
    step_size * (F + damping)^-1 grad in unconstrained space, F estimated at one draw of the guide in every step.

    **Arguments**

    - `step_size`: between 0 and 1.
    - `decay`: step t has the size step_size / (1 + t / decay)^(3/4), which brings the noise of gradients to rest (Robbins and
      Monro 1951). None for a constant size.
    - `trust`: a step's divergence between the guide before and after is at most about so many nats, of each lane of a site,
      and of all other parameters together: steps that would be longer are shortened. None for any length.
    - `damping`: in the units of F, of unconstrained parameters.
    - `iterations`: of conjugate gradients, where there are more than 200 such parameters; of fewer, F is taken apart.
    - `rest`: what moves parameters that reach no site of the guide, as those of the model; as `optimizer=` of `fit`, which is
      Adam by default.
    """

    step_size: float = 0.1
    decay: float | None = 100.0
    trust: float | None = 0.1
    damping: float = 0.01
    iterations: int = 10
    rest: Any = None

    families: ClassVar[Mapping[str, tuple[str, ...]]] = {name: family.arguments for name, family in FAMILIES.items()}
    curved: ClassVar[bool] = True
    how: ClassVar[str] = "in natural coordinates"

    def __post_init__(self) -> None:
        number("Natural: step_size", self.step_size, above=0)
        number("Natural: damping", self.damping, least=0)
        count("Natural: iterations", self.iterations)
        if self.decay is not None:
            number("Natural: decay, in steps,", self.decay, above=0)
        if self.trust is not None:
            number("Natural: trust", self.trust, above=0)

    def update(
        self, block: Block, at: Arguments, slope: Arguments, memory: Any, step: Array, algebra: Algebra
    ) -> tuple[Arguments, Any]:
        family = FAMILIES[block.family]
        length = family.length(at, slope, algebra)
        wanted, bent = self._trusted(length, step, algebra), self.trust is not None and family.bends
        if not bent:
            limit = family.limit(at, slope, algebra) + algebra.zeros_like(length)
            wanted = algebra.where(limit > wanted, wanted, limit / 2)
        return family.moved(at, slope, wanted, bent, algebra), memory

    def along(
        self,
        fisher: Callable[[Array], Array],
        divergence: Callable[[Array], Array],
        slope: Array,
        step: Array,
        algebra: Algebra,
    ) -> Array:
        def damped(vector: Array) -> Array:
            return fisher(vector) + self.damping * vector

        if slope.shape[0] <= FEW:
            found = _solved(fisher, self.damping, slope, algebra)
        else:
            found = _conjugate(damped, slope, algebra, self.iterations)
        rate = self._trusted(algebra.sum(slope * found, -1), step, algebra)
        if (trust := self.trust) is not None:

            def shorter(rate: Array) -> Array:
                return algebra.where(divergence(rate * found) <= 2 * trust, rate, rate / 4)

            rate = algebra.repeat(TRIES, shorter, rate)
        return rate * found

    def _trusted(self, length: Array, step: Array, algebra: Algebra) -> Array:
        """The step size where the squared length of the natural gradient is so large: a step's divergence is about
        step_size^2 * length / 2."""
        slower = 1.0 if self.decay is None else algebra.exp(-POWER * algebra.log(1 + step / self.decay))
        whole = self.step_size * slower + algebra.zeros_like(length)
        if self.trust is None:
            return whole
        return algebra.minimum(whole, algebra.sqrt(2 * self.trust / algebra.maximum(length, TINY)))


FEW = 200
"""The most parameters whose Fisher matrix is factored."""
TRIES = 5
"""How often a step is cut to a quarter that would lead further than the Fisher matrix says."""
TINY = 1e-30
POWER = 0.75
"""Between 1/2 and 1, between which step sizes add up to infinity and their squares do not."""


def _solved(product: Callable[[Array], Array], damping: float, right: Array, algebra: Algebra) -> Array:
    """(F + damping)^-1 times a vector, by eigenvalues, of which rounding makes some negative."""
    matrix = algebra.columns(product, right.shape[0], right)
    values, axes = algebra.eigen((matrix + algebra.transpose(matrix)) / 2)
    along = algebra.transpose(axes) @ right[:, None] / (algebra.maximum(values, 0.0) + damping)[:, None]
    return (axes @ along)[:, 0]


def _conjugate(product: Callable[[Array], Array], right: Array, algebra: Algebra, iterations: int) -> Array:
    """So many iterations from zero (Hestenes and Stiefel 1952); none where the residual is zero."""

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        found, residual, direction = carry
        image, before = product(direction), algebra.sum(residual**2, -1)
        curvature = algebra.sum(direction * image, -1)
        rate = before / algebra.maximum(curvature, TINY)
        found, residual = found + rate * direction, residual - rate * image
        after = algebra.sum(residual**2, -1)
        return found, residual, residual + after / algebra.maximum(before, TINY) * direction

    return algebra.repeat(iterations, step, (algebra.zeros_like(right), right, right))[0]
