"""Functions of a library that are exchanged for others for as long as any thread asks for it."""

from __future__ import annotations

from threading import Lock
from typing import Any


class Exchanged:
    """A context, which may be entered again within itself and by several threads: the last to leave puts the library's back.

    **Arguments**

    - `functions`: modules or classes, names in them, and what stands there meanwhile.
    """

    def __init__(self, *functions: tuple[Any, str, Any]):
        self.others = functions
        self.own = [(owner, name, getattr(owner, name)) for owner, name, _ in functions]
        self._entered = 0
        self._lock = Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._entered += 1
            if self._entered == 1:
                for each in self.others:
                    setattr(*each)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._entered -= 1
            if not self._entered:
                for each in self.own:
                    setattr(*each)
