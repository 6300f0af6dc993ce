"""What arguments of the public functions are checked by, and how what came instead is described: never by its contents."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, Never

from ppvi.errors import CallError, PpviError, ProgramError

Error = type[PpviError]

_KINDS = {"numpy": "array", "jax": "array", "jaxlib": "array", "torch": "tensor"}
"""What arrays are called, by the library that they are of."""

MOST = 40
"""Characters of a text that are repeated."""


def described(value: Any) -> str:
    """What a value is, in a few words."""
    kind = type(value)
    if value is None or kind in (bool, int, float, complex):
        return repr(value)
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= MOST else f"{value[:MOST]!r}..."
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, functools.partial):
        return f"a partial of {described(value.func)}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        dtype = str(value.dtype).removeprefix("torch.")
        noun = _KINDS.get(kind.__module__.partition(".")[0]) or kind.__name__
        return (
            f"{_articled('key' if dtype.startswith('key') else noun)} of shape {tuple(value.shape)} and dtype {dtype}"
        )
    if isinstance(value, Mapping):
        return f"{_articled(kind.__name__)} of {listed(value) or 'nothing'}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"{_articled(kind.__name__)} of length {len(value)}"
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__name__', kind.__name__)}{_signature(value)}"
    return _articled(kind.__name__)


def listed(names: Iterable[Any], most: int = 8) -> str:
    """Names for a sentence, in their order, the first of many."""
    return first_of([described(name) for name in names], most)


def first_of(texts: Sequence[str], most: int, between: str = ", ") -> str:
    """The first of many texts, and how many more there are."""
    return between.join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def close_to(name: Any, names: Iterable[str]) -> str:
    """A question after the name that was meant, if one is like it; with a space in front."""
    found = difflib.get_close_matches(name, list(names), 1) if isinstance(name, str) else []
    return f" Did you mean {found[0]!r}?" if found else ""


def no_attribute(module: str, names: Iterable[str], places: Mapping[str, str] | None = None) -> Callable[[str], Never]:
    """The `__getattr__` of a module, which says what was meant: one of its names in whatever case, or one of another place."""
    known = {name.lower(): name for name in names}

    def refuse(name: str) -> Never:
        hint = (places or {}).get(name) or ""
        if not hint and not name.startswith("_") and (close := difflib.get_close_matches(name.lower(), known, 1)):
            hint = f" Did you mean {known[close[0]]}?"
        raise AttributeError(f"module {module!r} has no attribute {name!r}.{hint}", name=name)

    return refuse


class NoFunction(ModuleType):
    """A module that has the name of a function of the engines."""

    def __call__(self, *args: Any, **kwargs: Any) -> Never:
        name = self.__name__.rpartition(".")[2]
        raise CallError(
            f"{self.__name__} is a module, and {name} a function of ppvi.numpyro and of ppvi.pyro: {ENGINES}."
        )


ENGINES = "import one of them as vi, and write vi.fit, vi.objective, vi.posterior, vi.predict or vi.nuts"


def count(what: str, value: Any, least: int = 1, error: Error = ProgramError) -> int:
    """A whole number of at least so many."""
    found = whole(value)
    if found is None or found < least:
        raise error(f"{what} must be an int of at least {least}, not {described(value)}.")
    return found


def whole(value: Any) -> int | None:
    """A whole number as an int; None for anything else, and where it is traced."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def number(
    what: str,
    value: Any,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    error: Error = ProgramError,
) -> float:
    """A finite number in an interval."""
    if (type(value) is not bool and isinstance(value, int | float)) or _is_scalar(value):
        try:
            inside = math.isfinite(value) and above < value < below and least <= value <= most
        except Exception:  # of a number that is traced no more is known
            inside = True
        if inside:
            return value
    limits = [
        f"{word} {limit:g}"
        for word, limit in (("above", above), ("at least", least), ("below", below), ("at most", most))
        if math.isfinite(limit)
    ]
    inside = f"between {above:g} and {below:g}" if math.isfinite(below - above) else " and ".join(limits)
    raise error(f"{what} must be a finite number{' ' * bool(inside)}{inside}, not {described(value)}.")


def flag(what: str, value: Any, error: Error = ProgramError) -> bool:
    """True or False, and not what counts as one."""
    if value is not True and value is not False:
        raise error(f"{what} must be True or False, not {described(value)}.")
    return value


def one_of(what: str, value: Any, options: Iterable[str]) -> str:
    """One of a few texts."""
    known = list(options)
    if not isinstance(value, str) or value not in known:
        raise ProgramError(
            f"{what} must be {' or '.join(map(repr, known))}, not {described(value)}.{close_to(value, known)}"
        )
    return value


def mapping(what: str, value: Any) -> Mapping[Any, Any]:
    """A mapping, empty where there is none."""
    if not isinstance(value, Mapping | None):
        raise ProgramError(f"{what}, and not {described(value)}.")
    return {} if value is None else value


def function(
    what: str, value: Any, hint: str = "", error: Error = ProgramError, of: Iterable[str] | None = None
) -> Callable[..., Any]:
    """What can be called, and is no class; with these arguments by position, where they are known."""
    if not callable(value) or isinstance(value, type):
        raise error(f"{what} must be a function, not {described(value)}.{' ' * bool(hint)}{hint}")
    if of is not None:
        takes(what, value, *of)
    return value


def takes(what: str, value: Callable[..., Any], *arguments: str) -> None:
    """Refuse a function that cannot be called with these arguments by position."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        wanted = f"({', '.join(arguments)})" if arguments else "no arguments"
        raise ProgramError(f"{what} is called with {wanted}, and {described(value)} cannot be.") from None


def noted(error: BaseException, note: str) -> None:
    """Say of an error of the user's own code, once, what was running; of ours all is said."""
    if not isinstance(error, PpviError) and not any(x.startswith(_RUNNING) for x in getattr(error, "__notes__", ())):
        error.add_note(f"{_RUNNING}{note}")


def was_running(error: BaseException) -> str | None:
    """What was said to be running of an error."""
    notes = [x for x in getattr(error, "__notes__", ()) if x.startswith(_RUNNING)]
    return notes[0].removeprefix(_RUNNING).rstrip(".") if notes else None


_RUNNING = "ppvi was running "


def _articled(noun: str) -> str:
    return f"{'an' if noun[:1] in 'AEIOUaeiou' else 'a'} {noun}"


def _signature(value: Any) -> str:
    with_default = inspect.Parameter.empty
    try:
        found = inspect.signature(value).parameters
    except (TypeError, ValueError):
        return ""
    return f"({', '.join(name for name, x in found.items() if x.default is with_default)})"


def _is_scalar(value: Any) -> bool:
    """Whether it is one number of NumPy or of a framework."""
    return getattr(value, "shape", None) == () and getattr(value.dtype, "kind", "f") in "fiu" and hasattr(value, "item")
