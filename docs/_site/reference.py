"""A Sphinx extension: the API reference, of docstrings in Markdown, in which every public name has to stand.

It also writes `llms.txt`: an index of the pages, and the public names with the first sentence of each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from _site import llms
from _site.docstrings import converted
from _site.names import once, undocumented

LOG = logging.getLogger(__name__)
ENGINES = ("ppvi.numpyro", "ppvi.pyro")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _markdown)
    app.connect("missing-reference", _resolved)
    app.connect("env-check-consistency", _complete)
    app.connect("build-finished", _indexed)
    return {"parallel_read_safe": True, "version": "1"}


class Known:
    """Public names, by the object, by the last word, and by where the object is defined."""

    def __init__(self) -> None:
        self.names = list(once())
        self.by_word: dict[str, list[str]] = {}
        self.by_place: dict[str, list[str]] = {}
        for name, x in once().items():
            self.by_word.setdefault(name.rpartition(".")[2], []).append(name)
            place = f"{getattr(x, '__module__', '')}.{getattr(x, '__qualname__', '')}"
            self.by_place.setdefault(place, []).append(name)

    def linked(self, text: str, engine: str = "ppvi.numpyro") -> str | None:
        """The full name of what code in a docstring names, if it is public; of two engines, that of this one."""
        word = text.removeprefix("ppvi.").removeprefix("vi.")
        return best(
            self.by_word.get(word.rpartition(".")[2], []) if "." in word else self.by_word.get(word, []), engine
        )

    def placed(self, target: str, engine: str) -> str | None:
        """The public name of what a signature names by its module."""
        return best(self.by_place.get(target, []), engine) or self.linked(target.rpartition(".")[2], engine)


def best(names: list[str], engine: str) -> str | None:
    """Of several names of one thing, that of this engine; what only the other has an entry of, both have."""
    other = ENGINES[engine == ENGINES[0]]
    found = [name for name in names if not name.startswith(f"{other}.")] or names
    return max(found, key=lambda name: name.startswith(engine), default=None)


_KNOWN: list[Known] = []


def known() -> Known:
    if not _KNOWN:
        _KNOWN.append(Known())
    return _KNOWN[0]


def _markdown(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    engine = ENGINES[name.startswith("ppvi.pyro")]
    lines[:] = converted(lines, lambda text: known().linked(text, engine) if text not in name.split(".") else None)


def _resolved(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Links to what is public, by whatever module a signature has it from; what is not is text."""
    if node.get("refdomain") != "py":
        return None
    page = node.get("refdoc", "")
    engine = ENGINES["pyro" in page and "numpyro" not in page]
    target = known().placed(node["reftarget"], engine)
    domain = env.domains.python_domain
    if target is None or target not in domain.objects:
        return content if node["reftarget"] not in known().names else None
    return domain.resolve_xref(env, page, app.builder, "obj", target, node, content)  # type: ignore[arg-type]


def _complete(app: Sphinx, env: BuildEnvironment) -> None:
    """Every public name stands in the reference, and has a docstring."""
    there = env.domains.python_domain.objects
    for name in once():
        if name not in there:
            LOG.warning("%s is public, and the API reference has no entry of it", name)
    for name in undocumented():
        LOG.warning("%s is public, and has no docstring", name)


def _indexed(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.name == "html":
        Path(app.outdir, "llms.txt").write_text(llms.text(llms.pages_of(app.env)))
