"""Every page of the gallery runs in quick mode, which ends in assertions of its own; and keeps to the form of an entry."""

import ast
import json
import re
import runpy

import matplotlib
import pytest

from gallery import RESULTS
from gallery.table import TABLE, entry_of, pages, render

PAGES = [pytest.param(page, id=page.stem) for page in pages()]
PUBLIC = {"ppvi", "ppvi.numpyro", "ppvi.pyro", "ppvi.objectives", "ppvi.optimizers", "ppvi.strategies"}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_quick_mode(page, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    runpy.run_path(str(page), run_name="__main__")
    plt.close("all")


@pytest.mark.parametrize("page", PAGES)
def test_form(page):
    """Short, in cells, of public names alone, named as its file, and with assertions at the end."""
    text = page.read_text()
    tree = ast.parse(text)
    assert text.startswith("# %% [markdown]\n# # ")
    assert len(text.splitlines()) <= 190
    assert entry_of(page).name == page.stem
    assert any(isinstance(node, ast.Assert) for node in tree.body[-12:]), "a page ends in assertions"
    for node in ast.walk(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert all(module in PUBLIC for module in modules if module.split(".")[0] == "ppvi"), modules
        assert not (isinstance(node, ast.Attribute) and re.match(r"(ppvi|vi)\._", ast.unparse(node)))


def test_the_table_is_up_to_date():
    assert TABLE.read_text() == render(), "run `python -m gallery.table`"


def test_results_are_of_a_page_and_say_how_they_came():
    for path in RESULTS.glob("*.json"):
        assert path.stem in {page.stem for page in pages()}
        found = json.loads(path.read_text())
        assert set(found) == {"result", "seeds", "steps", "seconds", "versions", "numbers"}
        assert found["versions"]["ppvi"]
