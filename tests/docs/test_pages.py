"""Pages: their cells, what runs them, what they link to, and the names that they have to have."""

import inspect
import json
import re
import sys
from pathlib import Path

import pytest

import ppvi
import ppvi._diagnose

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

from _site import llms, names, outputs  # noqa: E402
from _site.cells import cells_of  # noqa: E402
from _site.docstrings import converted, whole  # noqa: E402

MADE = {"_built", "tutorials", "gallery"}
PAGES = [path for path in DOCS.rglob("*.md") if path.relative_to(DOCS).parts[0] not in MADE]
SCRIPTS = sorted((ROOT / "tutorials").glob("[0-9]*.py"))


# Cells ----------------------------------------------------------------------------------------------------------------------


def page(tmp_path, text, name="page.md"):
    path = tmp_path / name
    path.write_text(text)
    return path


MARKDOWN = """# A page

<!-- run
x = 1
-->

Text.

```python
y = x + 1
```

<!-- tested: tests/docs/test_pages.py -->
```python
raise SystemExit
```
"""


def test_cells_of_a_page(tmp_path):
    cells = [cell for cell in cells_of(page(tmp_path, MARKDOWN)) if cell.kind != "text"]
    assert [(cell.kind, cell.source, cell.first) for cell in cells] == [
        ("hidden", "x = 1", 4),
        ("code", "y = x + 1", 10),
        ("tested", "raise SystemExit", 15),
    ]
    assert cells[2].by == "tests/docs/test_pages.py"


def test_cells_of_a_script(tmp_path):
    script = "# %% [markdown]\n# # Title\n#\n# Words.\n\n\n# %%\nx = 1\n\n# %% [markdown]\n# More.\n"
    cells = cells_of(page(tmp_path, script, "script.py"))
    assert [(cell.kind, cell.source, cell.first) for cell in cells] == [
        ("text", "# Title\n\nWords.", 2),
        ("code", "x = 1", 8),
        ("text", "More.", 11),
    ]
    assert cells_of(page(tmp_path, "x = 1\n", "module.py")) == []
    above, _ = cells_of(page(tmp_path, '"""What it is."""\n\n# %%\nx = 1\n', "above.py"))
    assert (above.kind, above.first) == ("code", 1)


@pytest.fixture
def built(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "BUILT", tmp_path / "built")
    monkeypatch.setattr(outputs, "ROOT", tmp_path)
    (tmp_path / "docs" / "_site").mkdir(parents=True)
    for name in ("run.py", "cells.py"):
        (tmp_path / "docs" / "_site" / name).write_text((DOCS / "_site" / name).read_text())
    return tmp_path


def test_a_page_is_run_once_until_it_changes(built):
    text = "```python\nimport matplotlib.pyplot as plt\n\nprint('seen')\nplt.plot([1, 2]);\n```\n"
    one = page(built, text)
    assert outputs.run_outdated([one], 1) == []
    (found,) = outputs.outputs(one)
    assert found == {"printed": "seen", "figures": ["page_0_1.png"]}
    assert (built / "built" / "page_0_1.png").read_bytes().startswith(b"\x89PNG")
    outputs.output_of(one).write_text(json.dumps("left alone"))
    assert outputs.run_outdated([one], 1) == []
    assert outputs.outputs(one) == "left alone"
    page(built, text.replace("seen", "again"))
    assert outputs.run_outdated([one], 1) == []
    assert outputs.outputs(one)[0]["printed"] == "again"


def test_a_page_that_fails_is_named_with_its_line(built):
    one = page(built, "Text.\n\n```python\nx = 1\nassert x == 2, 'it is not'\n```\n")
    (failure,) = outputs.run_outdated([one], 1)
    assert failure.page == one
    assert 'page.md", line 5' in failure.said
    assert "it is not" in failure.said
    assert len(outputs.run_outdated([one], 1)) == 1


# What pages say -------------------------------------------------------------------------------------------------------------


