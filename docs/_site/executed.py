"""A Sphinx extension: pages show what their code prints and draws, and a page whose code fails fails the build.

Markdown pages of `docs/` and the scripts of `tutorials/` are run before anything is read. Of each script a page is made;
those of the gallery, which take data and minutes, are shown as they are, for tests of their own run them. With
`-D code_is_run=0` all are, after a look at the syntax of their code: links, names and layout are checked in a minute.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from _site.cells import Cell, cells_of
from _site.outputs import ROOT, output_of, outputs, run_outdated

DOCS, TUTORIALS = ROOT / "docs", ROOT / "tutorials"
GALLERY = TUTORIALS / "gallery"
ELSEWHERE = {
    "../benchmarks/RESULTS.md": "/benchmarks.md",
    "../benchmarks/POSTERIORS.md": "/posteriors.md",
    "RESULTS.md": "/benchmarks.md",
    "POSTERIORS.md": "/posteriors.md",
    "../CONTRIBUTING.md": "/contributing.md",
    "../CHANGELOG.md": "/changelog.md",
    "../README.md": "/index.md",
}
"""Files beside the site's that a page here includes, by how they are linked."""
SCRIPT = re.compile(r"(?:\.\./)+tutorials/(gallery/)?(\w+)\.py")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("code_is_run", True, "env")
    app.connect("builder-inited", lambda app: build_pages(app.config.code_is_run), priority=100)
    app.connect("source-read", _rendered)
    app.connect("include-read", lambda app, path, name, content: content.__setitem__(0, relinked(content[0])))
    return {"parallel_read_safe": True, "version": "1"}


def scripts() -> list[Path]:
    """The tutorials."""
    return sorted(TUTORIALS.glob("[0-9]*.py"))


def entries() -> list[Path]:
    """The entries of the gallery: those of its files that have cells."""
    return sorted(path for path in GALLERY.glob("*.py") if any(cell.kind == "text" for cell in cells_of(path)))


def pages() -> list[Path]:
    """The Markdown pages that have code to be run."""
    made = {"_built", "tutorials", "gallery"}
    found = (path for path in DOCS.rglob("*.md") if path.relative_to(DOCS).parts[0] not in made)
    return sorted(path for path in found if any(cell.runs for cell in cells_of(path)))


def build_pages(ran: bool) -> None:
    """Run what is to be run, and make the pages that are made of scripts."""
    if ran:
        _run_all()
    else:
        for path in [*scripts(), *entries(), *pages()]:
            for cell in cells_of(path):
                if cell.runs:
                    compile(cell.code(), path, "exec")
    for folder, paths, index in (("tutorials", scripts(), tutorials_page(ran)), ("gallery", entries(), gallery_page())):
        (DOCS / folder).mkdir(exist_ok=True)
        for gone in {*(DOCS / folder).glob("*.md")} - {DOCS / folder / f"{path.stem}.md" for path in paths}:
            gone.unlink()
        for path in paths:
            _write(DOCS / folder / f"{path.stem}.md", script_page(path, ran))
        _write(DOCS / folder / "index.md", f"{index}\n{_tree(paths)}")


def _run_all() -> None:
    jobs = int(os.environ.get("PPVI_DOCS_JOBS", "2"))
    if failures := run_outdated([*scripts(), *pages()], jobs):
        said = "\n\n".join(f"{page.relative_to(ROOT)}:\n{end}" for page, end in failures)
        raise ExtensionError(f"the code of {len(failures)} pages has failed.\n\n{said}")


def script_page(path: Path, ran: bool = True) -> str:
    """The page of a script: its text, its code, what that prints and draws, and a link to the file."""
    name, is_tutorial = path.relative_to(ROOT).as_posix(), path.parent == TUTORIALS
    said = "" if is_tutorial else " Tests run it; its results are in the table of the gallery."
    link = f"\n---\n\n{{download}}`{path.name} <../../{name}>` is this page as a script.{said}\n"
    text = "\n".join([*rendered(path, ran and is_tutorial), link])
    return text if text.lstrip().startswith("# ") else f"# {path.stem}\n\n{text}"


def tutorials_page(ran: bool = True) -> str:
    """Cards of the tutorials, each with the last of its figures where it has any."""
    found = [
        "# Tutorials",
        "",
        "Scripts with `# %%` cells, which end in assertions.",
        "",
        "::::{grid} 1 2 2 3",
        ":gutter: 3",
    ]
    for path in scripts():
        title, said = about(path)
        figures = [name for output in (outputs(path) if ran else ()) for name in output["figures"]]
        picture = [f":img-bottom: /_built/{figures[-1]}", ":img-alt: what the tutorial draws"] if figures else []
        card = [f":::{{grid-item-card}} {title}", f":link: {path.stem}", ":link-type: doc", *picture, said, ":::"]
        found += ["", *card]
    return "\n".join([*found, "::::", ""])


