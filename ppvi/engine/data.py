"""What data are as arrays: tables, lists and arrays of NumPy; and what is wrong with those that hold no numbers.

A program gets its arguments as they are: it may read a table by the names of its columns. Where it fails on them and there are
arrays to put in their place, it runs with these, so that `x @ slopes` is right for a table of numbers too. Libraries of tables
are known by what their objects have, and never imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from ppvi._doors import described, first_of
from ppvi._ops import Array
from ppvi.engine.arguments import Programs, name_of
from ppvi.engine.protocol import Programs as Engine


class UnfitError(Exception):
    """Something is no array of numbers: what it is, and what to do instead."""

    def __init__(self, what: str, instead: str = "pass an array of numbers"):
        super().__init__(f"{what}: {instead}")
        self.what = what
        self.instead = instead


PLAIN = (bool, int, float)

_TEXTS = "texts", "pass numbers, such as the codes that np.unique(x, return_inverse=True) gives"
_DATES = "dates", "pass numbers, such as days since the first"
_OBJECTS = "objects", "pass an array of numbers, such as x.astype(float)"

OTHERS = {
    "U": _TEXTS, "S": _TEXTS, "T": _TEXTS, "M": _DATES, "O": _OBJECTS,
    "m": ("lengths of time", "pass numbers, such as x / np.timedelta64(1, 'D')"),
    "V": ("records", "pass one of its fields, such as x['name']"),
    "c": ("complex numbers", "pass their real and imaginary parts"),
}  # fmt: skip
"""Kinds of NumPy's types that are no real numbers: of what they are, and what to do instead."""


def as_array(engine: Engine[Any, Any], x: Any, exactly: bool = True) -> Array:
    """The framework's array of the real numbers in something, in its own precision where that is NumPy's and not `exactly`.

    **Raises** `UnfitError` if it holds others, or none.
    """
    dtype = getattr(x, "dtype", None)
    if dtype is not None and "complex" in str(dtype):
        raise UnfitError(f"{described(x)}", OTHERS["c"][1])
    if isinstance(x, list | tuple | range):
        return _of_list(engine, x, exactly)
    if hasattr(x, "toarray"):
        raise UnfitError(described(x), "pass a dense array of it")
    if is_table(x):
        found = np.stack([_of_column(name, column) for name, column in columns(x)], -1)
    elif type(x) in PLAIN or (dtype is not None and is_of_framework(x)):
        return engine.array(x)
    elif hasattr(x, "__array__"):
        found = _plain(x)
    else:
        raise UnfitError(f"the text {described(x)}" if isinstance(x, str | bytes) else described(x))
    kept = found.dtype.kind != "f" or (exactly and isinstance(x, np.ndarray | np.generic))
    return engine.array(found) if kept else engine.ops.array(found)


def is_table(x: Any) -> bool:
    """Whether it has columns, as tables of pandas and polars have."""
    return hasattr(x, "columns") and hasattr(x, "__array__")


def columns(table: Any) -> Iterator[tuple[Any, Any]]:
    return iter(table.items()) if hasattr(table, "items") else ((name, table[name]) for name in table.columns)


def is_of_framework(x: Any) -> bool:
    """Whether it is an array of a framework, or of a class made of one, or stands for one."""
    homes = {cls.__module__.partition(".")[0] for cls in type(x).__mro__}
    return not homes.isdisjoint(("jax", "jaxlib", "torch")) or hasattr(x, "__jax_array__")


def _of_column(name: Any, column: Any) -> np.ndarray:
    try:
        return _plain(column)
    except UnfitError as error:
        raise UnfitError(f"a table, whose column {name!r} is {error.what}", error.instead) from None


def _of_list(engine: Engine[Any, Any], x: Sequence[Any], exactly: bool) -> Array:
    if all(type(entry) in PLAIN for entry in x):
        found = np.asarray(x)
        if found.dtype.kind == "O":
            raise UnfitError(f"{described(x)}, with an int of more than 64 bits", "pass an array of floats")
        return engine.ops.array(found) if found.dtype.kind == "f" else engine.array(found)
    entries = []
    for i, entry in enumerate(x):
        try:
            entries.append(as_array(engine, entry, exactly))
        except UnfitError as error:
            raise UnfitError(f"{described(x)}, whose entry {i} is {error.what}", error.instead) from None
    shapes = sorted({tuple(entry.shape) for entry in entries})
    if len(shapes) > 1:
        raise UnfitError(
            f"{described(x)}, whose entries have different lengths (shapes {shapes[0]} and {shapes[1]})",
            "pass one array, padded, with a mask",
        )
    return engine.ops.stack(entries)


