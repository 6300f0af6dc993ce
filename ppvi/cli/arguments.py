"""From columns and numbers by name to the arguments of a model: what it takes, what it lacks, and what it cannot have."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppvi._doors import close_to, listed
from ppvi.cli.failures import InputError
from ppvi.cli.tables import Column, Columns
from ppvi.engine.calls import name_of, parameters_of


@dataclass(frozen=True)
class Arguments:
    """What a model is called with, by name, and what there is to say of it."""

    values: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    levels: Mapping[str, Sequence[str]]
    """Of texts that are coded as numbers: what 0, 1, ... stand for."""
    unused: tuple[str, ...]

    def __str__(self) -> str:
        shown = [
            f"{name} ({', '.join(map(str, self.shapes[name]))})" if self.shapes[name] else f"{name} = {value!r}"
            for name, value in self.values.items()
        ]
        left = f"; not taken by the model: {', '.join(self.unused)}" if self.unused else ""
        coded = "".join(f"; {name}: {_coding(levels)}" for name, levels in self.levels.items())
        return (", ".join(shown) or "none") + coded + left


def _coding(levels: Sequence[str]) -> str:
    shown = [f"{i} = {level}" for i, level in enumerate(levels[:6])]
    return ", ".join(shown) + (f" and {len(levels) - 6} more" if len(levels) > 6 else "")


def arguments_of(
    model: Callable[..., Any],
    columns: Columns,
    settings: Mapping[str, Any],
    made_of: Mapping[str, str],
    factors: Sequence[str],
) -> Arguments:
    """What a model takes of data and settings.

    **Arguments**

    - `made_of`: name -> columns, of which it is the matrix, or, of one, the vector.
    - `factors`: texts that are coded as 0, 1, ... in alphabetical order.
    """
    given = _given(columns, settings, made_of)
    taken = [x for x in parameters_of(model) if x.kind is not x.VAR_POSITIONAL]
    takes_all = any(x.kind is x.VAR_KEYWORD for x in taken)
    names = [x.name for x in taken if x.kind is not x.VAR_KEYWORD]
    used = [name for name in given if name in names or takes_all]
    unused = [name for name in given if name not in used]
    _refuse_missing(model, taken, given, unused)
    _refuse_unknown(model, names, settings, unused, made_of)
    levels: dict[str, list[str]] = {}
    values = {name: _value(name, given[name], columns, factors, levels) for name in used}
    if wrong := [name for name in factors if name not in levels]:
        raise InputError(
            f"--factor {wrong[0]}: it is no column of texts that the model takes.{close_to(wrong[0], used)}"
        )
    shapes = {name: np.shape(x) for name, x in values.items()}
    parts = {part for name in made_of for part in made_of[name].split(",")}
    return Arguments(values, shapes, levels, tuple(x for x in unused if x not in parts))


Given = Column | Sequence[str] | Any


def _given(columns: Columns, settings: Mapping[str, Any], made_of: Mapping[str, str]) -> dict[str, Any]:
    """By name: a column, the names of several, or a setting."""
    parts = {name: tuple(part.strip() for part in text.split(",")) for name, text in made_of.items()}
    for name, of in parts.items():
        for part in of:
            if part not in columns:
                raise InputError(
                    f"--columns {name}: there is no column {part!r}; there are {listed(columns)}.{close_to(part, columns)}"
                )
    if twice := sorted(settings.keys() & (columns.keys() | parts.keys())):
        raise InputError(f"--set {twice[0]}: the data have {twice[0]!r}, too: leave one of them out.")
    return {**columns, **parts, **{name: _Setting(value) for name, value in settings.items()}}


@dataclass(frozen=True)
class _Setting:
    value: Any


def _refuse_missing(
    model: Callable[..., Any], taken: Sequence[inspect.Parameter], given: Mapping[str, Any], unused: Sequence[str]
) -> None:
    required = [x.name for x in taken if x.default is x.empty and x.kind is not x.VAR_KEYWORD]
    if missing := [name for name in required if name not in given]:
        there = f"there are {listed(given)}" if given else "there are no data"
        left = f", of which the model does not take {listed(unused)}" if unused else ""
        plural = "s" if len(missing) > 1 else ""
        raise InputError(
            f"the model {_said(model, taken)} needs the argument{plural} {listed(missing)}, and {there}{left}. Name the data, "
            f"--data FILE; a number, --set {missing[0]}=...; or columns, --columns {missing[0]}="
            f"{unused[0] if unused else 'COLUMN'}.{close_to(missing[0], unused)}"
        )
    optional = {x.name.lower(): x.name for x in taken if x.name not in given}
    for name in unused:
        if meant := optional.get(name.lower()):
            raise InputError(
                f"the model {_said(model, taken)} takes {meant!r}, which has a default, and the data have {name!r}: rename "
                f"one of them, or say --columns {meant}={name}."
            )


def _said(model: Callable[..., Any], taken: Sequence[inspect.Parameter]) -> str:
    return f"{name_of(model)}({', '.join(x.name for x in taken)})"


def _refuse_unknown(
    model: Callable[..., Any],
    names: Sequence[str],
    settings: Mapping[str, Any],
    unused: Sequence[str],
    made_of: Mapping[str, str],
) -> None:
    """What was named on the command line has to be of use."""
    for option, asked in (("--set", settings), ("--columns", made_of)):
        for name in asked:
            if name in unused:
                raise InputError(
                    f"{option} {name}: the model {name_of(model)} has no argument {name!r}; it has "
                    f"{listed(names) or 'none'}.{close_to(name, names)}"
                )


def _value(name: str, given: Any, columns: Columns, factors: Sequence[str], levels: dict[str, list[str]]) -> Any:
    if isinstance(given, _Setting):
        return _array(name, given.value) if isinstance(given.value, list) else given.value
    if isinstance(given, Column):
        return _numbers(name, given, factors, levels)
    parts = [_numbers(part, columns[part], factors, levels) for part in given]
    return parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)


def _array(name: str, given: list[Any]) -> np.ndarray:
    try:
        found = np.asarray(given)
    except ValueError as error:
        raise InputError(f"--set {name}: its lists are of unlike lengths, and no array: fill them up.") from error
    if found.dtype.kind not in "biuf":
        raise InputError(f"--set {name}: a list is of numbers, such as --set {name}=[1,2.5].")
    return found


def _numbers(name: str, column: Column, factors: Sequence[str], levels: dict[str, list[str]]) -> np.ndarray:
    """The numbers of a column, which are all there.

    **Raises** `InputError` of texts that are not to be coded, of dates, and of what is missing.
    """
    x = column.values
    if column.is_text:
        return _coded(name, column, factors, levels)
    if x.dtype.kind not in "biuf":
        raise InputError(
            f"{column.file}: {name!r} is of {x.dtype.name}, and not of numbers: turn it into numbers first."
        )
    if x.dtype.kind == "f" and (lost := np.isnan(x)).any():
        raise InputError(_missing(name, column, lost))
    return x.astype(x.dtype.newbyteorder("="), copy=False)  # as files of other machines may not have it


def _coded(name: str, column: Column, factors: Sequence[str], levels: dict[str, list[str]]) -> np.ndarray:
    texts = column.values.astype(str)
    present = sorted(set(texts.ravel().tolist()) - {""})
    if name not in factors:
        raise InputError(
            f"{column.file}: {name!r} is of texts, such as {listed(present, 3)}: --factor {name} codes its {len(present)} "
            f"values as 0, 1, ..., or drop the column from the model."
        )
    if (lost := texts == "").any():
        raise InputError(_missing(name, column, lost))
    levels[name] = present
    return np.searchsorted(np.array(present), texts)


def _missing(name: str, column: Column, lost: np.ndarray) -> str:
    first = column.place(int(np.flatnonzero(lost.reshape(len(lost), -1).any(1))[0])) if lost.ndim else "in it"
    return (
        f"{column.file}: {name!r} has {int(lost.sum())} missing of {lost.size} values, the first {first}: drop these rows, or "
        f"fill them in and leave them out by a mask in the model."
    )
