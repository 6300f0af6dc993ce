"""Where in the user's code something happens: the innermost frame that belongs to no library."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

_SPECS = [find_spec(name) for name in ("torch", "pyro")]
_PPVI = Path(__file__).parent.parent
_LIBRARY = (
    *(f"{Path(spec.origin).parent}/" for spec in _SPECS if spec is not None and spec.origin),
    *(f"{_PPVI / part}/" for part in ("compiler", "inference", "pyro", "strategies")),
    *(str(_PPVI / name) for name in ("expectations.py", "program.py")),
    f"{Path(os.__file__).parent}/contextlib.py",
    f"{Path(os.__file__).parent}/functools.py",
)


def here() -> str:
    """File and line of the user's frame that is running now."""
    frame = sys._getframe(1)
    frames = []
    while frame is not None:
        frames.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return _first(frames)


def _first(frames: Iterable[tuple[str, int]]) -> str:
    for path, line in frames:
        if not path.startswith(_LIBRARY):
            return f"{os.path.relpath(path) if path.startswith(os.getcwd()) else path}:{line}"
    return "unknown"
