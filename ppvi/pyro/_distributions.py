"""A Pyro distribution as strategies see it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from pyro.distributions import Delta, Rejector
from pyro.distributions.distribution import Distribution
from torch.distributions import (
    ComposeTransform,
    Transform,
    TransformedDistribution,
    biject_to,
    transform_to,
)

from ppvi.engine import distributions as engine
from ppvi.ir import Origin
from ppvi.pyro import _compat
from ppvi.pyro._compat import InverseTransform, level
from ppvi.pyro._edges import careful
from ppvi.pyro._located import code_of
from ppvi.pyro._ops import OPS
from ppvi.pyro._recipes import How, Recipe, expanded, parts
from ppvi.pyro._regions import LIBRARY, has_fixed_support, onto, peel
from ppvi.pyro._stage import Sampler, draw


class SiteDistribution(engine.SiteDistribution):
    """`ppvi.strategies.Distribution` on Pyro.

    Lanes are the batch axes with `to_event` and masks peeled off: draws are independent along all of them.
    """

    ops = OPS
    library = LIBRARY

    def __init__(self, fn: Any, baseline_input: torch.Tensor | None = None):
        self.fn = unvalidated(fn)
        self.baseline_input = baseline_input
        self.peeled = peel(self.fn)
        self.unchecked = _compat.is_unchecked(LIBRARY.unwrapped(fn))
        self.intermediates: Sequence[tuple[Transform, Any]] = []
        """Its transforms, the last first, and what `rsample` gave to each."""

    @property
    def name(self) -> str:
        return type(self.peeled).__name__

    def bounds(self) -> list[torch.Tensor]:
        return [] if has_fixed_support(type(self.peeled)) else super().bounds()

    @property
    def has_rsample(self) -> bool:
        """A sampler whose derivative needs a score beside it, as one by rejection, is none by itself."""
        return super().has_rsample and not any(map(_has_score, parts(self.peeled)))

    @property
    def undrawable(self) -> str | None:
        problems = (_undrawable(part) for part in parts(self.peeled))
        return next((problem for problem in problems if problem), None)

    def has(self, function: str) -> bool:
        try:
            getattr(self.peeled, function)(torch.full(self.lanes, 0.5))
        except NotImplementedError:
            return False
        return self.has_rsample

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        with careful():
            return super().log_prob(value)

    @property
    def log_pmf(self) -> torch.Tensor | None:
        fn = self.peeled
        return fn.logits.expand(*self.lanes, -1).movedim(-1, 0) if type(fn) is torch.distributions.Categorical else None

    def given(self, parameter: Literal["probs", "logits"]) -> torch.Tensor | None:
        fn = self.peeled
        x = _compat.categorical_in(fn).__dict__.get(parameter)
        return x if getattr(fn, _compat.PARAMETER_OF, None) is x else None

    def laid(self, x: torch.Tensor, *event: int) -> torch.Tensor:
        return x.expand((*self.lanes, *event))

    def sample(self, rng: Any) -> torch.Tensor:
        return self.inside(self._drawn(rng, lambda fn, mapped: fn.sample()).detach())

    def samples(self, rng: Any, n: int) -> torch.Tensor:
        return self.inside(self._drawn(rng, lambda fn, mapped: fn.sample((n,)).movedim(0, mapped), stacked=1).detach())

    def rsample(self, rng: Any) -> torch.Tensor:
        value = self._drawn(rng, lambda fn, mapped: fn.rsample(), detached=False)
        self.intermediates = list(remembered(self.peeled))
        return self.inside(value)

    def finfo(self, value: torch.Tensor) -> Any:
        return torch.finfo(value.dtype)

    def clamped(self, value: torch.Tensor, lower: float | None, upper: float | None) -> torch.Tensor:
        return value if lower is None and upper is None else torch.clamp(value, lower, upper)

    def parameter(self, name: str) -> torch.Tensor:
        return torch.broadcast_to(getattr(self.peeled, name), self.lanes)

    def replace(self, **parameters: torch.Tensor) -> SiteDistribution:
        fn = self.peeled
        names = [name for name in type(fn).arg_constraints if not (name == "logits" and hasattr(type(fn), "probs"))]
        other = copy.copy(self)
        SiteDistribution.__init__(other, type(fn)(**{name: getattr(fn, name) for name in names} | parameters))
        return other

    def noise(self, rng: Any, kind: str, number: int, n: int | None = None) -> torch.Tensor:
        shape = self.lanes if n is None else (n, *self.lanes)
        return draw(rng, (), Sampler(lambda key: self.standard(kind, (*key.shape, *shape))))

    def standard(self, kind: str, shape: Sequence[int]) -> torch.Tensor:
        """Draws of a standard `normal`, `exponential` or `uniform`, on the device of the distribution."""
        like = next((x for x in vars(self.peeled).values() if isinstance(x, torch.Tensor)), torch.empty(0))
        empty = torch.empty(tuple(shape), device=like.device)
        fill = {"normal": empty.normal_, "uniform": empty.uniform_, "exponential": empty.exponential_}
        return fill[kind]()

    def pick(self, rng: Any, log_weights: torch.Tensor, number: int) -> torch.Tensor:
        def one(key: torch.Tensor, log_weights: torch.Tensor) -> torch.Tensor:
            return torch.distributions.Categorical(
                logits=log_weights.movedim(key.ndim, -1), validate_args=False
            ).sample()

        return draw(rng, [log_weights.detach()], Sampler(one, [picked(log_weights)]))

    def to_real(self, values: torch.Tensor) -> torch.Tensor:
        return onto(self.peeled, biject_to).inv(values)

    def from_real(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        transform = onto(self.peeled, biject_to)
        values = transform(x)
        return values, transform.log_abs_det_jacobian(x, values)

    def _drawn(self, rng: torch.Tensor, how: How, detached: bool = True, stacked: int = 0) -> torch.Tensor:
        fn = expanded(self.peeled, self.lanes) or self.peeled
        if isinstance(fn, TransformedDistribution):
            base = SiteDistribution(fn.base_dist)
            return _transformed(fn, base.inside(base._drawn(rng, how, detached, stacked)))
        is_alone = not level() and not rng.ndim and (detached or not any(map(_lessens_variance, parts(fn))))
        if is_alone or isinstance(fn, Delta):  # of which there is nothing to draw
            return how(fn, 0)
        recipe = Recipe(fn)

        def sampler(key: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
            return recipe(how, values, key.shape)

        made = Sampler(sampler, recipe.axes(stacked) if level() else (), recipe.library)
        held = [detached or x.name in _VARIANCE_ONLY for x in recipe.ingredients]
        tensors = [x.detach() if hold else x for x, hold in zip(recipe.tensors, held, strict=True)]
        return draw(rng, tensors, made)


def _transformed(fn: TransformedDistribution, value: Any) -> Any:
    """What a distribution makes of a draw of its base."""
    if not _own_rsample(fn):
        for transform in fn.transforms:
            with code_of(Origin.SAMPLER, transform), careful():
                value = transform(value)
        return value
    drawn = copy.copy(fn)
    drawn.base_dist = cast(Any, _Drawn(value))
    with code_of(Origin.SAMPLER, fn):
        return drawn.rsample()


class _Drawn(NamedTuple):
    """A distribution that has been drawn from."""

    value: torch.Tensor

    def rsample(self, sample_shape: Any = ()) -> torch.Tensor:
        return self.value


def evaluate(
    fn: Any, value: torch.Tensor, intermediates: Sequence[tuple[Transform, torch.Tensor]]
) -> tuple[torch.Tensor | None, Exception | None]:
    """log_prob of a value, or None where its shape does not fit, and why."""
    fn, lanes = unvalidated(fn), value.shape[: value.ndim - fn.event_dim]
    for transform in () if intermediates else transforms(fn):
        # What it remembers is of the run that called it last, whose parameters may have been held constant.
        _compat.remember(transform, None, None)
    made = value
    for transform, x in intermediates:
        # The marker on a draw made another tensor of it, which the transform would otherwise have to invert.
        _compat.remember(transform, x, made)
        made = x
    shape = fn.batch_shape + fn.event_shape
    try:
        if value.shape != shape:
            torch.broadcast_shapes(value.shape, shape)
    except RuntimeError as error:
        return None, error
    with code_of(Origin.DENSITY, peel(fn)), careful():
        log_prob = fn.log_prob(value)
    return (log_prob if log_prob.shape in (fn.batch_shape, lanes) else None), None


def without_masked(fn: Any, value: torch.Tensor) -> torch.Tensor:
    """The value with a point of the support where a mask leaves it out: zero times the derivative at a NaN is no zero."""
    kept = None
    for mask, event_ndim in engine.masks(fn):
        if isinstance(mask, torch.Tensor):
            mask = mask.reshape((*mask.shape, *[1] * event_ndim))
            kept = mask if kept is None else kept & mask
    return value if kept is None or not value.is_floating_point() else torch.where(kept, value, _feasible(fn, value))


def _feasible(fn: Any, like: torch.Tensor) -> torch.Tensor:
    """A point of the support in every lane; NaN where none is known."""
    support = SiteDistribution(fn).support
    if support.kind == "integer":
        return torch.full_like(like, max(support.lower or 0.0, 0.0))
    try:
        transform = onto(peel(fn), transform_to)
    except NotImplementedError:
        return torch.full_like(like, math.nan)
    return transform(like.new_zeros(transform.inverse_shape(like.shape)))


_VARIANCE_ONLY = frozenset({"control_var"})
"""Parameters that no distribution of draws depends on: what Pyro gives for their derivative lessens the variance of others, and
is no part of the gradient, where theirs is zero."""


def _lessens_variance(fn: Any) -> bool:
    return not _VARIANCE_ONLY.isdisjoint(vars(fn))


def _has_score(fn: Any) -> bool:
    return getattr(type(fn), "score_parts", Distribution.score_parts) is not Distribution.score_parts


def _undrawable(fn: Any) -> str | None:
    """Why a distribution cannot be drawn from, and what to draw from instead."""
    cls = type(fn)
    if isinstance(fn, Rejector):
        return (
            f"{cls.__name__} draws by functions whose tensors nobody else sees; draw from a distribution that has its tensors "
            f"as attributes, such as Gamma, Beta or Dirichlet, by Reparam()"
        )
    if (
        isinstance(fn, TransformedDistribution)
        and _own_rsample(fn)
        and cls.log_prob is not TransformedDistribution.log_prob
    ):
        return (
            f"{cls.__name__} has an rsample and a log_prob of its own, which need not be of one distribution; to draw finite "
            f"values and differentiate relaxed ones, draw from OneHotCategorical or Bernoulli by StraightThrough() or "
            f"GumbelSoftmax(hard=True)"
        )
    return None


def _own_rsample(fn: TransformedDistribution) -> bool:
    return type(fn).rsample is not TransformedDistribution.rsample


def unvalidated(fn: Any) -> Any:
    """The distribution with its log_prob continued beyond the support, and without looking at values."""
    base = getattr(fn, "base_dist", None)
    inner = base if base is None else unvalidated(base)
    if inner is base and not _compat.may_check_values(fn):
        return fn
    fn = copy.copy(fn)
    if base is not None:
        fn.base_dist = inner
    if _compat.may_check_values(fn):  # not else: to_event has the attribute of its base, which is the user's own
        _compat.leave_unchecked(fn)
    return fn


def transforms(fn: Any) -> Iterator[Transform]:
    """The transforms of a distribution and of those that it is made of, which remember what they were given."""
    for part in parts(fn):
        left = list(getattr(part, "transforms", ()))
        while left:
            transform = left.pop()
            transform = transform.inv if isinstance(transform, InverseTransform) else transform
            left += getattr(transform, "parts", ())
            yield transform


def remembered(fn: Any) -> Iterator[tuple[Transform, Any]]:
    """The transforms that have made a distribution's values, the last first, and what each was given, as far as they know."""
    left, made = list(fn.transforms) if isinstance(fn, TransformedDistribution) else [], None
    while left:
        transform = left.pop()
        if isinstance(transform, ComposeTransform):
            left += transform.parts
            continue
        x, y = _compat.remembered(transform) if _compat.remembers(transform) else (None, None)
        if x is None or (made is not None and y is not made):
            return
        yield transform, x
        made = x


def picked(log_weights: torch.Tensor) -> tuple[int | None, ...]:
    """Where the axes `(K, *lanes)` lie in indices `(*lanes)`."""
    return (None, *range(log_weights.ndim - 1))
