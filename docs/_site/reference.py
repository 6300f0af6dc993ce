"""A Sphinx extension: the API reference, of docstrings in Markdown, in which every public name has to stand.

It also writes `llms.txt`: an index of the pages, and the public names with the first sentence of each.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from _site import llms
from _site.docstrings import converted, whole
from _site.names import ENGINES, Known, once, undocumented

LOG = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _markdown)
    app.connect("missing-reference", _resolved)
    app.connect("env-check-consistency", _complete)
    app.connect("build-finished", _indexed)
    return {"parallel_read_safe": True, "version": "1"}


@functools.cache
def known() -> Known:
    return Known()


def _markdown(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    engine = ENGINES[name.startswith("ppvi.pyro")]
    lines[:] = converted(
        whole(lines), lambda text: known().linked(text, engine) if text not in name.split(".") else None
    )


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