def about(path: Path) -> tuple[str, str]:
    """The title of a script, and its first sentence."""
    above = next(cell for cell in cells_of(path) if cell.kind == "text").lines
    paragraph = itertools.takewhile(str.strip, itertools.dropwhile(lambda line: not line.strip(), above[1:]))
    return above[0].removeprefix("# "), re.split(r"(?<=\.) ", " ".join(paragraph))[0]


def gallery_page() -> str:
    """The table of the gallery's entries, where there is one, in as few columns as a page is wide for."""
    table = GALLERY / "README.md"
    if not table.exists():
        return "# Gallery\n\nThere are no entries yet.\n"
    above, bar, rows = table.read_text().partition("| system |")
    narrow = "\n".join(_narrow(f"{bar}{rows}".splitlines()))
    text = f"{above}\n::::{{container}} gallery\n{narrow}\n::::\n"
    return re.sub(r"(!?)\[([^]]*)\]\((?!https?:)([^)\s]+)\)", _from_gallery, text)


def _narrow(lines: list[str]) -> Iterator[str]:
    """The table with four columns in place of nine."""
    header, _, *rows = ([cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in lines if line)
    yield from ("| system | what it shows | trained by | result of the last full run |", "|---|---|---|---|")
    for cells in rows:
        of = dict(zip(header, cells, strict=True))
        system = f"{of['system']}<br>{of['reference']}<br>{of['family']}; {of['engine']}"
        seconds = f" ({of['seconds']} s)" if of["seconds"] else ""
        trained = f"{of['objective']}<br>{of['strategies']}"
        yield f"| {system} | {of['what it shows']} | {trained} | {of['result of the last full run']}{seconds} |"


def _from_gallery(found: re.Match[str]) -> str:
    """A link of the gallery's table: to the page of an entry, to a picture; what has no page here is named."""
    picture, said, target = found.groups()
    path = GALLERY / target.partition("#")[0]
    if picture:
        return f"![{said}](../../{path.relative_to(ROOT).as_posix()})"
    if path.resolve().is_relative_to(DOCS):
        return f"[{said}](/{path.resolve().relative_to(DOCS).as_posix()})"
    return f"[{said}]({path.stem}.md)" if path in entries() else said


def _tree(paths: list[Path]) -> str:
    names = "\n".join(path.stem for path in paths)
    return f"```{{toctree}}\n:hidden:\n\n{names}\n```\n" if names else ""


def rendered(path: Path, ran: bool = True) -> Iterator[str]:
    """A page as Markdown, with outputs below the blocks that they are of."""
    found = iter(outputs(path) if ran else ())
    for cell in cells_of(path):
        yield from _shown(cell)
        if cell.runs and ran:
            yield from _said(next(found))


def _shown(cell: Cell) -> Iterator[str]:
    if cell.kind == "text":
        yield from cell.lines
    elif cell.kind != "hidden":
        yield from ("", "```python", cell.source.strip("\n"), "```", "")


def _said(output: dict[str, Any]) -> Iterator[str]:
    if output["printed"]:
        yield from ("", "````{code-block} text", ":class: output", "", output["printed"], "````", "")
    for name in output["figures"]:
        yield from ("", f"![drawn by the code above](/_built/{name})", "")


def relinked(text: str) -> str:
    """Links to files that a page of the site shows, as links to that page."""

    def replaced(found: re.Match[str]) -> str:
        target, mark, anchor = found[1].partition("#")
        if script := SCRIPT.fullmatch(target):
            target = f"/{'gallery' if script[1] else 'tutorials'}/{script[2]}.md"
        return f"]({ELSEWHERE.get(target, target)}{mark}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", replaced, text)


def _rendered(app: Sphinx, name: str, source: list[str]) -> None:
    path = Path(app.env.doc2path(name))
    if path.suffix == ".md":
        if path in pages():
            if app.config.code_is_run:
                app.env.note_dependency(str(output_of(path)))
            source[0] = "\n".join(rendered(path, app.config.code_is_run))
        source[0] = relinked(source[0])


def _write(path: Path, text: str) -> None:
    """Write what has changed, so that Sphinx does not read again what has not."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
