"""`llms.txt`: the site's pages and the public names on one page of plain text, for readers that are programs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import ppvi
from _site.docstrings import whole
from _site.names import once

if TYPE_CHECKING:  # which the tests do without
    from sphinx.environment import BuildEnvironment

ABOUT = "Programmable variational inference for NumPyro and Pyro: the model, the guide and the objective are programs."


def text(pages: Iterable[tuple[str, str]]) -> str:
    """The index: pages by address and title, then every public name with its signature and its first sentence."""
    lines = [f"# ppvi {ppvi.__version__}", "", f"> {ABOUT}", "", "## Pages", ""]
    lines += [f"- [{title}]({address}.html)" for address, title in pages]
    lines += ["", "## Public names", "", *api()]
    return "\n".join(lines) + "\n"


def pages_of(env: BuildEnvironment) -> list[tuple[str, str]]:
    """Addresses and titles, in alphabetical order of addresses."""
    return [(name, env.titles[name].astext()) for name in sorted(env.found_docs)]


def api() -> Iterator[str]:
    """A line for each public name: `name(arguments): what it is`."""
    for name, x in once().items():
        if not name.startswith("ppvi.pyro."):
            yield f"- `{name}{_arguments(x)}`: {_first(x)}"
    yield "- `ppvi.pyro` has the names of `ppvi.numpyro`."


def _arguments(x: Any) -> str:
    if isinstance(x, type) and issubclass(x, BaseException):
        return ""
    try:
        signature = inspect.signature(x)
    except (TypeError, ValueError):
        return ""
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name != "self"]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def _first(x: Any) -> str:
    if not (inspect.isclass(x) or inspect.isroutine(x) or hasattr(x, "__wrapped__")):
        return repr(x)
    said = " ".join("\n".join(whole((inspect.getdoc(x) or "").splitlines())).split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", said)[0].removesuffix(":")
