"""Where in the user's code something happens."""

from __future__ import annotations

from ppvi._source import code_of, running
from ppvi.engine.runs import Handle

_LIBRARY = code_of("pyro", ("torch", "pyro"))


def here() -> str:
    """File and line of the user's frame that is running now."""
    return running(_LIBRARY, Handle.run.__code__)
