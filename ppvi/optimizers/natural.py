"""Natural gradients: the steepest ascent where lengths are divergences between guides, and not differences of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ppvi._doors import number
from ppvi._ops import Array
from ppvi.optimizers.algebra import Algebra
from ppvi.optimizers.base import Arguments, Block, Geometric
from ppvi.optimizers.families import FAMILIES


@dataclass(frozen=True)
class Natural(Geometric):
    """Natural gradient steps of a guide's distributions (Amari 1998), in natural parameters:

        l <- l + step_size * F(l)^-1 grad_l objective

    In a conjugate model a step of size one leads to the exact posterior; in one that is conjugate given the other sites, to
    coordinate ascent's update of the site (Hoffman et al. 2013).

    **Arguments**

    - `step_size`: between 0 and 1.
    - `rest`: what moves parameters that are no distribution's own; as `optimizer=` of `fit`, which is Adam by default.
    """

    step_size: float = 0.1
    rest: Any = None

    families: ClassVar[Mapping[str, tuple[str, ...]]] = {name: family.arguments for name, family in FAMILIES.items()}

    def __post_init__(self) -> None:
        number("Natural: step_size", self.step_size, above=0)

    def update(
        self, block: Block, at: Arguments, slope: Arguments, memory: Any, step: Array, algebra: Algebra
    ) -> tuple[Arguments, Any]:
        family = FAMILIES[block.family]
        limit = family.limit(at, slope, algebra) + algebra.zeros_like(family.length(at, slope, algebra))
        rate = algebra.where(limit > self.step_size, self.step_size, limit / 2)
        return family.moved(at, slope, rate, algebra), memory
