"""What a session asks of a site's distribution, beyond what strategies ask."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from ppvi._ops import Array
from ppvi.engine.regions import Library, Region, region_of
from ppvi.ir import Masses, Support
from ppvi.strategies import Distribution
from ppvi.strategies.zero import log_weights


class NoDensityError(Exception):
    """A distribution has no density at a value that is not what its sampler has just made: a transform has no inverse."""


class SiteDistribution(Distribution):
    """A site's distribution as a session sees it; an engine adds its draws, its supports and its names for things."""

    library: Library
    """What is asked of the framework to find where it has mass."""
    fn: Any
    """The framework's distribution."""
    peeled: Any
    """The same without masks, and with every axis of independence in its batch shape."""
    unchecked: bool
    """Whether the user has said by `validate_args=False` that values may be outside of its support."""
    intermediates: Sequence[Any]
    """What `rsample` computed on the way, for a log_prob that need not invert transforms."""

    @property
    def lanes(self) -> tuple[int, ...]:
        return tuple(self.peeled.batch_shape)

    @property
    def has_rsample(self) -> bool:
        return self.fn.has_rsample

    @property
    def undrawable(self) -> str | None:
        """Why it cannot be drawn from and what could, or None where it can."""
        return None

    @property
    def takes_integers(self) -> bool:
        """Whether its density is of integers, whose type is one of integers."""
        return False

    @property
    def has_enumerate_support(self) -> bool:
        try:  # a Binomial whose counts differ between lanes, for one, says that it has, and then refuses
            return self.peeled.has_enumerate_support and self.peeled.enumerate_support(expand=False) is not None
        except NotImplementedError:
            return False

    def log_prob(self, value: Array) -> Array:
        known = self.log_pmf if value is self.__dict__.get("whole") else None
        try:
            return self.peeled.log_prob(value) if known is None else known
        except (NotImplementedError, KeyError) as error:  # of a transform of somebody's
            raise NoDensityError(str(error)) from error

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

    def given(self, parameter: Literal["probs", "logits"]) -> Array | None:
        """What a finite distribution is given by, `(*batch)` or `(*batch, K)`; None where that is something else."""
        raise NotImplementedError

    def laid(self, x: Array, *event: int) -> Array:
        """A parameter of so many event axes, `(*lanes, *event)`."""
        raise NotImplementedError

    @property
    def family(self) -> str:
        """Its name, whatever it is given by."""
        return self.name.removesuffix("Probs").removesuffix("Logits")

    def masses(self) -> tuple[Masses | None, list[Array]]:
        """Numbers that say which of a few values are possible, and what they are; none for other distributions."""
        if self.family == "Binomial" and (p := self.given("probs")) is not None:
            return "count probs", [
                self.ops.moveaxis(self.ops.stack([self.laid(p), self.parameter("total_count")]), 0, -1)
            ]
        if self.family not in ("Bernoulli", "Categorical", "OneHotCategorical"):
            return None, []
        for parameter, of_values, of_coin in _GIVEN:
            x = self.given(parameter)
            if x is not None and self.family == "Bernoulli":
                return of_coin, [self.laid(x)]
            if x is not None:
                return of_values, [self.laid(x, x.shape[-1])]
        return None, []

    @property
    def is_given_by_probabilities(self) -> bool:
        """Whether the probability of each value is a function of probabilities that it is given by."""
        return self.given("probs") is not None and self.family in MASSES

    def probabilities(self) -> Array:
        masses, given = MASSES.get(self.family), self.given("probs")
        if masses is None or given is None:
            return self.ops.exp(self.log_prob(self.whole))
        return masses(self, given)

    def log_weights(self) -> Array:
        if not self.is_given_by_probabilities:
            return self.log_prob(self.whole)
        return log_weights(self.ops, self.probabilities())

    def weights(self) -> tuple[Array, bool]:
        """The probability of each value, or the logarithm where it is given by such, `(*lanes, K)` with one entry along lanes
        that are all alike; and whether it is the probability."""
        ops, is_probability = self.ops, self.is_given_by_probabilities
        given = self.given("probs" if is_probability else "logits")
        if given is not None and self.family in ("Categorical", "OneHotCategorical"):
            found = given if is_probability else given - ops.logsumexp(given, -1)[..., None]
        elif given is not None and self.family == "Bernoulli" and is_probability:
            found = ops.moveaxis(ops.stack([1 - given, given]), 0, -1)
        else:
            found = ops.moveaxis(self.probabilities() if is_probability else self.log_prob(self.whole), 0, -1)
        return ops.reshape(found, (*[1] * (1 + len(self.lanes) - len(found.shape)), *found.shape)), is_probability

    def cdf(self, value: Array) -> Array:
        return self.peeled.cdf(value)

    def icdf(self, quantiles: Array) -> Array:
        return self.peeled.icdf(quantiles)

    @property
    def is_real(self) -> bool:
        return self.support.kind == "real" and not self.peeled.event_shape and not self.has_atom

    @property
    def has_atom(self) -> bool:
        """Whether an end of the support has a probability, as zero does where it is inflated or behind a hurdle."""
        return self.name.startswith(("Hurdle", "ZeroInflated"))

    @functools.cached_property
    def region(self) -> Region:
        """Where it has mass."""
        return region_of(self.peeled, self.library)

    @property
    def support(self) -> Support:
        """Where it has mass, as far as is known while staging; a bound that is an array is left to the checks."""
        return self.region.support

    def bounds(self) -> list[Array]:
        """The arrays that the support is given by, the lower end first."""
        return self.region.bounds

    def inside(self, value: Array) -> Array:
        """A draw, moved to the nearest number inside of the support where rounding has put it on an end, or outside.

        There a density may be infinite, or 0. A draw of a Gamma of small shape underflows to 0, one of a Beta rounds to 1.
        """
        if self.has_atom:
            return value
        support = self.support
        if support.name == "simplex":
            return self.clamped(value, float(self.finfo(value).tiny), None)
        if support.kind != "real" or (support.lower, support.upper) == (-math.inf, math.inf):
            return value
        info = self.finfo(value)
        lower, upper = (_inner(end, sign, info) for end, sign in ((support.lower, 1), (support.upper, -1)))
        return self.clamped(value, lower, upper)

    def finfo(self, value: Array) -> Any:
        """The limits of an array's numbers."""
        raise NotImplementedError

    def clamped(self, value: Array, lower: float | None, upper: float | None) -> Array:
        raise NotImplementedError


