"""Equations run by NumPy: those with a body as their bodies say, those without a rule by JAX.

JAX compiles each operation that it runs by itself, which for a run or two of a program takes a thousand times as long as the
numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from ppvi.numpyro import _compat
from ppvi.numpyro._arithmetic import COMPUTES, KEY, MOVES, SHRINKS, key_of, words_of
from ppvi.numpyro._compat import ClosedJaxpr, Literal

Run = Callable[..., Sequence[Any]]

LONGEST = 1000
"""Rounds of a loop, and of the loops in it, that are run by NumPy; JAX takes less time for more."""


def number(x: Any) -> np.ndarray:
    """An array as NumPy has it; a key is a number."""
    if _is_key(getattr(x, "dtype", None)):
        return np.asarray(key_of(np.asarray(jax.random.key_data(x))))
    if type(x) is np.ndarray and x.dtype == KEY:
        return x
    return _without_smallest(np.asarray(x, jnp.result_type(x)))


def drawing(seed: int) -> AbstractContextManager[np.ndarray]:
    """A key."""
    return nullcontext(np.array(seed, KEY))


def like(x: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    """An array, of the type of another."""
    return np.asarray(x, None if other is None else other.dtype)


def run_of(eqn: Any, wanted: Collection[int] | None = None) -> Run:
    """What an equation of a jaxpr returns, of NumPy's arrays; of a loop these outputs alone, where only they are wanted."""
    name, native = eqn.primitive.name, _by_jax(eqn)
    body = _scan(eqn, wanted) if name == "scan" else _BODIES[name](eqn) if name in _BODIES else None
    if body is not None:
        return body
    rule = MOVES.get(name) or COMPUTES.get(name)
    if rule is None:
        return native
    given, made = ([_dtype(var) for var in side] for side in (eqn.invars, eqn.outvars))
    if _compat.applies(eqn) or any(dtype.kind == "V" for dtype in (*given, *made)):  # precisions that NumPy has not
        return native
    finish = _without_smallest if name in SHRINKS and made[0].kind == "f" else lambda x: x

    def run(*values: Any) -> Sequence[Any]:
        try:
            found = rule(eqn.params, *map(_as_given, values, given))
        except (TypeError, ValueError, IndexError):  # an empty array for one
            return native(*values)
        results = found if eqn.primitive.multiple_results else (found,)
        if any(np.shape(x) != var.aval.shape for x, var in zip(results, eqn.outvars, strict=True)):
            return native(*values)
        return [finish(np.asarray(x, dtype)) for x, dtype in zip(results, made, strict=True)]

    return run


def placed(x: np.ndarray, aval: Any) -> jax.Array:
    """A number as JAX's, without the program of a copy that `jnp.asarray` compiles for each shape."""
    if _is_key(aval.dtype):
        impl, shape = _compat.key_kind(aval.dtype)
        return jax.random.wrap_key_data(jax.device_put(np.array(words_of(x, *shape))), impl=impl)
    return jax.device_put(x.item() if aval.weak_type else np.array(x, aval.dtype))


def _as_given(x: Any, dtype: np.dtype) -> np.ndarray:
    if type(x) is np.ndarray:
        return x
    return number(x) if dtype is KEY else _without_smallest(np.asarray(x, dtype))


def _without_smallest(x: np.ndarray) -> np.ndarray:
    """What is too small to be a normal number is 0, as XLA has it; of halves nothing is, which it computes in float32."""
    if x.dtype.kind != "f" or x.dtype.itemsize < 4:
        return x
    small = np.abs(x) < _smallest(x.dtype)
    return np.where(small, np.copysign(x.dtype.type(0), x), x) if small.any() else x


@functools.cache
def _smallest(dtype: np.dtype) -> Any:
    return dtype.type(jnp.finfo(dtype).tiny)


def _is_key(dtype: Any) -> bool:
    return not (dtype is None or isinstance(dtype, np.dtype)) and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _dtype(var: Any) -> np.dtype:
    dtype = getattr(var.aval, "dtype", np.dtype(bool))
    return dtype if isinstance(dtype, np.dtype) else KEY if _is_key(dtype) else np.dtype(dtype)


def _by_jax(eqn: Any) -> Run:
    def run(*values: Any) -> Sequence[Any]:
        given = [placed(number(x), var.aval) for x, var in zip(values, eqn.invars, strict=True)]
        return list(map(number, _compat.bind(eqn, given)))

    return run


# Bodies ---------------------------------------------------------------------------------------------------------------


