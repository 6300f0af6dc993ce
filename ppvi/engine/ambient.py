"""Handlers of the user's around a call. Programs are staged once and used many times, so that they are run apart from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppvi.errors import ProgramError

SILENT = frozenset("seed trace block SeedMessenger TraceMessenger BlockMessenger".split())
"""Classes of handlers that change nothing of what a program says."""


def refuse_ambient(handlers: Sequence[Any]) -> None:
    """Refuse a handler that would change what programs say, outside of all that ppvi runs; the outermost comes first."""
    for handler in handlers:
        kind = type(handler)
        if kind.__module__.startswith("ppvi."):
            return
        if kind.__name__ not in SILENT:
            name = kind.__name__.removesuffix("Messenger").lower()
            raise ProgramError(
                f"this call is within `with {name}(...)`, of which an objective's programs would not know: put it into the "
                f"program that it is for, or around that, as in {name}(model, ...), and make the objective of what comes out."
            )
