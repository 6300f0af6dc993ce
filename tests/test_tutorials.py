"""Every tutorial runs as it stands; each ends in assertions of its own."""

import runpy
from pathlib import Path

import matplotlib
import pytest

TUTORIALS = sorted((Path(__file__).parent.parent / "tutorials").glob("[0-9]*.py"))


LONG = ("02", "03", "04", "05", "06", "07")
"""Those that take many draws or programs, which `make random` runs."""
ROWS = [
    pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem.startswith(LONG) else ()) for path in TUTORIALS
]


@pytest.mark.parametrize("path", ROWS)
def test_tutorial(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    runpy.run_path(str(path), run_name="__main__")


def test_from_scratch_is_short_and_does_not_lean_on_the_library():
    """The core is rebuilt in 250 lines; the library comes in at the end, to be compared with."""
    text = TUTORIALS[0].read_text()
    assert len(text.splitlines()) <= 250
    imported = [line for line in text.split("# ## The library's numbers")[0].splitlines() if "import " in line]
    assert not any("ppvi" in line for line in imported if not line.startswith("#"))
