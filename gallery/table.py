"""The table of the gallery, made of what each page states at its top and of what its last full run gave.

`python -m gallery.table` writes `tutorials/gallery/README.md`; no page is run for it.
"""

from __future__ import annotations

import ast
from pathlib import Path

from gallery import PAGES, Entry

TABLE = PAGES / "README.md"
HEADER = (
    "system",
    "family",
    "engine",
    "objective",
    "strategies",
    "what it shows",
    "result of the last full run",
    "reference",
    "seconds",
)
INTRODUCTION = """# Gallery

Systems of the literature as small programs: a model (`models/`), a guide (`guides/`), an objective, and a page that fits
them and asserts what the paper claims, in small. `python tutorials/gallery/NAME.py` runs a page in quick mode, which takes
seconds and needs no download; `make gallery NAME=NAME` runs it in full and writes `results/NAME.json`.

This table is made by `python -m gallery.table` of what the pages state and of `results/`; seconds are a processor's.
"""


def pages() -> list[Path]:
    """The pages, by name."""
    return sorted(PAGES.glob("[a-z0-9]*.py"))


def entry_of(page: Path) -> Entry:
    """What a page states of itself: the literals of its `ENTRY = Entry(...)`."""
    for node in ast.parse(page.read_text()).body:
        if (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "ENTRY"
            and isinstance(node.value, ast.Call)
        ):
            return Entry(**{str(word.arg): ast.literal_eval(word.value) for word in node.value.keywords})
    raise ValueError(f"{page} has no ENTRY = Entry(...) at its top level")


def row(entry: Entry) -> list[str]:
    """One row; what has not been run in full yet says so."""
    run = entry.recorded
    about = [entry.family, entry.engine, entry.objective, entry.strategies, entry.shows]
    result = run.get("result", "not yet run in full")
    cells = [
        f"[{entry.system}]({entry.name}.py)",
        *about,
        result,
        f"[{entry.paper}]({entry.link})",
        str(run.get("seconds", "")),
    ]
    return [cell.replace("|", "\\|") for cell in cells]  # which ends a cell otherwise, as in p(x | z)


def render() -> str:
    """The whole page, families together."""
    entries = sorted((entry_of(page) for page in pages()), key=lambda entry: (entry.family, entry.system))
    lines = [HEADER, ["---"] * len(HEADER), *map(row, entries)]
    return INTRODUCTION + "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    TABLE.write_text(render())
