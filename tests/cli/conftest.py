"""Commands are run as typed, in a folder of their own."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ppvi.cli.app import app

ROOT = Path(__file__).parents[2]


class Shell:
    """A folder, and the command line in it."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, **files):
        """Files by their names, of which `_` stands for the dot."""
        for name, text in files.items():
            (self.folder / name.replace("_", ".")).write_text(text)

    def __call__(self, line, *more, code=0):
        result = CliRunner().invoke(app, [*line.split(), *map(str, more)], prog_name="ppvi", catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    def json(self, line, *more, code=0):
        found = json.loads(self(line, *more, "--json", code=code).stdout)
        assert found["exit"] == code
        return found

    def error(self, line, *more, code=1):
        """What is said of what goes wrong, in one line."""
        result = self(line, *more, "--quiet", code=code)
        [said] = [x for x in result.stderr.splitlines() if x.startswith("ppvi")]
        assert "Traceback" not in result.output
        return said


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield Shell(tmp_path)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    if "pyro" in sys.modules:
        sys.modules["pyro"].clear_param_store()


both = pytest.mark.parametrize("engine", ["numpyro", "pyro"])
pyro_first = pytest.mark.parametrize("engine", [pytest.param("numpyro", marks=pytest.mark.slow), "pyro"])
"""Of what is alike on both, and is compiled for long on NumPyro."""
