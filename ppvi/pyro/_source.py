"""Where in the user's code something happens."""

from __future__ import annotations

from ppvi._source import code_of_libraries, running
from ppvi.engine.handles import Handle

LIBRARY = code_of_libraries()


def here() -> str:
    """File and line of the user's frame that is running now."""
    return running(LIBRARY, Handle.run.__code__)
