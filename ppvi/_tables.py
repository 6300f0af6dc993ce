"""Tables for people, by rich: 80 columns wide at most, or as wide as the terminal that they are printed to."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence

WIDTH = 80
"""Where there is no terminal, or a narrower one."""


def width() -> int:
    """How many columns there are."""
    return max(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns) if sys.stdout.isatty() else WIDTH


def render(
    title: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    below: Collection[str] = (),
    spare: Sequence[str] = (),
    numbers: bool = False,
) -> str:
    """A table as text.

    **Arguments**

    - `below`: columns that are told in lines below their row where the table would be too wide with them.
    - `spare`: columns that are left out where the table would be too wide with them, the first first.
    - `numbers`: whether all columns but those of the first words are of numbers, which stand to the right.
    """
    rows, header = [list(row) for row in rows], list(header)
    own = list(range(len(header)))

    def table(columns: int) -> str:
        return _table(title, [header[i] for i in own], [[row[i] for i in own] for row in rows], numbers, columns)

    def fits() -> bool:
        return max(map(len, table(10_000).splitlines())) <= width()

    told = [] if fits() else [header.index(name) for name in below]
    own = [i for i in own if i not in told]
    left_out: list[str] = []
    while not fits() and len(left_out) < len(spare):
        left_out.append(spare[len(left_out)])
        own.remove(header.index(left_out[-1]))
    notes = [line for row in rows for line in _lines(row[own[0]], header, row, told)]
    if left_out:
        notes.append(wrapped(f"  ({', '.join(left_out)}: in a wider terminal)"))
    return "\n".join([table(width()), *notes])


def wrapped(text: str, indent: str = "  ") -> str:
    """A sentence in lines of the width that there is."""
    return textwrap.fill(text, width(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _lines(name: str, header: Sequence[str], row: Sequence[str], told: Sequence[int]) -> list[str]:
    said = "; ".join(f"{header[i]} {row[i]}" for i in told if row[i])
    return [wrapped(f"  {name}: {said}" if name else f"  {said}", "    ")] if said else []


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
