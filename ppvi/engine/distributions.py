"""What a session asks of a site's distribution, beyond what strategies ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ppvi.compiler.ir import Support
from ppvi.ops import Array
from ppvi.strategies import Distribution


class SiteDistribution(Distribution, Protocol):
    """A site's distribution as a session sees it."""

    @property
    def lanes(self) -> tuple[int, ...]: ...

    @property
    def intermediates(self) -> Sequence[Any]:
        """What `rsample` computed on the way, for a log_prob that need not invert transforms."""
        ...

    @property
    def support(self) -> Support:
        """Where it has mass, as far as is known while staging; a bound that is an array is left to the checks."""
        ...

    def bounds(self) -> list[Array]:
        """Arrays among the bounds of the support, the lower first."""
        ...


_TAILS = (
    "Uniform Beta Delta".split(),
    "Normal MultivariateNormal HalfNormal LowRankMultivariateNormal TruncatedNormal Bernoulli Categorical".split(),
    "Laplace Exponential Gamma Logistic Gumbel HalfLaplace Chi2 Poisson Geometric".split(),
    "StudentT Cauchy HalfCauchy LogNormal Pareto InverseGamma MultivariateStudentT".split(),
)
"""Distributions by the weight of their tails."""


def tails(name: str) -> int | None:
    """How heavy a distribution's tails are, as `ppvi.compiler.ir.Density` has it."""
    return next((weight for weight, names in enumerate(_TAILS) if name in names), None)
