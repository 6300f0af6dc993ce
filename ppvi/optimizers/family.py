"""Exponential families: how far a step in natural parameters may go, and where it leads.

With natural parameters l and mean parameters m of q, F dl = dm: the natural gradient in l is the ordinary gradient in m
(Khan and Nielsen 2018, section 3), so that no Fisher matrix is inverted where m is at hand. A step l + rate * slope_m is taken
in a family's own arguments, as these see it, without differences of large numbers.
"""

from __future__ import annotations

import math
from typing import Protocol

from ppvi._ops import Array
from ppvi.optimizers.algebra import Algebra
from ppvi.optimizers.base import Arguments


class Family(Protocol):
    """One parametrisation of an exponential family. Lanes are the leading axes of everything."""

    @property
    def arguments(self) -> tuple[str, ...]: ...

    @property
    def bends(self) -> bool:
        """Whether `moved` knows how to bend, and then takes steps of any size."""
        ...

    def length(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array:
        """slope' F^-1 slope, by lane: the squared length of the natural gradient, twice the divergence of a small unit step."""
        ...

    def limit(self, at: Arguments, slope: Arguments, algebra: Algebra) -> Array | float:
        """The step sizes below which a step, taken in a straight line, stays inside the space, by lane."""
        ...

    def moved(self, at: Arguments, slope: Arguments, rate: Array, bent: bool, algebra: Algebra) -> Arguments:
        """The arguments after a step of these sizes, by lane.

        **Arguments**

        - `bent`: whether precisions that would fall far leave the straight line; if not, sizes are below the limit.
        """
        ...


def below(decrease: Array, algebra: Algebra) -> Array:
    """The step sizes r for which 1 - r * decrease is positive."""
    falls = decrease > 0
    return algebra.where(falls, 1 / algebra.where(falls, decrease, 1.0), math.inf)


def above_zero(at: Array, direction: Array, algebra: Algebra) -> Array:
    """The step sizes r for which at + r * direction is positive, where at is."""
    return below(-direction / at, algebra)


TINY = 1e-30
"""What is divided by instead of zero, by which the numerator is zero too."""
