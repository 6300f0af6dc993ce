"""Pages as cells: what is text, and what is code to be run, in a Markdown page and in a `# %%` script alike.

A Markdown page has its code in ```` ```python ```` blocks, which run in one namespace from top to bottom. What a reader need
not see stands in a comment, `<!-- run` to `-->`. A block that cannot run where pages are built has a comment before it that
names the test which runs it, `<!-- tested: tests/... -->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["text", "code", "hidden", "tested"]

OPENINGS: dict[str, tuple[Kind, str]] = {"```python": ("code", "```"), "<!-- run": ("hidden", "-->")}
TESTED = re.compile(r"<!-- tested: (\S+) -->")
MARKER = re.compile(r"# %%(.*)")


@dataclass(frozen=True)
class Cell:
    """A stretch of a page, and the number of its first line there."""

    kind: Kind
    lines: tuple[str, ...]
    first: int
    by: str = ""
    """The test that runs it, of a block that is not run here."""

    @property
    def runs(self) -> bool:
        return self.kind in ("code", "hidden")

    @property
    def source(self) -> str:
        return "\n".join(self.lines)

    def code(self) -> str:
        """The code with its lines where they are in the page, so that what is said of them names them."""
        return "\n" * (self.first - 1) + self.source + "\n"


def cells_of(path: Path) -> list[Cell]:
    """The cells of a page."""
    lines = path.read_text().splitlines()
    return list(script_cells(lines) if path.suffix == ".py" else markdown_cells(lines))


def markdown_cells(lines: list[str]) -> Iterator[Cell]:
    """Text, and the blocks of Python in it."""
    text: list[str] = []
    first, by, i = 1, "", 0
    while i < len(lines):
        if lines[i].strip() not in OPENINGS:
            if found := TESTED.fullmatch(lines[i].strip()):
                by = found[1]
            text.append(lines[i])
            i += 1
            continue
        kind, closing = OPENINGS[lines[i].strip()]
        end = next(j for j in range(i + 1, len(lines)) if lines[j].strip() == closing)
        yield Cell("text", tuple(text), first)
        yield Cell("tested" if by else kind, tuple(lines[i + 1 : end]), i + 2, by)
        text, first, by, i = [], end + 2, "", end + 1
    yield Cell("text", tuple(text), first)


def script_cells(lines: list[str]) -> Iterator[Cell]:
    """Code, and the cells of Markdown in its comments; of a file without cells nothing."""
    starts = [i for i, line in enumerate(lines) if MARKER.fullmatch(line)]
    if not starts:
        return
    if any(map(str.strip, lines[: starts[0]])):
        yield Cell("code", tuple(lines[: starts[0]]), 1)
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        body = lines[start + 1 : end]
        while body and not body[-1].strip():
            body.pop()
        if "[markdown]" in lines[start]:
            yield Cell("text", tuple(line.removeprefix("#").removeprefix(" ") for line in body), start + 2)
        else:
            yield Cell("code", tuple(body), start + 2)
