"""Tables for people, by rich: 80 columns wide at most, or as wide as the terminal that they are printed to."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

WIDTH = 80
"""Where there is no terminal, or a narrower one."""


def entry(name: str, place: Sequence[int]) -> str:
    """The name of an entry of an array, as `beta[0,1]`; of a number its own."""
    return f"{name}[{','.join(map(str, place))}]" if place else name


def entries(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Of arrays `(n, *shape)` each entry by its name, `(n,)`."""
    for name, x in arrays.items():
        for place in np.ndindex(*x.shape[1:]):
            yield entry(name, place), x[(slice(None), *place)]


def width() -> int:
    """How many columns there are."""
    return max(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns) if sys.stdout.isatty() else WIDTH


def render(
    title: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    below: Sequence[str] = (),
    spare: Sequence[str] = (),
    named: int = 1,
    numbers: bool = False,
) -> str:
    """A table as text.

    **Arguments**

    - `below`: columns that are told in lines below the table where it would be too wide with them, the first first.
    - `spare`: columns that are left out where it still is.
    - `named`: by how many of the first columns such a line names its row.
    - `numbers`: whether columns of numbers stand to the right.
    """
    rows, header, own = [list(row) for row in rows], list(header), list(range(len(header)))

    def table(columns: int) -> str:
        return _table(title, [header[i] for i in own], [[row[i] for i in own] for row in rows], numbers, columns)

    gone: list[str] = []
    for name in (*below, *spare):
        if max(map(len, table(10_000).splitlines())) > width():
            own.remove(header.index(name))
            gone.append(name)
    said: dict[str, list[str]] = {}
    for row in rows:
        text = "; ".join(
            f"{name} {row[header.index(name)]}" for name in below if name in gone and row[header.index(name)]
        )
        said.setdefault(text, []).append(" ".join(row[:named]))
    notes = [wrapped(f"  {'; '.join(names)}: {text}", "    ") for text, names in said.items() if text]
    if left_out := [name for name in spare if name in gone]:
        notes.append(f"  ({', '.join(left_out)}: in a wider terminal)")
    return "\n".join([table(width()), *notes])


def wrapped(text: str, indent: str = "  ") -> str:
    """A sentence in lines of the width that there is."""
    return textwrap.fill(text, width(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def prose(text: str) -> str:
    """Sentences, each a line of its own or of an indent, in lines of the width that there is."""
    lines = ((line, len(line) - len(line.lstrip())) for line in text.splitlines())
    return "\n".join(wrapped(line, " " * (indent + 2)) for line, indent in lines)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool, columns: int) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title), box=SIMPLE_HEAD, title_justify="left", show_edge=False, pad_edge=False, collapse_padding=True
    )
    for i, name in enumerate(header):
        right = numbers and _are_numbers(row[i] for row in rows)
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=right)
    for row in rows:
        table.add_row(*[Text(cell) for cell in row])
    console = Console(width=columns, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _are_numbers(cells: Iterable[str]) -> bool:
    return all(not cell or cell[0] in "+-0123456789.ni" for cell in cells)
