"""Regions: where a distribution has mass, with the arrays among its ends.

    support(f(X)) = f(support(X))

What a library declares of a transformed distribution is the codomain of its last transform, wherever its base has mass. A
monotone function of one number takes ends to ends, and an end of its domain to one of its codomain. Of another function the
image is known where its base has mass on the whole domain; elsewhere it may move with all that the two are given by.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from ppvi._ops import Array, Ops
from ppvi.ir import POINT, UNKNOWN, Support

End = Any
"""An end of an interval: a number that is known while staging, or an array."""


@dataclass(frozen=True)
class Region:
    """A support, whose ends may be arrays."""

    name: str
    kind: Literal["real", "integer", "other"] = "other"
    lower: End = None
    upper: End = None
    others: tuple[Array, ...] = ()
    """Further arrays that it moves with."""
    jumps: bool = False
    """Whether the density is known to jump at an end, as that of a LogNormal does not."""

    @property
    def support(self) -> Support:
        """What is known while staging."""
        lower, upper = (x if isinstance(x, float) else None for x in (self.lower, self.upper))
        return Support(self.name, self.kind, lower, upper, self.jumps)

    @property
    def bounds(self) -> list[Array]:
        """The arrays that it is given by, the lower end first."""
        return [x for x in (self.lower, self.upper, *self.others) if x is not None and not isinstance(x, float)]

    def is_same(self, other: Region) -> bool:
        """Whether it is known while staging to be another."""
        if self.bounds or other.bounds or UNKNOWN in (self.name, other.name):
            return False
        if self.kind == "other":
            return self.name == other.name
        return (self.kind, self.lower, self.upper) == (other.kind, other.lower, other.upper)


class Library(Protocol):
    """What differs between the frameworks' distributions and transforms, whose attributes have the same names."""

    @property
    def ops(self) -> Ops: ...
    # The distribution without what changes no value: masks, repetitions, reinterpreted axes.
    def unwrapped(self, fn: Any) -> Any: ...
    def constraint(self, fn: Any) -> Any: ...  # what it declares of its values, or None
    def number(self, x: Any) -> End: ...  # an end, as a number where it is one
    def declared(self, constraint: Any) -> Region: ...  # what a constraint allows
    def is_image(self, fn: Any) -> bool: ...  # whether it is transformed, and declares the codomain of that
    # A transform of a number, as a number where nothing else has a part in it.
    def applied(self, transform: Any, x: End) -> End: ...
    def arrays(self, transform: Any) -> list[Array]: ...  # the arrays that a transform is given by
    # Positive where a function of one number increases, negative where it decreases; None where it may do both.
    def sign(self, transform: Any) -> End | None: ...


def region_of(fn: Any, library: Library) -> Region:
    """Where a distribution has mass."""
    fn = library.unwrapped(fn)
    base = getattr(fn, "base_dist", None)
    if type(fn).__name__ == "Delta":
        return Region(POINT, others=tuple(x for x in (library.number(fn.v),) if not isinstance(x, float)))
    if library.is_image(fn):
        return functools.reduce(
            lambda region, step: _image(region, step, library), steps(fn.transforms), region_of(base, library)
        )
    if mixed := components(fn):
        return _union([region_of(part, library) for part in mixed])
    constraint = library.constraint(fn)
    if constraint is None:  # a class of somebody's own, which does not say
        return Region(f"support of {type(fn).__name__}")
    if base is not None and constraint is library.constraint(base):
        return region_of(base, library)
    return replace(library.declared(constraint), jumps=type(fn).__name__.startswith(JUMPING))


JUMPING = (
    "Uniform", "LogUniform", "Exponential", "HalfNormal", "HalfCauchy", "Pareto", "GeneralizedPareto",
    "Truncated", "LeftTruncated", "RightTruncated", "TwoSidedTruncated",
)  # fmt: skip
"""How the names begin of distributions whose densities jump at an end of their supports."""


def steps(transforms: Sequence[Any]) -> Iterator[Any]:
    """The transforms that are made of no others, in the order in which they are applied."""
    for transform in transforms:
        inner: Any = getattr(transform, "_inv", None) if type(transform).__name__ == "_InverseTransform" else None
        if hasattr(transform, "base_transform"):
            yield from steps([transform.base_transform])
        elif hasattr(transform, "parts"):
            yield from steps(transform.parts)
        elif hasattr(inner, "base_transform"):
            yield from steps([inner.base_transform.inv])
        elif hasattr(inner, "parts"):
            yield from steps([part.inv for part in reversed(inner.parts)])
        else:
            yield transform


def components(fn: Any) -> list[Any]:
    """The distributions of a mixture."""
    names = ("component_distribution", "component0", "component1")
    return [*getattr(fn, "component_distributions", ()), *(getattr(fn, name) for name in names if hasattr(fn, name))]


def _union(regions: Sequence[Region]) -> Region:
    """The union of the components' regions. Where they differ, the density of a mixture jumps inside of it."""
    first = regions[0]
    if all(first.is_same(other) for other in regions):
        return first
    others = tuple(x for region in regions for x in region.bounds)
    return Region(UNKNOWN, others=others, jumps=any(region.jumps for region in regions))


def _image(region: Region, step: Any, library: Library) -> Region:
    """What a transform makes of a region."""
    if is_affine(step):
        domain = codomain = LINE
    else:
        domain, codomain = library.declared(step.domain), library.declared(step.codomain)
    if domain.is_same(region):
        return codomain
    sign = None
    if {region.kind, domain.kind, codomain.kind} == {"real"}:
        sign = library.number(step.scale) if is_affine(step) else library.sign(step)
    if sign is None:
        return Region(UNKNOWN, others=(*region.bounds, *library.arrays(step)), jumps=region.jumps)
    codomain = replace(codomain, jumps=region.jumps)
    low, high = (region.lower, domain.lower), (region.upper, domain.upper)
    rising, falling = (
        [_end(step, *end, to, library) for end, to in zip(ends, (codomain.lower, codomain.upper), strict=True)]
        for ends in ((low, high), (high, low))
    )
    if isinstance(sign, float):
        return replace(codomain, **dict(zip(("lower", "upper"), rising if sign > 0 else falling, strict=True)))
    lower, upper = (_where(sign > 0, x, y, library.ops) for x, y in zip(rising, falling, strict=True))
    return replace(codomain, lower=lower, upper=upper)


def _end(step: Any, end: End, of_domain: End, of_codomain: End, library: Library) -> End:
    """What a monotone transform makes of an end, which may be that of its domain."""
    if isinstance(end, float) and isinstance(of_domain, float) and end == of_domain:
        return of_codomain
    if isinstance(end, float):
        return _moved(step, end, library) if is_affine(step) else library.applied(step, end)
    made = step.loc + step.scale * end if is_affine(step) else library.applied(step, end)
    return _where(end == of_domain, of_codomain, made, library.ops)


def _moved(step: Any, end: float, library: Library) -> End:
    """An end under an affine transform: a product with zero depends on no factor."""
    return library.number(step.loc if end == 0 else step.loc + step.scale * end)


def _where(condition: Any, x: End, y: End, ops: Ops) -> End:
    """A choice between two ends, which is none where they are the same."""
    if x is y or (isinstance(x, float) and isinstance(y, float) and x == y):
        return x
    return ops.where(condition, *(ops.array(end) if isinstance(end, float) else end for end in (x, y)))


def is_affine(step: Any) -> bool:
    return type(step).__name__ == "AffineTransform"


LINE = Region("real", "real", -math.inf, math.inf)
