"""docs/conformance.md says of each construct and of each example what the tables of these tests say, and nothing else.

`python -m tests.conformance.test_page` writes the page's tables anew.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tests.conformance
from tests.conformance.constructs import Refusal, Row
from tests.conformance.twins import Twin
from tests.engines import ENGINES

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
BEGIN = "<!-- the tables below are written by tests/conformance/test_page.py -->"


def listed(kind: type | tuple[type, ...]) -> Iterator[tuple[str, Any]]:
    """The rows of the tests' tables, with the file that each is in."""
    for module in pkgutil.iter_modules(tests.conformance.__path__):
        if module.name.startswith("test_") and module.name != "test_page":
            found = importlib.import_module(f"tests.conformance.{module.name}")
            tables = [value for value in vars(found).values() if isinstance(value, list)]
            yield from ((f"{module.name}.py", row) for table in tables for row in table if isinstance(row, kind))


def constructs() -> list[str]:
    states: dict[tuple[str, str], dict[str, str]] = {}
    for file, row in listed((Row, Refusal)):
        state = "right" if isinstance(row, Row) else "refused: " + ", ".join(map(repr, row.words))
        for engine in row.engines:
            states.setdefault((row.name, file), {})[engine.name] = state
    lines = ["| construct | NumPyro | Pyro | test |", "|---|---|---|---|"]
    for (name, file), found in states.items():
        lines.append(
            "| " + " | ".join([name, *(found.get(engine.name, "-") for engine in ENGINES), f"`{file}`"]) + " |"
        )
    return lines


def examples() -> list[str]:
    pages: dict[tuple[str, str], list[str]] = {}
    for file, twin in listed(Twin):
        pages.setdefault((twin.name, file), []).append(twin.make.__name__)
    lines = ["| page | twins | test |", "|---|---|---|"]
    return [*lines, *(f"| {page} | {', '.join(twins)} | `{file}` |" for (page, file), twins in pages.items())]


def tables() -> str:
    return "\n".join(
        [
            BEGIN,
            "",
            "## Constructs",
            "",
            *constructs(),
            "",
            "## Examples of the libraries' documentation",
            "",
            *examples(),
            "",
        ]
    )


def test_the_page_says_what_the_tables_say():
    text = PAGE.read_text()
    assert text[text.index(BEGIN) :] == tables()


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text().split(BEGIN)[0] + tables())
