"""What a session asks of a site's distribution, beyond what strategies ask."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from ppvi.compiler.ir import Support
from ppvi.ops import Array
from ppvi.strategies import Distribution


class SiteDistribution(Distribution):
    """A site's distribution as a session sees it; an engine adds its draws, its supports and its names for things."""

    fn: Any
    """The framework's distribution."""
    peeled: Any
    """The same without masks, and with every axis of independence in its batch shape."""
    intermediates: Sequence[Any]
    """What `rsample` computed on the way, for a log_prob that need not invert transforms."""

    @property
    def lanes(self) -> tuple[int, ...]:
        return tuple(self.peeled.batch_shape)

    @property
    def has_rsample(self) -> bool:
        return self.fn.has_rsample

    @property
    def has_enumerate_support(self) -> bool:
        try:  # a Binomial whose counts differ between lanes, for one, says that it has, and then refuses
            return self.peeled.has_enumerate_support and self.peeled.enumerate_support(expand=False) is not None
        except NotImplementedError:
            return False

    def log_prob(self, value: Array) -> Array:
        known = self.log_pmf if value is self.__dict__.get("whole") else None
        return self.peeled.log_prob(value) if known is None else known

    @functools.cached_property
    def whole(self) -> Array:
        """Its support."""
        return self.peeled.enumerate_support(expand=True)

    def enumerate_support(self) -> Array:
        return self.whole

    @property
    def log_pmf(self) -> Array | None:
        """Of a categorical distribution the log_probs of the whole support, which are its logits and need no lookup."""
        raise NotImplementedError

    def cdf(self, value: Array) -> Array:
        return self.peeled.cdf(value)

    def icdf(self, quantiles: Array) -> Array:
        return self.peeled.icdf(quantiles)

    @property
    def is_real(self) -> bool:
        return self.support.kind == "real" and not self.peeled.event_shape

    @property
    def support(self) -> Support:
        """Where it has mass, as far as is known while staging; a bound that is an array is left to the checks."""
        raise NotImplementedError

    def bounds(self) -> list[Array]:
        """Arrays among the bounds of the support, the lower first."""
        raise NotImplementedError


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
