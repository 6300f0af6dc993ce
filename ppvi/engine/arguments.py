"""What both engines say of the arguments of a call: their names, and why one is refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ppvi.engine.contents import Constant, Own, UnreadableError
from ppvi.errors import ProgramError

Programs = Sequence[Callable[..., Any]]
"""The model and the guide, whose signatures have the names of arguments."""


def constant(value: Any, own: Own, name: Callable[[], str]) -> Constant:
    """An argument that is no array, as a constant of what is staged."""
    try:
        return Constant(value, own)
    except UnreadableError as error:
        kind = type(value)
        raise ProgramError(
            f"argument {name()} is a {kind.__module__}.{kind.__qualname__}, in which nobody could see a change: {error}. Pass "
            f"arrays, trees of arrays, or numbers, texts and objects made of them, as a NumPy array or a list for one."
        ) from None


def name_of(programs: Programs, keyword: bool, place: Any) -> str:
    """The name of an argument by its keyword, or by its position in the programs' signatures."""
    return repr(place) if keyword else next((repr(n) for n in _names(programs, place)), f"number {place + 1}")


def _names(programs: Programs, place: int) -> list[str]:
    found = []
    for program in programs:
        try:
            parameters = list(inspect.signature(getattr(program, "forward", program)).parameters.values())
        except (TypeError, ValueError):
            continue
        named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        found += named[place : place + 1]
    return found
