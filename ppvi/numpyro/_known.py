"""Operations on what is known, run by NumPy, beside those on what is traced, which are recorded.

JAX compiles each operation that it runs by itself, tens of milliseconds for one of each shape, and a program that runs once
runs hundreds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import jax
import numpy as np

from ppvi.numpyro import _compat
from ppvi.numpyro._compat import Jaxpr, Trace, Tracer, all_recorded, current_trace, in_trace, jaxpr_as_fun, typeof
from ppvi.numpyro._numbers import number, placed, run_of_body
from ppvi.numpyro._threefry import RULES

Operation = Callable[..., Sequence[Any]]
T = TypeVar("T")

SMALL = 10**5
"""Numbers of an operation that is run by NumPy; JAX takes less time for more."""
KEPT = 1000
"""Constants of an operation that is kept for the next of its kind."""


class Known(Trace):
    """What has a traced operand is of the trace around."""

    def __init__(self, around: Any):
        super().__init__()
        self.around = around

    def stage_value(self, val: Any) -> Any:
        return val if isinstance(val, jax.Array) else placed(np.asarray(val), typeof(val))

    def process_primitive(self, primitive: Any, tracers: Sequence[Any], params: dict[str, Any]) -> Any:
        if _is_traced(tracers):
            return self.around.process_primitive(primitive, tracers, params)
        found = _operation(primitive, tuple(map(typeof, tracers)), params)(*tracers)
        return found if primitive.multiple_results else found[0]

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


def once(run: Callable[..., T], given: Any) -> T:
    """What a function of arrays returns this one time: by NumPy where they are small, and else as one program."""
    if sum(np.size(x) for x in jax.tree.leaves(given)) > SMALL:
        return jax.jit(run, compiler_options=_compat.once())(given)
    with by_numpy():
        return run(given)


def _is_traced(values: Sequence[Any]) -> bool:
    return any(isinstance(x, Tracer) for x in values)


def _operation(primitive: Any, avals: tuple[Any, ...], params: dict[str, Any]) -> Operation:
    constants = (x for param in params.values() for x in getattr(param, "consts", ()))
    if sum(map(np.size, constants)) <= KEPT:  # and else what is kept would keep them
        with suppress(TypeError):  # parameters that have no hash
            return _kept(primitive, avals, tuple(params.items()))
    return _made(primitive, avals, tuple(params.items()))


def _made(primitive: Any, avals: tuple[Any, ...], params: tuple[tuple[str, Any], ...]) -> Operation:
    """An operation of arrays like these."""

    def native(*values: Any) -> Sequence[Any]:
        with in_trace(None):
            found = primitive.bind(*values, **dict(params))
        return found if primitive.multiple_results else [found]

    with all_recorded(), in_trace(None):
        closed = jax.make_jaxpr(lambda *values: primitive.bind(*values, **dict(params)))(*avals)
    results = closed.out_avals
    if closed.effects or sum(math.prod(x.shape) for x in (*avals, *results)) > SMALL:
        return native
    if any(x.weak_type and x.shape for x in results):
        return native
    if _draws(closed.jaxpr):
        inside = _compat.body(closed.eqns[0]) if primitive.name in _compat.INLINED else None
        if inside is not None:
            return by_numpy()(jaxpr_as_fun(inside))
        if primitive.name not in RULES or not _compat.are_threefry([*avals, *results]):
            return native
        rule, how = RULES[primitive.name], dict(params)

        def run(*values: Any) -> Sequence[Any]:
            return [rule(how, *values)]
    else:
        run = run_of_body(closed)

    def operation(*values: Any) -> Sequence[Any]:
        try:
            with np.errstate(all="ignore"):
                found = run(*map(number, values))
        except Exception:  # which JAX raises as the user knows it, if it does
            return native(*values)
        return [placed(x, aval) for x, aval in zip(found, results, strict=True)]

    return operation


def _draws(jaxpr: Jaxpr) -> bool:
    """Whether there are random numbers in it."""
    return any(
        eqn.primitive.name.startswith(DRAWING) or any(map(_draws, _compat.bodies_in(eqn.params))) for eqn in jaxpr.eqns
    )


DRAWING = "random_bits", "random_fold_in", "random_gamma", "random_seed", "random_split", "threefry", "rng_"
"""What the names of operations begin with whose results are random."""

_kept = functools.lru_cache(maxsize=4096)(_made)
