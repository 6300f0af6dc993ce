"""What went wrong, in one line: the user's file and line, and the next thing to try. Tracebacks are for `--debug`."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from traceback import walk_tb

from ppvi.errors import PpviError

LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
OURS = str(Path(__file__).parents[1])
LONGEST = 300
"""Characters that are repeated of an error of other people's code."""


class InputError(PpviError):
    """What was asked on the command line cannot be done."""


def told(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, PpviError):
        return " ".join(str(error).split())
    said = f"{type(error).__name__}: {_first_line(error)}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}: {said}. Mend the line, and try again."
    where = line_of(error)
    if where is None:
        return f"{said} (in ppvi or a library; --debug shows where)."
    return f"{where}: {said}. Mend it there, or see the traceback by --debug."


def line_of(error: BaseException) -> str | None:
    """File and line of the last frame that the error came through which is the user's."""
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    mine = [
        f"{_short(file)}:{line}"
        for file, line in frames
        if os.path.isabs(file) and not file.startswith((OURS, *LIBRARIES))  # modules in C name themselves as they like
    ]
    return mine[-1] if mine else None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error.args[0] if isinstance(error, SyntaxError) else error).splitlines()]
    said = next((line for line in lines if line), "no message").rstrip(".")
    return said if len(said) <= LONGEST else f"{said[:LONGEST]}..."


def _short(file: str) -> str:
    try:
        return str(Path(file).relative_to(os.getcwd()))
    except ValueError:
        return file
