"""Handlers of the user's around a call. Programs are staged once and used many times, so that they are run apart from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppvi.errors import ProgramError

TRACES = frozenset({"trace", "TraceMessenger"})
"""Classes of handlers by which programs are run."""
SILENT = frozenset("seed block SeedMessenger BlockMessenger".split())
"""Classes of handlers that change nothing of what a program says."""


def refuse_ambient(handlers: Sequence[Any]) -> None:
    """Refuse a handler that would change what programs say, outside of all that ppvi runs; the outermost comes first. What is
    within a trace is of a program that somebody runs, such as one of whose posterior NUTS draws, and not the caller's."""
    for handler in handlers:
        kind = type(handler)
        names = {cls.__name__ for cls in kind.__mro__}
        if kind.__module__.startswith("ppvi.") or names & TRACES:
            return
        if not names & SILENT:
            name = kind.__name__.removesuffix("Messenger").lower()
            raise ProgramError(
                f"this call is within `with {name}(...)`, of which an objective's programs would not know: put it into the "
                f"program that it is for, or around that, as scale(model, ...) is, and make the objective of what comes out."
            )