def _plain(x: Any) -> np.ndarray:
    """The real numbers of an array or of a column, as NumPy has them."""
    if np.ma.is_masked(x):
        raise UnfitError(
            f"{described(x)}, {int(np.ma.getmaskarray(x).sum())} of whose entries are masked",
            "pass x.filled(0.0), and the mask for itself, for obs_mask= or a mask of the site",
        )
    kind = getattr(getattr(x, "dtype", None), "kind", None)
    if str(getattr(x, "dtype", "")).startswith(("category", "Categorical", "Enum")):
        raise UnfitError(f"{described(x)}", "pass the codes of the categories, such as x.cat.codes.to_numpy()")
    try:
        found = np.array(x)  # a copy, which may be written to
        if found.dtype.kind == "O" and kind is not None and kind in "iuf":  # of which some are missing
            found = x.to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError):
        raise UnfitError(described(x)) from None
    if found.dtype.kind in OTHERS:
        of, instead = OTHERS[_kind_of(found)]
        raise UnfitError(f"{described(x)}, of {of}", instead)
    return found


def _kind_of(x: np.ndarray) -> str:
    """By which its entries are called: of objects by the first that is there."""
    if x.dtype.kind != "O":
        return x.dtype.kind
    first = next((entry for entry in x.flat if entry is not None and type(entry) is not float), None)
    return "U" if isinstance(first, str) else "M" if hasattr(first, "isoformat") else "O"


def computes(fn: Any) -> bool:
    """Whether a program has turned out to compute with its arguments as with arrays."""
    return _COMPUTING.get(id(fn)) is fn


def has_computed(fn: Any) -> None:
    """Told of a program that has; some that nobody can refer to weakly turn out to do so each time."""
    with suppress(TypeError):
        _COMPUTING[id(fn)] = fn


_COMPUTING: WeakValueDictionary[int, Any] = WeakValueDictionary()
"""By identity, for not all programs can be hashed."""

# Arguments ----------------------------------------------------------------------------------------------------------------


def in_arrays(
    engine: Engine[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Arguments with arrays in place of tables, of lists of numbers and of what else is no array of the framework; None where
    there is nothing to put in another's place."""
    changed = False

    def taken(x: Any) -> Any:
        nonlocal changed
        if isinstance(x, dict):
            return {key: taken(value) for key, value in x.items()}
        if type(x) in PLAIN or is_of_framework(x) or not (isinstance(x, list | tuple) or hasattr(x, "__array__")):
            return x
        try:
            found = as_array(engine, x, exactly=False)
        except UnfitError:
            return type(x)(map(taken, x)) if type(x) in (list, tuple) else x
        changed = True
        return found

    found = tuple(map(taken, args)), {name: taken(x) for name, x in kwargs.items()}
    return found if changed else None


def unfit(
    engine: Engine[Any, Any], fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str | None:
    """What is said of the first argument with which nobody can compute, if there is one: an array that is not of numbers, or an
    empty one, or what is no array, number, text or object of the user's own."""
    for name, leaf in leaves_of([fn], args, kwargs):
        try:
            if _is_suspect(leaf):
                as_array(engine, leaf)
        except UnfitError as error:
            return f"argument {name} is {error.what}: {error.instead}"
        if 0 in getattr(leaf, "shape", ()):
            return f"argument {name} is empty, {described(leaf)}: leave it out, or pass rows"
        if str(getattr(leaf, "device", "")) == "meta":
            return f"argument {name} is on the meta device, where there are no numbers: pass a tensor that has some"
    return None


def said_of(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], most: int = 4) -> str:
    """What the arguments of a program are, the first of many, in a few words each."""
    given = [*enumerate(args), *kwargs.items()]
    return first_of([f"{name_of([fn], isinstance(at, str), at)}, {described(x)}" for at, x in given], most, "; ")


def leaves_of(programs: Programs, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is in the dicts and lists of arguments, by the names of these."""
    for place, x in [*enumerate(args), *kwargs.items()]:
        name = name_of(programs, isinstance(place, str), place)
        yield from ((f"{name}{step}", leaf) for step, leaf in _leaves(x))


def mapped(x: Any, function: Callable[[Any], Any]) -> Any:
    """Dicts and lists with a function of all that is in them."""
    if type(x) is dict:
        return {key: mapped(value, function) for key, value in x.items()}
    return type(x)(mapped(value, function) for value in x) if type(x) in (list, tuple) else function(x)


def _leaves(x: Any, step: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(x, dict):
        for key, value in x.items():
            yield from _leaves(value, f"{step}[{key!r}]")
    elif isinstance(x, list | tuple) and not all(isinstance(entry, bool | int | float | str) for entry in x):
        for i, value in enumerate(x):
            yield from _leaves(value, f"{step}[{i}]")
    else:
        yield step, x


def _is_suspect(x: Any) -> bool:
    """Whether it is for computing with, if for anything."""
    known = type(x).__module__.startswith(("datetime", "xarray", "pandas", "scipy.sparse", "torch.utils.data"))
    return known or hasattr(x, "__array__") or isinstance(x, list | tuple | set)
