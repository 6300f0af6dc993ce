"""Docstrings, which are written in Markdown, as the reStructuredText that Sphinx reads.

They use little of it: `code`, **bold**, lists, and indented equations and examples.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator

CODE = re.compile(r"`([^`]+)`")
SPECIAL = re.compile(r"(?<=\w)_(?=\W|$)|\||(?<![\w*])\*(?=\w)(?!\*)")
"""What reStructuredText would take for a reference, a substitution or emphasis."""
ARGUMENT = re.compile(r"(?:^|\n) *- [^:\n]*$")
"""At the head of an item stands the name of an argument, which is no name of the library's."""


def converted(lines: list[str], linked: Callable[[str], str | None]) -> list[str]:
    """The lines of a docstring; `linked` gives the full name of what may be linked to by a name in code."""
    found: list[str] = []
    for block in _blocks(lines):
        found += _verbatim(block) if _is_indented(block, found) else _paragraph(block, linked)
        found.append("")
    return found


WRITTEN = re.compile(r"[^\n]+; see `(ppvi\.[\w.]+)\.(\w+)`\.\s*")


def whole(lines: list[str]) -> list[str]:
    """The docstring of a function that is loaded when it is called: that of the place which its own names."""
    found = WRITTEN.fullmatch("\n".join(lines))
    if found is None:
        return lines
    return (inspect.getdoc(getattr(importlib.import_module(found[1]), found[2])) or "").splitlines()


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """What blank lines part; indented blocks that follow one another are one."""
    block: list[str] = []
    for i, line in enumerate(lines):
        if line.strip():
            block.append(line)
        elif block and not (block[-1].startswith("    ") and _next(lines, i).startswith("    ")):
            yield block
            block = []
        elif block:
            block.append("")
    if block:
        yield block


def _next(lines: list[str], i: int) -> str:
    return next((line for line in lines[i:] if line.strip()), "")


def _is_indented(block: list[str], before: list[str]) -> bool:
    return all(line.startswith("    ") or not line for line in block)


def _verbatim(block: list[str]) -> list[str]:
    code = textwrap.dedent("\n".join(block))
    return [f".. code-block:: {_language(code)}", "", *textwrap.indent(code, "   ").splitlines()]


def _language(code: str) -> str:
    """Whether it is Python or an equation."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return "text"
    calls = any(isinstance(node, ast.Call) for node in ast.walk(tree))
    return "python" if calls and not re.search(r"E_|\|\||sum_|int ", code) else "text"


def _paragraph(block: list[str], linked: Callable[[str], str | None]) -> list[str]:
    text, items = "\n".join(block), re.compile(r"^( *)- ", re.MULTILINE)
    parts = CODE.split(text)
    parts[::2] = [SPECIAL.sub(lambda found: "\\" + found[0], part) for part in parts[::2]]
    for i in range(1, len(parts), 2):
        argument = ARGUMENT.search("".join(parts[:i]))
        parts[i] = _code(parts[i], _nothing if argument else linked)
    lines = "".join(parts).splitlines()
    starts = [i for i, line in enumerate(lines) if items.match(line)]
    if starts and starts[0] > 0:
        lines.insert(starts[0], "")
    return lines


def _nothing(text: str) -> None:
    return None


def _code(text: str, linked: Callable[[str], str | None]) -> str:
    target = linked(text.removesuffix("()"))
    spaced = text.replace("\n", " ")
    return f":py:obj:`{spaced} <{target}>`" if target else f"``{spaced}``"
