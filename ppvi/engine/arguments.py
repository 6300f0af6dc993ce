"""What both engines say of the arguments of a call: those that are no arrays, their names, and why one is refused.

An argument that is no array is a constant of the staged program. It is read afresh at every call, so that a config object, a
table or a list that has changed is another constant. What it says is found as all is that programs read, by
`ppvi.engine.looking`, and what nobody can see into, such as an open file, is refused.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from ppvi._doors import described
from ppvi.engine.looking import look
from ppvi.engine.world import Rules, World
from ppvi.errors import ProgramError

Programs = Sequence[Callable[..., Any]]
"""The model and the guide, whose signatures have the names of arguments."""


class Constants(NamedTuple):
    """The arguments that are no arrays."""

    numbers: tuple[Hashable, ...] = ()
    """Leaf by leaf: a number or a text, or what stands for another thing."""
    things: Sequence[Any] = ()
    """Those others."""
    places: Sequence[int] = ()
    """Where they are among the leaves."""
    name_of: Callable[[int], str] = str
    """The name of a leaf."""

    def name(self, i: int) -> str:
        return f"argument {self.name_of(i)}"


def named(params: Any) -> Mapping[str, Any]:
    """Parameters by name, if they are.

    **Raises** `ProgramError` for anything else, such as a fit or a key.
    """
    if isinstance(params, Mapping):
        return params
    hint = (
        "a fit has them as fit.params"
        if isinstance(getattr(params, "params", None), Mapping)
        else "what draws takes (key, params, ...), and prove, explain and states take (params, ...): were they swapped?"
    )
    raise ProgramError(
        f"params must be a dict from parameter name to value, as from init, not {described(params)}; {hint}"
    )


@dataclass
class Sight:
    """How the world of a few programs is looked at."""

    rules: Rules
    programs: Mapping[str, Any]
    names: set[str] = field(default_factory=set)
    """Those that code within reach has been found to name."""

    def look(self, constants: Constants) -> World:
        """The world at these constants, if all of them can be seen into."""
        named = {constants.name(i): x for i, x in zip(constants.places, constants.things, strict=True)}
        world = look(self.rules, self.programs, named, self.names)
        for path, x, why in world.opaque:
            if path.root in named:
                kinds = [f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in (named[path.root], x)]
                what = "it" if path.before is None else f"{path}, a {kinds[1]},"
                raise ProgramError(
                    f"{path.root} is a {kinds[0]}, whose changes would go unseen: {what} {why}. Pass arrays, lists and dicts "
                    f"of them, numbers, texts, or objects made of these; a stream of batches is fit's batches=."
                )
        return world


T = TypeVar("T")


def copied(thing: T, kept: Mapping[int, Any]) -> T:
    """A copy for a program, which may change it, and may keep it longer than it stays as it is, but for what counts by its
    identity; or the thing itself, if it cannot be copied or is too long a chain for that."""
    try:
        return copy.deepcopy(thing, dict(kept))
    except Exception:  # whatever its own code for being copied raises
        return thing


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
