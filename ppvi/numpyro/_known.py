"""Operations on what is known, run by NumPy, beside those on what is traced, which are recorded.

JAX compiles each operation that it runs by itself, tens of milliseconds for one of each shape, and a program that runs once
runs hundreds. What is large, or was put on a device on purpose, or has an effect is JAX's all the same.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from ppvi.numpyro import _compat
from ppvi.numpyro._compat import Trace, Tracer, all_recorded, current_trace, in_trace, jaxpr_as_fun, typeof
from ppvi.numpyro._numbers import number, placed, run_of_body
from ppvi.numpyro._threefry import RULES

Operation = Callable[..., Sequence[Any]]
Items = tuple[tuple[str, Any], ...]

SMALL = 10**5
"""Numbers of an operation that is run by NumPy; JAX takes less time for more."""
PLACES = frozenset("device_put sharding_constraint reshard".split())
"""Operations that say where an array is."""
DRAWING = "random_bits", "random_fold_in", "random_gamma", "random_seed", "random_split", "threefry", "rng_"
"""What the names of operations begin with whose results are random."""


class Known(Trace):
    """What has a traced operand is of the trace around, and so is what this has no rule for."""

    def __init__(self, around: Any):
        super().__init__()
        self.around = around

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "around"), name)

    def stage_value(self, val: Any) -> Any:
        return val if isinstance(val, jax.Array) else placed(np.asarray(val), typeof(val))

    def process_primitive(self, primitive: Any, tracers: Sequence[Any], params: dict[str, Any]) -> Any:
        if _is_traced(tracers):
            return self.around.process_primitive(primitive, tracers, params)
        with in_trace(None):  # what JAX 0.12 leaves here is no trace at all
            found = _results(primitive, tracers, params)
        return found if primitive.multiple_results else found[0]

    def process_call(self, *given: Any, **how: Any) -> Any:
        return self.around.process_call(*given, **how)

    def process_custom_jvp_call(self, primitive: Any, fun: Any, jvp: Any, tracers: Sequence[Any], **how: Any) -> Any:
        if _is_traced(tracers):
            return self.around.process_custom_jvp_call(primitive, fun, jvp, tracers, **how)
        return self._plain(fun, tracers)

    def process_custom_vjp_call(
        self, primitive: Any, fun: Any, fwd: Any, bwd: Any, tracers: Sequence[Any], **how: Any
    ) -> Any:
        if _is_traced(tracers):
            return self.around.process_custom_vjp_call(primitive, fun, fwd, bwd, tracers, **how)
        return self._plain(fun, tracers)

    def _plain(self, fun: Any, values: Sequence[Any]) -> Any:
        with in_trace(self):
            return fun.call_wrapped(*values)


@contextmanager
def by_numpy() -> Iterator[None]:
    """A context in which operations on what is known are run by NumPy."""
    with in_trace(Known(current_trace())):
        yield


def _is_traced(values: Sequence[Any]) -> bool:
    return any(isinstance(x, Tracer) for x in values)


def _results(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Sequence[Any]:
    avals = tuple(map(typeof, values))
    if _is_placed(primitive, values, params) or _compat.looks_for_nans() or _size(avals) > SMALL:
        return _by_jax(primitive, params)(*values)
    if primitive.name in _compat.INLINED:
        invars = [SimpleNamespace(aval=aval) for aval in avals]
        body = _compat.body(SimpleNamespace(primitive=primitive, params=params, invars=invars))
        if body is not None and _size(body.out_avals) <= SMALL:
            with by_numpy():
                return jaxpr_as_fun(body)(*values)
    given = primitive, avals, tuple(params.items()), _compat.threefry_by_place()
    # What holds programs and functions, and with them a user's arrays, is not kept for the next of its kind.
    is_elementary = not any(map(callable, params.values())) and not any(_compat.bodies_in(params))
    try:
        return (_kept if is_elementary else _made)(*given)(*values)
    except TypeError:  # a parameter that has no hash
        return _made(*given)(*values)


def _is_placed(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> bool:
    """Whether it is said on which devices its operands or its results are."""
    if primitive.name in PLACES or any(getattr(x, "committed", False) for x in values):
        return True
    said = [*params.get("in_shardings", ()), *params.get("out_shardings", ())]
    return not all(_compat.is_unsaid(x) for x in said)


def _size(avals: Sequence[Any]) -> int:
    return sum(math.prod(getattr(x, "shape", ())) for x in avals)


def _by_jax(primitive: Any, params: dict[str, Any]) -> Operation:
    def run(*values: Any) -> Sequence[Any]:
        with in_trace(None):
            found = primitive.bind(*values, **params)
        return found if primitive.multiple_results else [found]

    return run


def _made(primitive: Any, avals: tuple[Any, ...], items: Items, by_place: bool) -> Operation:
    """An operation of arrays like these; by place as JAX's default keys draw since its version 0.5."""
    params = dict(items)
    native = _by_jax(primitive, params)
    try:
        with all_recorded(), in_trace(None):
            closed = jax.make_jaxpr(lambda *values: primitive.bind(*values, **params))(*avals)
        results = closed.out_avals
        if closed.effects or _size(results) > SMALL or any(x.weak_type and x.shape for x in results):
            return native
        if not any(name.startswith(DRAWING) for name in _compat.operations(closed.jaxpr.eqns)):
            run = run_of_body(closed)
        elif primitive.name in RULES and by_place and _compat.are_threefry([*avals, *results]):
            run = _drawn(RULES[primitive.name], params)
        else:
            return native
    except Exception:  # references to memory for one, which are no values
        return native

    def operation(*values: Any) -> Sequence[Any]:
        try:
            with np.errstate(all="ignore"):
                found = run(*map(number, values))
        except Exception:  # which JAX raises as the user knows it, if it does
            return native(*values)
        return [placed(x, aval) for x, aval in zip(found, results, strict=True)]

    return operation


_kept = functools.lru_cache(maxsize=512)(_made)


def _drawn(rule: Callable[..., Any], params: dict[str, Any]) -> Operation:
    return lambda *values: [rule(params, *values)]
