"""Tables for people, by rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def render(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as text, as wide as it needs to be."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), box=SIMPLE_HEAD, title_justify="left", show_edge=False)
    for column in header:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*[Text(cell) for cell in row])
    console = Console(width=400, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
