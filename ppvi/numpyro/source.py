"""Where in the user's code something happened: the innermost frame that belongs to no library."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_SPECS = [find_spec(name) for name in ("jax", "jaxlib", "numpyro", "optax", "flax", "equinox")]
_PACKAGES = [Path(spec.origin).parent for spec in _SPECS if spec is not None and spec.origin]
_PPVI = Path(__file__).parent.parent
_LIBRARY = tuple(
    f"{path}/" for path in (*_PACKAGES, *(_PPVI / part for part in ("compiler", "inference", "numpyro", "strategies")))
)
_FILES = tuple(str(_PPVI / name) for name in ("expectations.py", "program.py"))
_STANDARD = tuple(str(Path(sys.modules[name].__file__ or "")) for name in ("contextlib", "functools"))


def here() -> str:
    """File and line of the user's frame that is running now."""
    frame = sys._getframe(1)
    frames = []
    while frame is not None:
        frames.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return _first(frames)


def of(traceback: Any) -> str:
    """File and line of the user's frame in a JAX traceback."""
    return _first((frame.file_name, frame.line_num) for frame in (traceback.frames if traceback else ()))


def _first(frames: Iterable[tuple[str, int]]) -> str:
    for file, line in frames:
        if not file.startswith(_LIBRARY) and file not in _FILES + _STANDARD and not file.startswith("<frozen"):
            return f"{_short(file)}:{line}"
    return "unknown"


def _short(file: str) -> str:
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file