def test_what_is_not_run_with_the_pages_is_tested_by_a_test_that_there_is():
    tested = [cell for path in PAGES for cell in cells_of(path) if cell.kind == "tested"]
    assert tested
    for cell in tested:
        assert (ROOT / cell.by).exists(), cell.by


def slugs(path):
    """The anchors of a page's headings."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(DOCS)) for path in PAGES])
def test_links(path):
    """To files and headings that there are; pages of scripts are linked as the scripts, and the site's as what they include."""
    text = re.sub(r"```python.*?```", "", path.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\((?!http)([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        there = (path.parent / target).resolve() if target else path
        assert there.exists() or there == DOCS / "gallery" / "index.md", link
        assert there.suffix != ".md" or "```{include}" not in there.read_text(), link
        if anchor:
            assert anchor in slugs(there), link


def test_every_page_is_in_a_tree():
    """Or nobody finds it."""
    trees = "\n".join(path.read_text() for path in PAGES)
    for path in PAGES:
        name = path.relative_to(DOCS).with_suffix("").as_posix()
        if name != "index" and not name.startswith("decisions/0"):
            assert re.search(rf"^({name}|{path.stem})$", trees, re.MULTILINE), name


# Public names ---------------------------------------------------------------------------------------------------------------


def referred():
    """The names that the API reference has entries of."""
    found = set()
    for path in (DOCS / "api").glob("*.rst"):
        module = ""
        for line in path.read_text().splitlines():
            if match := re.match(r"\.\. currentmodule:: (\S+)", line):
                module = match[1]
            if match := re.match(r"\.\. auto(?!module)\w+:: (\S+)", line):
                found.add(f"{module}.{match[1]}")
    return found


def test_every_public_name_has_an_entry():
    assert referred() == set(names.once())


def test_every_public_name_has_a_docstring():
    assert names.undocumented() == []


def test_llms_has_every_name_with_a_sentence():
    lines = list(llms.api())
    for name in names.once():
        if not name.startswith("ppvi.pyro."):
            (line,) = [line for line in lines if re.match(rf"- `{re.escape(name)}[`(]", line)]
            assert len(line.rpartition("`: ")[2]) > 3, line
    text = llms.text([("index", "ppvi"), ("fits", "Fits that go on")])
    assert "- [Fits that go on](fits.html)" in text
    assert text.startswith("# ppvi ")


# Docstrings -----------------------------------------------------------------------------------------------------------------


def test_docstrings_are_read_as_markdown():
    text = """The bound `x_` of |z|.

    E_q[f] = 1
      + 2

**Arguments**
- `key`: see `Plateau`, and
  `*args`.

    vi.fit(bound, key)
"""
    known = names.Known()
    assert converted(text.splitlines(), known.linked) == [
        "The bound ``x_`` of \\|z\\|.",
        "",
        ".. code-block:: text",
        "",
        "   E_q[f] = 1",
        "     + 2",
        "",
        "**Arguments**",
        "",
        "- ``key``: see :py:obj:`Plateau <ppvi.Plateau>`, and",
        "  ``*args``.",
        "",
        ".. code-block:: python",
        "",
        "   vi.fit(bound, key)",
        "",
    ]


def test_a_function_that_is_loaded_late_has_the_docstring_of_where_it_is_written():
    assert whole(ppvi.diagnose.__doc__.splitlines()) == inspect.getdoc(ppvi._diagnose.diagnose).splitlines()
    assert "**Raises** `ProgramError` if there is none to use." in whole(ppvi.load.__doc__.splitlines())
    assert whole(["Text; see `posterior`."]) == ["Text; see `posterior`."]


def test_names_of_both_engines_are_those_of_the_page():
    known = names.Known()
    assert known.linked("fit", "ppvi.numpyro") == "ppvi.numpyro.fit"
    assert known.linked("fit", "ppvi.pyro") == "ppvi.pyro.fit"
    assert known.linked("vi.objective", "ppvi.pyro") == "ppvi.pyro.objective"
    assert known.linked("Enumerate") == "ppvi.strategies.Enumerate"
    assert known.linked("nowhere") is None
