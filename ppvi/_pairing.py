"""Which variables of two posteriors are one: by name and shape, whoever numbers entries from 1 or keeps them as scalars.

Two variables of one name are one array if their shapes agree. Scalars whose names end in numbers, such as Stan's `beta[1,2]`
or `beta.1.2`, are the entries of an array, numbered from 1 or from 0 as the least of them says; where the other side has that
array, or its entries too, the two are one. Nothing is guessed: what does not fit is refused, and what only one side has is
said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ppvi.errors import ProgramError

Posterior = Mapping[str, Any]
"""Name -> draws, `(chain, draw, *shape)`."""

INDEXED = re.compile(r"(?P<base>.+?)(?:(?P<dots>(?:\.\d+)+)|(?P<brackets>(?:\[\d+(?:, *\d+)*\])+))")
"""A name and the place of an entry, as in `beta[1,2]`, `beta[1][2]` or `beta.1.2`."""


class Pairs(NamedTuple):
    """What two posteriors have in common, `(chain, draw, *shape)`, and the names that only one of them has."""

    common: dict[str, tuple[Any, Any]]
    only_fit: tuple[str, ...]
    only_reference: tuple[str, ...]


def paired(fit: Posterior, reference: Posterior, names: tuple[str, str] = ("fit", "reference")) -> Pairs:
    """Pair the variables of a fit with those of a reference, which have these names.

    **Raises** `ProgramError` where a name has two shapes, where the entries of an array are not all there, and where there are
    too few draws to have a spread, or some that are NaN.
    """
    common = {name: (fit[name], reference[name]) for name in reference if name in fit}
    left, right = ({name: x for name, x in side.items() if name not in common} for side in (fit, reference))
    ours, theirs = entries_of(left), entries_of(right)
    for base in [name for name in {**theirs, **ours} if name not in common]:
        if all(base in side or base in found for side, found in ((left, ours), (right, theirs))):
            common[base] = (_whole(base, left, ours), _whole(base, right, theirs))
            left, right = _without(base, left, ours), _without(base, right, theirs)
    found = {name: (x, _agreeing(name, x, y, names)) for name, (x, y) in common.items()}
    for name, pair in found.items():
        for side, x in zip(names, pair, strict=True):
            _refuse_few(name, side, x)
    return Pairs(found, tuple(left), tuple(right))


def place_of(name: str) -> tuple[str, tuple[int, ...]] | None:
    """The array whose entry a name says that it is, and the entry's place in it."""
    match = INDEXED.fullmatch(name)
    return None if match is None else (match["base"], tuple(map(int, re.findall(r"\d+", name[match.end("base") :]))))


def entries_of(side: Posterior) -> dict[str, dict[tuple[int, ...], str]]:
    """The arrays whose entries are scalars with numbers in their names: array -> place -> name."""
    found: dict[str, dict[tuple[int, ...], str]] = {}
    for name, draws in side.items():
        entry = place_of(name)
        if entry is not None and np.ndim(draws) == 2:
            found.setdefault(entry[0], {})[entry[1]] = name
    return found


def _whole(base: str, side: Posterior, entries: Mapping[str, Mapping[tuple[int, ...], str]]) -> Any:
    """An array, as it is or from its entries."""
    if base in side:
        return side[base]
    named = entries[base]
    ranks = {len(place) for place in named}
    places = np.array(list(named)) if len(ranks) == 1 else np.zeros((0, 1), int)
    first = places.min(0, initial=1)
    shape = tuple(places.max(0, initial=0) - first + 1)
    if len(ranks) > 1 or not set(first) <= {0, 1} or len(named) != np.prod(shape):
        raise ProgramError(
            f"compare: {', '.join(named.values())} are some entries of an array {base!r}, and not all from 1 or from 0 on; "
            f"give the array, or all of its entries."
        )
    ordered = [side[named[tuple(first + place)]] for place in np.ndindex(*shape)]
    return np.moveaxis(np.reshape(ordered, (*shape, *np.shape(ordered[0]))), (-2, -1), (0, 1))


def _without(base: str, side: Posterior, entries: Mapping[str, Mapping[tuple[int, ...], str]]) -> dict[str, Any]:
    gone = {base} if base in side else set(entries[base].values())
    return {name: draws for name, draws in side.items() if name not in gone}


def _agreeing(name: str, ours: Any, theirs: Any, names: tuple[str, str]) -> Any:
    """The reference's array in the fit's shape; only axes of length one make no difference."""
    shape, other = np.shape(ours)[2:], np.shape(theirs)[2:]
    if long_axes(shape) != long_axes(other):
        raise ProgramError(
            f"compare: {name!r} has the shape {shape} in the {names[0]} and {other} in the {names[1]}; transpose, select or "
            f"rename one of them."
        )
    return np.reshape(theirs, (*np.shape(theirs)[:2], *shape))


def _refuse_few(name: str, side: str, x: Any) -> None:
    draws = np.shape(x)[0] * np.shape(x)[1]
    if draws < 2:
        raise ProgramError(
            f"compare: {name!r} has {draws} draw{'s' * (draws != 1)} in the {side}, and marginals are compared by many: two at "
            f"least have a spread, and some hundreds tell something."
        )
    bad = int(np.isnan(x).reshape(draws, -1).any(1).sum())
    if bad:
        raise ProgramError(
            f"compare: {name!r} is NaN in {bad} of {draws} draws of the {side}: drop these draws, or leave the variable out."
        )


def long_axes(shape: tuple[int, ...]) -> list[int]:
    """Axes of more than one entry."""
    return [size for size in shape if size != 1]
