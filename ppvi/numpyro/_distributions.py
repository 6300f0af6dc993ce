"""A NumPyro distribution as strategies see it."""

from __future__ import annotations

import copy
import functools
import inspect
import zlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from numpyro.distributions import CategoricalLogits, CategoricalProbs
from numpyro.distributions.distribution import ExpandedDistribution, Independent, MaskedDistribution

from ppvi.engine import distributions as engine
from ppvi.numpyro import _compat
from ppvi.numpyro._edges import careful
from ppvi.numpyro._ops import OPS
from ppvi.numpyro._regions import LIBRARY, base, onto

UNKNOWN = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What is raised where a number is asked for that is traced."""


class SiteDistribution(engine.SiteDistribution):
    """`ppvi.strategies.Distribution` on NumPyro.

    Lanes are the batch axes with `to_event` and masks peeled off: draws are independent along all of them, and a mask
    is a matter of the objective's cost, not of how the value was drawn.
    """

    ops = OPS
    library = LIBRARY

    def __init__(self, fn: dist.Distribution, baseline_input: jax.Array | None = None):
        self.fn = fn
        self.baseline_input = baseline_input
        self.peeled = peel(fn)
        self.unchecked = _compat.is_unchecked(base(fn))
        self.intermediates = []

    @property
    def name(self) -> str:
        return type(base(self.fn)).__name__

    @property
    def takes_integers(self) -> bool:
        return isinstance(base(self.fn), CategoricalLogits | CategoricalProbs)

    def has(self, function: str) -> bool:
        try:  # some need a package that is not there
            jax.eval_shape(getattr(self.peeled, function), jnp.full(self.lanes, 0.5))
        except (NotImplementedError, ImportError):
            return False
        return self.has_rsample

    @property
    def has_enumerate_support(self) -> bool:
        try:
            return super().has_enumerate_support
        except UNKNOWN:  # of a Binomial whose counts are an argument
            return False

    @functools.cached_property
    def whole(self) -> Any:
        return _compat.support_of(self.peeled)

    def sample(self, rng: jax.Array) -> Any:
        with careful():
            return self.inside(_detached(self.peeled).sample(rng))

    def samples(self, rng: jax.Array, n: int) -> Any:
        with careful():
            return self.inside(_detached(self.peeled).sample(rng, (n,)))

    def log_prob(self, value: Any) -> Any:
        with careful():
            return super().log_prob(value)

    @property
    def log_pmf(self) -> Any:
        fn = base(self.fn)
        if not isinstance(fn, CategoricalLogits | CategoricalProbs):
            return None
        logits: Any = fn.logits
        if isinstance(fn, CategoricalLogits):
            logits = jax.nn.log_softmax(logits)
        return jnp.moveaxis(jnp.broadcast_to(logits, (*self.lanes, logits.shape[-1])), -1, 0)

    def given(self, parameter: Literal["probs", "logits"]) -> Any:
        fn = base(self.fn)
        return getattr(fn, parameter) if type(fn).__name__.endswith(parameter.title()) else None

    def laid(self, x: Any, *event: int) -> jax.Array:
        return jnp.broadcast_to(x, (*self.lanes, *event))

    def rsample(self, rng: jax.Array) -> Any:
        with careful():
            value, between = self.fn(rng_key=rng, sample_intermediates=True)
        takes = inspect.signature(type(base(self.fn)).log_prob).parameters
        self.intermediates = (
            between if "intermediates" in takes else []
        )  # none for a FoldedDistribution, which has its own
        return self.inside(jnp.asarray(value))  # a point may be a number of Python's

    def finfo(self, value: jax.Array) -> Any:
        return jnp.finfo(value.dtype)

    def clamped(self, value: jax.Array, lower: float | None, upper: float | None) -> jax.Array:
        return jnp.clip(value, lower, upper)

    def parameter(self, name: str) -> jax.Array:
        return jnp.broadcast_to(getattr(base(self.fn), name), self.lanes)

    def replace(self, **parameters: jax.Array) -> SiteDistribution:
        fn = base(self.fn)
        known = {name: jnp.broadcast_to(getattr(fn, name), self._shape(fn, name)) for name in fn.arg_constraints}
        other = copy.copy(self)
        SiteDistribution.__init__(other, type(fn)(**known | parameters))
        return other

    def _shape(self, fn: dist.Distribution, name: str) -> tuple[int, ...]:
        own = getattr(fn.arg_constraints[name], "event_dim", 0)
        value = getattr(fn, name)
        return (*self.lanes, *jnp.shape(value)[jnp.ndim(value) - own :])

    def to_real(self, values: jax.Array) -> jax.Array:
        return self._transform.inv(values)

    def from_real(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = self._transform(x)
        return values, self._transform.log_abs_det_jacobian(x, values)

    @property
    def _transform(self) -> Any:
        """From the line to the support, without a gradient."""
        return jax.tree.map(lax.stop_gradient, onto(self.peeled))

    def noise(self, rng: jax.Array, kind: str, number: int, n: int | None = None) -> jax.Array:
        sampler = {"normal": jax.random.normal, "exponential": jax.random.exponential, "uniform": jax.random.uniform}
        return sampler[kind](_numbered(rng, kind, number), self.lanes if n is None else (n, *self.lanes))

    def pick(self, rng: jax.Array, log_weights: jax.Array, number: int) -> jax.Array:
        return jax.random.categorical(_numbered(rng, "pick", number), lax.stop_gradient(log_weights), axis=0)


def _numbered(rng: jax.Array, kind: str, number: int) -> jax.Array:
    return jax.random.fold_in(rng, zlib.crc32(f"{kind} {number}".encode()))


def peel(fn: dist.Distribution) -> dist.Distribution:
    """The distribution without masks, and with every axis of independence in its batch shape."""
    if isinstance(fn, MaskedDistribution | Independent):
        return peel(fn.base_dist)
    if isinstance(fn, ExpandedDistribution):
        inner = peel(fn.base_dist)
        events = inner.batch_shape[len(fn.base_dist.batch_shape) :]
        return inner.expand((*fn.batch_shape, *events))
    return fn


def unvalidated(fn: dist.Distribution) -> dist.Distribution:
    """The distribution with its log_prob continued beyond the support."""
    fn = copy.copy(fn)
    _compat.leave_unchecked(fn)
    if isinstance(fn, MaskedDistribution | Independent | ExpandedDistribution):
        fn.base_dist = unvalidated(fn.base_dist)
    return fn


def _detached(fn: dist.Distribution) -> dist.Distribution:
    # Stopping the parameters and not the draw keeps samplers with loops out of reverse mode.
    return jax.tree.map(lambda x: lax.stop_gradient(x) if isinstance(x, jax.Array) else x, fn)


def check_same_batch(log_prob: Any, value: Any, fn: dist.Distribution) -> bool:
    """Whether log_prob has the batch shape of its distribution or of its value, and no third."""
    return jnp.shape(log_prob) in (fn.batch_shape, jnp.shape(value)[: jnp.ndim(value) - fn.event_dim])
