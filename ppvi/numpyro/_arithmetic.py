"""What JAX's operations do to NumPy's arrays, for the checks, which run a program a few times and have no time to compile it.

One line per operation in a table. Numbers have the precision of JAX's, and what is too small for it is 0 as on its devices.
A key is one number, of which random bits are a hash: they are not those that JAX draws, and as random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode
from scipy import special

from ppvi.engine.algebra import ENTRYWISE

Params = Mapping[str, Any]

# Keys -----------------------------------------------------------------------------------------------------------------

KEY = np.dtype(np.uint64)
"""A key is a number of 64 bits."""
_STEP, _MIX, _MIX_AGAIN = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], KEY)


def _hash(x: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> KEY.type(30))) * _MIX
    x = (x ^ (x >> KEY.type(27))) * _MIX_AGAIN
    return x ^ (x >> KEY.type(31))


def _hashes(key: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Of each key so many hashes."""
    count = np.arange(1, 1 + int(np.prod(shape)), dtype=KEY)
    return _hash(np.asarray(key, KEY)[..., None] + _STEP * count).reshape((*np.shape(key), *shape))


def _bits(p: Params, key: Any) -> Any:
    return _hashes(_hash(key + _STEP), p["shape"]) >> KEY.type(64 - p["bit_width"])


def key_of(words: np.ndarray) -> np.ndarray:
    """The key of an array of words, `(..., words)`."""
    return (words[..., 0].astype(KEY) << KEY.type(32)) | words[..., 1]


