"""The other library: what a program states by its primitives would be told to nobody, so it is refused."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ppvi.errors import ProgramError

_STACKS = {"NumPyro": ("Pyro", "pyro.poutine.runtime"), "Pyro": ("NumPyro", "numpyro.primitives")}
"""By a library, the other one, and the module that has the stack of its handlers."""


class Foreign:
    """A handler of either library that refuses everything."""

    def __init__(self, library: str, other: str, here: Callable[[], str]):
        self.library, self.other, self.here = library, other, here
        self.thread = threading.get_ident()

    def process_message(self, msg: Any) -> None:
        if threading.get_ident() == self.thread:
            name = f" {msg['name']!r}" if msg.get("name") else ""
            raise ProgramError(
                f"{msg['type']}{name} at {self.here()} is of {self.other}, and the objective is of ppvi."
                f"{self.library.lower()}: write its programs with {self.library.lower()} alone, or make it by "
                f"ppvi.{self.other.lower()}."
            )

    def postprocess_message(self, msg: Any) -> None:
        pass

    _process_message, _postprocess_message = process_message, postprocess_message


@contextmanager
def refused(library: str, here: Callable[[], str]) -> Iterator[None]:
    """Within it, the primitives of the other library are refused, if it is there at all."""
    other, name = _STACKS[library]
    if (module := sys.modules.get(name)) is None:
        yield
        return
    handler = Foreign(library, other, here)
    module._PYRO_STACK.insert(0, handler)  # below those of other threads, which leave the stack as they have found it
    try:
        yield
    finally:
        module._PYRO_STACK.remove(handler)
