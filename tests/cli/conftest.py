"""Commands are run as typed, in a folder of their own."""

import json
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ppvi.cli.app import app
from tests.cli.programs import REGRESSION, regression_csv

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


@pytest.fixture(scope="session", autouse=True)
def key(tmp_path_factory):
    """Runs are sealed with a key of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@contextmanager
def shell_in(folder):
    """The command line in a folder, of which no module stays."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        yield Shell(folder)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]
    if "pyro" in sys.modules:
        sys.modules["pyro"].clear_param_store()


@pytest.fixture
def shell(tmp_path):
    with shell_in(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory, key):
    """A run of five steps, with its model and its data, which nobody changes."""
    with shell_in(tmp_path_factory.mktemp("finished")) as found:
        found.write(line_py=REGRESSION["pyro"], data_csv=regression_csv())
        found("fit line.py --guide AutoDelta --objective elbo --data data.csv --steps 5 --draws 5")
        return found.folder


@pytest.fixture
def finished(shell, finished_once):
    """A copy of it."""
    shutil.copytree(finished_once, shell.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return shell


both = pytest.mark.parametrize("engine", ["numpyro", "pyro"])
pyro_first = pytest.mark.parametrize("engine", [pytest.param("numpyro", marks=pytest.mark.slow), "pyro"])
"""Of what is alike on both, and is compiled for long on NumPyro."""
