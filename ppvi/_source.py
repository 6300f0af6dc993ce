"""Where in the user's code something happens: the innermost frame that belongs to no library."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from traceback import walk_tb
from types import CodeType
from typing import Any, NamedTuple

_PPVI = Path(__file__).parent
UNKNOWN = "unknown"
_STANDARD = tuple(str(Path(sys.modules[name].__file__ or "")) for name in ("contextlib", "functools"))


LIBRARIES = "jax jaxlib numpyro optax flax equinox numpy scipy torch pyro".split()


def code_of_libraries() -> tuple[str, ...]:
    """How the paths of files begin that are not the user's."""
    specs = [find_spec(name) for name in LIBRARIES]
    packages = [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin]
    own = [
        _PPVI / part
        for part in ("analysis", "compiler", "engine", "inference", "numpyro", "proofs", "pyro", "strategies")
    ]
    files = [str(path) for path in (*_PPVI.glob("*.py"), _PPVI / "objectives" / "families.py")]
    return (*(f"{path}/" for path in (*packages, *own)), *files, *_STANDARD, "<frozen")


def running(libraries: tuple[str, ...], runner: CodeType) -> str:
    """File and line of the user's frame that is running now; `runner` is code that runs a program, and has its name."""
    frame, frames = sys._getframe(1), []
    while frame is not None:
        if frame.f_code is runner:
            # Beyond it is who runs the program: what a library's own says, such as an autoguide, is at no line of the user's.
            found = innermost(frames, libraries)
            return frame.f_locals["program_name"] if found == UNKNOWN else found
        frames.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return innermost(frames, libraries)


def innermost(frames: Iterable[tuple[str, int]], libraries: tuple[str, ...]) -> str:
    """File and line of the first of these frames that is the user's."""
    for file, line in frames:
        if not file.startswith(libraries):
            return f"{_short(file)}:{line}"
    return UNKNOWN


class Call(NamedTuple):
    """A call that an error has come through."""

    function: str
    locals: Mapping[str, Any]
    is_ours: bool
    """Whether it is of a function of ppvi."""


def last_call(error: BaseException, libraries: tuple[str, ...]) -> tuple[str, list[Call]]:
    """File and line of the last of the user's frames that an error has come through, and the calls of libraries beyond it."""
    where, calls = UNKNOWN, list[Call]()
    for frame, line in walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if not file.startswith(libraries):
            where, calls = f"{_short(file)}:{line}", []
        elif where != UNKNOWN and not file.startswith(("<frozen", *_STANDARD)):
            calls.append(Call(frame.f_code.co_name, frame.f_locals, file.startswith(str(_PPVI))))
    return where, calls


def _short(file: str) -> str:
    return _relative(file, os.getcwd())


@functools.cache
def _relative(file: str, folder: str) -> str:
    try:
        return str(Path(file).relative_to(folder))
    except ValueError:
        return file


def warn_at(where: str, message: str, category: type[Warning] = UserWarning) -> None:
    """Warn of what a user's line does, `file:line`."""
    file, _, line = where.rpartition(":")
    shown = globals().setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, category, file or where, int(line) if file else 0, registry=shown)