def words_of(key: Any, count: int) -> np.ndarray:
    """The words of a key, repeated where there are to be more than two."""
    pair = np.stack([key >> KEY.type(32), key & KEY.type(0xFFFFFFFF)], -1).astype(np.uint32)
    return np.concatenate([pair] * (count // 2), -1)


def _gamma(p: Params, key: Any, alpha: Any) -> Any:
    """A gamma variable is one of alpha + 1, by its quantile, times a uniform one to the power 1 / alpha."""
    rest = np.shape(alpha)[np.ndim(key) :]
    main, power = np.moveaxis((_hashes(_hash(key), (*rest, 2)) >> KEY.type(11)) * 2.0**-53 + 2.0**-54, -1, 0)
    log = np.log(special.gammaincinv(alpha + 1.0, main)) + np.log(power) / alpha
    return log if p["log_space"] else np.exp(log)


# Places ---------------------------------------------------------------------------------------------------------------


def _places(
    indices: np.ndarray, shape: Sequence[int], sizes: Sequence[int], known: Sequence[Sequence[int]], mode: Any
) -> tuple[list[np.ndarray], np.ndarray]:
    """Of windows into an array, the places of their entries along each of its axes, and which windows are within.

    They are `(*batch, *window)`, less the axes that the window drops, or broadcast to that.

    **Arguments**

    - `known`: the axes that are dropped, those that the indices are of, those in step with axes of the batch, and these.
    """
    dropped, indexed, batching, batches = known
    batch, kept = indices.shape[:-1], [d for d in range(len(shape)) if d not in (*dropped, *batching)]
    first = (*batch, *(1 for _ in kept))
    within, places = np.ones(first, bool), []
    for d, (size, window) in enumerate(zip(shape, sizes, strict=True)):
        place = np.zeros(first, np.int64)
        if d in batching:
            axis = batches[batching.index(d)]
            place += np.arange(size).reshape([size if a == axis else 1 for a in range(len(first))])
        elif d in indexed:
            start = indices[..., indexed.index(d)].astype(np.int64).reshape(first)
            place = np.minimum(np.maximum(start, 0), size - window)
            within = within & (place == start)
        if d in kept and window > 1:
            place = place + np.arange(window).reshape([1] * len(batch) + [window if k == d else 1 for k in kept])
        places.append(place)
    within |= mode in (GatherScatterMode.CLIP, GatherScatterMode.PROMISE_IN_BOUNDS)
    return places, within


def _window_last(ndim: int, window: Sequence[int]) -> list[int]:
    """The axes in the order in which those of the window come last."""
    return [axis for axis in range(ndim) if axis not in window] + list(window)


def _gather(p: Params, x: Any, indices: Any) -> Any:
    n = p["dimension_numbers"]
    known = n.collapsed_slice_dims, n.start_index_map, n.operand_batching_dims, n.start_indices_batching_dims
    places, within = _places(indices, np.shape(x), p["slice_sizes"], known, p["mode"])
    found = np.asarray(x)[tuple(places)]
    if not within.all():
        fill = p["fill_value"]
        if fill is None:
            kinds = {"f": np.nan, "i": np.iinfo(x.dtype).min if x.dtype.kind == "i" else 0, "b": True}
            fill = kinds.get(x.dtype.kind, np.iinfo(x.dtype).max if x.dtype.kind == "u" else 0)
        found = np.where(within, found, fill)
    return np.transpose(found, np.argsort(_window_last(found.ndim, n.offset_dims)))


def _scatter(how: Callable[[np.ndarray, Any, np.ndarray], Any]) -> Callable[..., Any]:
    def scatter(p: Params, x: Any, indices: Any, updates: Any) -> Any:
        n = p["dimension_numbers"]
        known = (
            n.inserted_window_dims,
            n.scatter_dims_to_operand_dims,
            n.operand_batching_dims,
            n.scatter_indices_batching_dims,
        )
        laid = np.transpose(updates, _window_last(np.ndim(updates), n.update_window_dims))
        windows = iter(laid.shape[indices.ndim - 1 :])
        skipped = (*n.inserted_window_dims, *n.operand_batching_dims)
        sizes = [1 if d in skipped else next(windows) for d in range(np.ndim(x))]
        places, within = _places(indices, np.shape(x), sizes, known, p["mode"])
        out, (within, *places) = np.array(x), np.broadcast_arrays(within, *places)
        how(out, tuple(place[within] for place in places), laid[within])
        return out

    return scatter


def _slice(p: Params, x: Any) -> Any:
    strides = p["strides"] or (1,) * np.ndim(x)
    return x[tuple(map(slice, p["start_indices"], p["limit_indices"], strides))]


def _window(x: Any, sizes: Sequence[int], starts: Sequence[Any]) -> tuple[slice, ...]:
    begin = [int(np.clip(int(i), 0, n - size)) for i, n, size in zip(starts, np.shape(x), sizes, strict=True)]
    return tuple(slice(i, i + size) for i, size in zip(begin, sizes, strict=True))


def _update(p: Params, x: Any, update: Any, *starts: Any) -> Any:
    out = np.array(x)
    out[_window(x, np.shape(update), starts)] = update
    return out


def _pad(p: Params, x: Any, fill: Any) -> Any:
    for axis, (low, high, inner) in enumerate(p["padding_config"]):
        size = x.shape[axis]
        spread = np.full((*x.shape[:axis], size + max(size - 1, 0) * inner, *x.shape[axis + 1 :]), fill, x.dtype)
        spread[(*[slice(None)] * axis, slice(None, None, inner + 1))] = x
        widths = [(0, 0)] * axis + [(max(low, 0), max(high, 0))] + [(0, 0)] * (x.ndim - axis - 1)
        x = np.pad(spread, widths, constant_values=fill)
        cut = slice(max(-low, 0), x.shape[axis] - max(-high, 0))
        x = x[(*[slice(None)] * axis, cut)]
    return x


def _broadcast(p: Params, x: Any, *sizes: Any) -> Any:
    shape = [1] * len(p["shape"])
    for axis, size in zip(p["broadcast_dimensions"], np.shape(x), strict=True):
        shape[axis] = size
    laid = np.reshape(x, shape)
    return laid if laid.shape == tuple(p["shape"]) else np.broadcast_to(laid, p["shape"])


def _squeeze(p: Params, x: Any) -> Any:
    return np.squeeze(x, tuple(p["dimensions"]))


def _split(p: Params, x: Any) -> Any:
    return np.split(x, np.cumsum(p["sizes"])[:-1], p["axis"])


def _sort(p: Params, *xs: Any) -> Any:
    order = np.lexsort(xs[: p["num_keys"]][::-1], p["dimension"])
    return [np.take_along_axis(x, order, p["dimension"]) for x in xs]


# Numbers --------------------------------------------------------------------------------------------------------------


def _cast(p: Params, x: Any) -> Any:
    """What is too large for an integer is the largest, and NaN is 0."""
    to = np.dtype(p["new_dtype"])
    if x.dtype.kind == "f" and to.kind in "iu":
        bounds = np.iinfo(to)
        whole = np.trunc(np.nan_to_num(x.astype(float), nan=0.0, posinf=np.inf, neginf=-np.inf))
        inside = np.clip(whole, bounds.min, bounds.max - (bounds.max > 2**53) * 1024.0).astype(to)
        return np.where(whole >= bounds.max, to.type(bounds.max), inside)
    return x


def _quotient(x: Any, y: Any) -> Any:
    if x.dtype.kind == "f":
        return np.divide(x, y)
    by = np.where(y == 0, np.ones_like(y), y)
    return np.where(y == 0, np.array(-1).astype(x.dtype), x // by + ((x % by != 0) & ((x < 0) != (by < 0))))


def _remainder(x: Any, y: Any) -> Any:
    return np.fmod(x, y) if x.dtype.kind == "f" else np.where(y == 0, x, np.fmod(x, np.where(y == 0, 1, y)))


def _round(p: Params, x: Any) -> Any:
    return np.round(x) if p["rounding_method"] else np.copysign(np.floor(abs(x) + (abs(x) % 1 >= 0.5)), x)


def _select(p: Params, which: Any, *cases: Any) -> Any:
    if len(cases) == 2:
        return np.where(which, *cases[::-1])
    which = np.broadcast_to(np.clip(which, 0, len(cases) - 1), cases[0].shape).astype(int)
    return np.take_along_axis(np.stack(cases), which[None], 0)[0]


def _product(p: Params, x: Any, y: Any) -> Any:
    (cx, cy), (bx, by) = p["dimension_numbers"]
    x, y = (z if p["preferred_element_type"] is None else z.astype(p["preferred_element_type"]) for z in (x, y))
    fx, fy = ([d for d in range(z.ndim) if d not in (*c, *b)] for z, c, b in ((x, cx, bx), (y, cy, by)))
    batch, k = [x.shape[d] for d in bx], int(np.prod([x.shape[d] for d in cx]))
    left = np.transpose(x, (*bx, *fx, *cx)).reshape(*batch, int(np.prod([x.shape[d] for d in fx])), k)
    right = np.transpose(y, (*by, *cy, *fy)).reshape(*batch, k, int(np.prod([y.shape[d] for d in fy])))
    return np.matmul(left, right).reshape([*batch, *(x.shape[d] for d in fx), *(y.shape[d] for d in fy)])


def _inside(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of numbers that are finite and not 0; at ends JAX has values of its own, NaN where there is a limit."""

    def inside(p: Params, *xs: Any) -> Any:
        if any((np.isinf(x) | (x == 0)).any() for x in xs):
            raise ValueError("an end")
        return function(*xs)

    return inside


def _shifted(p: Params, x: Any, by: Any) -> Any:
    """With the first bit drawn along, which is a sign or not."""
    signed = f"i{x.dtype.itemsize}"
    return np.right_shift(x.view(signed), by.view(signed)).view(x.dtype)


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda p, x: function(x, axis=tuple(p["axes"]))


def _accumulated(function: Callable[..., Any]) -> Callable[..., Any]:
    def accumulate(p: Params, x: Any) -> Any:
        way = (*[slice(None)] * p["axis"], slice(None, None, -1 if p["reverse"] else 1))
        return function(x[way], axis=p["axis"])[way]

    return accumulate


def _cholesky(p: Params, x: Any) -> Any:
    try:
        return np.linalg.cholesky(x)
    except np.linalg.LinAlgError:
        if x.ndim == 2:
            return np.full_like(x, np.nan)
        return np.stack([_cholesky(p, each) for each in x])


def _entrywise(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda p, *xs: function(*xs)


MOVES: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda p, *xs: np.concatenate(xs, p["dimension"]),
    "dynamic_slice": lambda p, x, *starts: x[_window(x, p["slice_sizes"], starts)],
    "dynamic_update_slice": _update,
    "expand_dims": lambda p, x: np.expand_dims(x, tuple(p["dimensions"])),
    "gather": _gather,
    "pad": _pad,
    "reshape": lambda p, x, *sizes: np.reshape(x, p["new_sizes"]),
    "rev": lambda p, x: np.flip(x, tuple(p["dimensions"])),
    "scatter": _scatter(lambda out, places, x: out.__setitem__(places, x)),
    "select_n": _select,
    "slice": _slice,
    "sort": _sort,
    "split": _split,
    "squeeze": _squeeze,
    "stack": lambda p, *xs: np.stack(xs, p["axis"]),
    "transpose": lambda p, x: np.transpose(x, p["permutation"]),
    **dict.fromkeys(("ppvi_site", "ppvi_note"), lambda p, x, *others: x),
    **dict.fromkeys(("stop_gradient", "copy", "copy_p", "random_clone"), lambda p, x: x),
    "optimization_barrier": lambda p, *xs: xs,
}
"""Operations that make no new numbers."""

COMPUTES: dict[str, Callable[..., Any]] = {
    **{name: _entrywise(function) for name, function in ENTRYWISE.items()},
    "and": lambda p, x, y: np.bitwise_and(x, y),
    "argmax": lambda p, x: np.argmax(x, p["axes"][0]),
    "argmin": lambda p, x: np.argmin(x, p["axes"][0]),
    "bitcast_convert_type": lambda p, x: np.asarray(x).view(p["new_dtype"]),
    "cholesky": _cholesky,
    "convert_element_type": _cast,
    "cumlogsumexp": _accumulated(np.logaddexp.accumulate),
    "cummax": _accumulated(np.maximum.accumulate),
    "cummin": _accumulated(np.minimum.accumulate),
    "cumprod": _accumulated(np.cumprod),
    "cumsum": _accumulated(np.cumsum),
    "digamma": _inside(special.digamma),
    "div": lambda p, x, y: _quotient(x, y),
    "dot_general": _product,
    "igamma": _inside(special.gammainc),
    "igammac": _inside(special.gammaincc),
    "integer_pow": lambda p, x: x * x if p["y"] == 2 else np.power(x, p["y"]),
    "iota": lambda p, *sizes: _broadcast(
        {"shape": p["shape"], "broadcast_dimensions": (p["dimension"],)}, np.arange(p["shape"][p["dimension"]])
    ),
    "not": lambda p, x: np.invert(x),
    "or": lambda p, x, y: np.bitwise_or(x, y),
    "polygamma": _inside(special.polygamma),
    "random_bits": _bits,
    "random_fold_in": lambda p, key, data: _hash(key ^ _hash(data.astype(KEY) + _STEP)),
    "random_gamma": _gamma,
    "random_seed": lambda p, seed: _hash(seed.astype(KEY)),
    "random_split": lambda p, key: _hashes(key, p["shape"]),
    "random_wrap": lambda p, words: key_of(words),
    "reduce_and": _reduced(np.bitwise_and.reduce),
    "reduce_max": _reduced(np.max),
    "reduce_min": _reduced(np.min),
    "reduce_or": _reduced(np.bitwise_or.reduce),
    "reduce_prod": _reduced(np.prod),
    "reduce_sum": _reduced(np.sum),
    "regularized_incomplete_beta": lambda p, a, b, x: special.betainc(a, b, x),
    "rem": lambda p, x, y: _remainder(x, y),
    "round": _round,
    "scatter-add": _scatter(np.add.at),
    "scatter-mul": _scatter(np.multiply.at),
    "shift_left": lambda p, x, y: np.left_shift(x, y),
    "shift_right_arithmetic": _shifted,
    "shift_right_logical": lambda p, x, y: np.right_shift(
        x.view(f"u{x.dtype.itemsize}"), y.view(f"u{y.dtype.itemsize}")
    ),
    "xor": lambda p, x, y: np.bitwise_xor(x, y),
    "bessel_i0e": lambda p, x: special.i0e(x),
    "bessel_i1e": lambda p, x: special.i1e(x),
}

SHRINKS = frozenset(
    """convert_element_type cumprod div dot_general erfc exp exp2 igamma igammac integer_pow logistic mul pow reduce_prod
    regularized_incomplete_beta square""".split()
)
"""Operations that may make a number too small for the precision of others that are not."""