_GIVEN: tuple[tuple[Literal["probs", "logits"], Masses, Masses], ...] = (
    ("probs", "probs", "coin probs"),
    ("logits", "logits", "coin logits"),
)


def _inner(end: float | None, sign: int, info: Any) -> float | None:
    """A number inside of an end of a support, and near it; None where the end is an array.

    Its reciprocal is one too, and so is a thousand of these, as a derivative of its logarithm may be.
    """
    if end is None:
        return None
    if math.isinf(end):
        return -sign / least(info)
    return end + sign * (abs(end) * float(info.eps) / (1 + (sign * end > 0)) if end else least(info))


def least(info: Any) -> float:
    """A number next to 0 for the draws of a floating-point type; half precision has none to spare."""
    return float(info.tiny) * (2**10 if info.tiny < info.eps**4 else 1)


def _coin(dist: SiteDistribution, p: Array) -> Array:
    p = dist.laid(p)
    return dist.ops.stack([1 - p, p])


def _die(dist: SiteDistribution, p: Array) -> Array:
    return dist.ops.moveaxis(dist.laid(p, p.shape[-1]), -1, 0)


def _coins(dist: SiteDistribution, p: Array) -> Array:
    """n! / k! (n - k)! p^k (1 - p)^(n - k), each a product of numbers that has all derivatives, where p is 0 as well."""
    p, n = dist.laid(p), len(dist.whole) - 1
    return dist.ops.stack([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


MASSES: dict[str, Callable[[SiteDistribution, Array], Array]] = {
    "Bernoulli": _coin, "Categorical": _die, "OneHotCategorical": _die, "Binomial": _coins,
}  # fmt: skip
"""The probability of each value of the support, `(K, *lanes)`, as a function of what a distribution is given by."""

_TAILS = (
    "Uniform Beta Delta".split(),
    "Normal MultivariateNormal HalfNormal LowRankMultivariateNormal TruncatedNormal Bernoulli Categorical".split(),
    "Laplace Exponential Gamma Logistic Gumbel HalfLaplace Chi2 Poisson Geometric".split(),
    "StudentT Cauchy HalfCauchy LogNormal Pareto InverseGamma MultivariateStudentT".split(),
)
"""Distributions by the weight of their tails."""


def tails(name: str) -> int | None:
    """How heavy a distribution's tails are, as `ppvi.ir.Density` has it."""
    return next((weight for weight, names in enumerate(_TAILS) if name in names), None)


def masks(fn: Any) -> Iterator[tuple[Any, int]]:
    """The masks of a distribution, and how many axes of its values each has not.

    A mask has the batch axes of what it masks, and `to_event` around it may have made events of them.
    """
    while hasattr(fn, "base_dist") and not hasattr(fn, "transforms"):
        if hasattr(fn, "_mask"):
            yield fn._mask, len(fn.event_shape)
        fn = fn.base_dist


def uncovered(gaps: np.ndarray, fn: Any, known: Callable[[Any], np.ndarray | None]) -> np.ndarray:
    """Which events of a distribution have gaps in them that no mask covers, `(*batch)`.

    **Arguments**

    - `gaps`: which entries of the value are, `(*batch, *event)`.
    - `known`: a mask as an array, or None where it is not there yet: then it may cover anything.
    """
    for mask, event_ndim in masks(fn):
        array = known(mask)
        if array is None:
            return np.zeros(())
        gaps = gaps & array.reshape((*array.shape, *[1] * event_ndim))
    return np.asarray(gaps.any(axis=tuple(range(-len(fn.event_shape), 0))))