def run_of_body(body: ClosedJaxpr, wanted: Collection[int] | None = None) -> Run:
    """What a body returns, one operation after the other; None for what is not wanted."""
    constants = dict(zip(body.jaxpr.constvars, map(number, body.consts), strict=True))
    places = range(len(body.jaxpr.outvars)) if wanted is None else wanted

    def atoms(variables: Sequence[Any]) -> list[Any]:
        """The numbers of those that have them before it is run."""
        return [_as_given(x.val, _dtype(x)) if isinstance(x, Literal) else constants.get(x, x) for x in variables]

    steps = []
    for eqn in _behind(body.jaxpr.eqns, [body.jaxpr.outvars[i] for i in places]):
        step, inputs = run_of(eqn), atoms(eqn.invars)
        if not eqn.effects and all(isinstance(x, np.ndarray) for x in inputs):
            constants |= zip(eqn.outvars, map(np.asarray, step(*inputs)), strict=True)
        else:
            steps.append((step, inputs, eqn.outvars))
    results = atoms(body.jaxpr.outvars)

    def run(*values: Any) -> Sequence[Any]:
        known = dict(zip(body.jaxpr.invars, values, strict=True))

        def read(x: Any) -> Any:
            return x if isinstance(x, np.ndarray) else known[x]

        for step, inputs, outputs in steps:
            known.update(zip(outputs, step(*map(read, inputs)), strict=True))
        return [read(x) if i in places else None for i, x in enumerate(results)]

    return run


def _behind(eqns: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    """The equations that these need."""
    needed, found = {x for x in outputs if not isinstance(x, Literal)}, []
    for eqn in reversed(eqns):
        if not needed.isdisjoint(eqn.outvars):
            found.append(eqn)
            needed.update(x for x in eqn.invars if not isinstance(x, Literal))
    return found[::-1]


_LEFT: ContextVar[Iterator[int] | None] = ContextVar("left", default=None)


@contextmanager
def _rounds() -> Iterator[Iterator[int]]:
    """The rounds that NumPy may still run of the outermost loop around and of all loops in it together."""
    outer = _LEFT.get()
    token = _LEFT.set(iter(range(LONGEST)) if outer is None else outer)
    try:
        yield cast(Iterator[int], _LEFT.get())
    finally:
        _LEFT.reset(token)


def _scan(eqn: Any, wanted: Collection[int] | None) -> Run | None:
    inner, fixed, carried, how = loop = _compat.scan(eqn)
    start, length, native = loop.start, how["length"], _by_jax(eqn)
    if not 0 < length <= LONGEST:
        return None
    body = run_of_body(inner, None if wanted is None else {*range(carried), *wanted})

    def run(*values: Any) -> Sequence[Any]:
        state, over = values[fixed:start], [np.asarray(x) for x in values[start:]]
        stacked: list[Any] = [None] * length
        with _rounds() as left:
            for i in reversed(range(length)) if how["reverse"] else range(length):
                if next(left, None) is None:
                    return native(*values)
                out = body(*values[:fixed], *state, *(np.asarray(x[i]) for x in over))
                state, stacked[i] = out[:carried], out[carried:]
        return [*state, *(None if ys[0] is None else np.stack(ys) for ys in zip(*stacked, strict=True))]

    return run


def _while(eqn: Any) -> Run:
    (condition, tested, inner, count), native = _compat.while_loop(eqn), _by_jax(eqn)
    test, body, fixed = run_of_body(condition), run_of_body(inner), tested + count

    def run(*values: Any) -> Sequence[Any]:
        state = values[fixed:]
        with _rounds() as left:
            while (goes_on := np.asarray(test(*values[:tested], *state)[0])).any():
                if next(left, None) is None:
                    return native(*values[:fixed], *state)  # from where it is
                after = body(*values[tested:fixed], *state)
                state = [_chosen(goes_on, x, y) for x, y in zip(after, state, strict=True)] if goes_on.ndim else after
        return state

    return run


def _chosen(lanes: np.ndarray, x: Any, y: Any) -> np.ndarray:
    """x in the lanes of a loop that go on, and y where it has ended."""
    return np.where(lanes.reshape(lanes.shape + (1,) * (np.ndim(x) - lanes.ndim)), x, y)


def _cond(eqn: Any) -> Run:
    branches = _compat.branches(eqn)
    taken = functools.cache(lambda which: run_of_body(branches[which]))

    def run(which: Any, *values: Any) -> Sequence[Any]:
        return taken(min(max(int(which), 0), len(branches) - 1))(*values)

    return run


def _once(eqn: Any) -> Run | None:
    body = _compat.body(eqn)
    return None if body is None else run_of_body(body)


_BODIES: dict[str, Callable[[Any], Run | None]] = {
    "while": _while,
    "cond": _cond,
    "random_unwrap": lambda eqn: lambda key: [words_of(number(key), eqn.outvars[0].aval.shape[-1])],
    **dict.fromkeys(_compat.ONE_RUN, _once),
}
"""How to run what has no single rule."""
