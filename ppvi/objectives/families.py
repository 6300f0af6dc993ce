"""Families of objectives: functions from numbers, plates and the like to an objective, which is a value.

`iwelbo(3)` is equal to another `iwelbo(3)`, prints as it is written, and pickles as these words.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

from ppvi._doors import described
from ppvi._ops import Array
from ppvi._options import door
from ppvi.errors import ProgramError
from ppvi.program import Program

P = ParamSpec("P")

Objective = Callable[[Program, Program], Array]
"""An objective program: a function of the model and the guide that returns one real number."""


class Member:
    """An objective of a family."""

    def __init__(self, family: Callable[..., Member], program: Objective, args: Any, kwargs: Any):
        self._family, self._program, self._args, self._kwargs = family, program, args, kwargs
        self.__name__ = repr(self)

    def __call__(self, *handles: Program, **named: Program) -> Array:
        refuse_others(repr(self), (*handles, *named.values()))
        return self._program(*handles, **named)

    def __getattr__(self, name: str) -> Any:
        """What programs are marked with, such as their direction."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._program, name)

    def _arguments(self) -> dict[str, Any]:
        bound = inspect.signature(self._family).bind(*self._args, **self._kwargs)
        bound.apply_defaults()
        return bound.arguments

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Member):
            return NotImplemented
        return self._family is other._family and equal(self._arguments(), other._arguments())

    def __hash__(self) -> int:
        return hash((self._family.__qualname__, *self._arguments()))

    def __repr__(self) -> str:
        given = [_shown(x) for x in self._args] + [f"{name}={_shown(x)}" for name, x in self._kwargs.items()]
        return f"{self._family.__name__}({', '.join(given)})"

    def __reduce__(self) -> Any:
        return functools.partial(self._family, **self._kwargs), self._args


def equal(mine: Any, theirs: Any) -> bool:
    """Whether two things are equal; those that cannot tell, as arrays of several numbers cannot, where they are one."""
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        return mine.keys() == theirs.keys() and all(equal(x, theirs[name]) for name, x in mine.items())
    if isinstance(mine, list | tuple) and type(mine) is type(theirs):
        return len(mine) == len(theirs) and all(map(equal, mine, theirs))
    if mine is theirs:
        return True
    try:
        return bool(mine == theirs)
    except (TypeError, ValueError, RuntimeError):
        return False


def family(maker: Callable[P, Objective]) -> Callable[P, Member]:
    """Make values of the objectives that a function makes."""
    checked = door(maker)

    @functools.wraps(maker)
    def made(*args: P.args, **kwargs: P.kwargs) -> Member:
        return Member(made, checked(*args, **kwargs), args, kwargs)

    return made


def objective_program(program: Objective) -> Objective:
    """Refuse what is no pair of handles, as in `elbo()` and `elbo(model, guide)`."""

    @functools.wraps(program)
    def refusing(*handles: Program, **named: Program) -> Array:
        refuse_others(program.__name__, (*handles, *named.values()))
        return program(*handles, **named)

    return refusing


def refuse_others(name: str, handles: Sequence[Any]) -> None:
    """Refuse to run an objective program on anything but its two handles."""
    if len(handles) != 2 or not all(isinstance(handle, Program) for handle in handles):
        came = " and ".join(map(described, handles)) or "nothing"
        raise ProgramError(
            f"{name} is an objective program, which is called with handles on a model and a guide, not with {came}. It is "
            f"passed on itself: vi.objective({name}, model, guide)."
        )


def _shown(x: Any) -> str:
    return x.__name__ if inspect.isroutine(x) else repr(x)
