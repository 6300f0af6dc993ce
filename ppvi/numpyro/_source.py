"""Where in the user's code something happened, as JAX and the interpreter have it."""

from __future__ import annotations

from traceback import extract_tb
from typing import Any

from ppvi._source import code_of_libraries, innermost, running
from ppvi.engine.handles import Handle

LIBRARY = code_of_libraries()


def here() -> str:
    """File and line of the user's frame that is running now."""
    return running(LIBRARY, Handle.run.__code__)


def of(traceback: Any) -> str:
    """File and line of the user's frame in a JAX traceback."""
    return innermost(((frame.file_name, frame.line_num) for frame in (traceback.frames if traceback else ())), LIBRARY)


def of_error(error: BaseException) -> str:
    """File and line of the user's frame that raised it."""
    frames = [(frame.filename, frame.lineno or 0) for frame in extract_tb(error.__traceback__)]
    return innermost(reversed(frames), LIBRARY)
