"""Programs that a run folder names are run where this user wrote the folder, and where the user says so."""

import json
import signal
import stat

import pytest

from ppvi.cli.runs import opened
from ppvi.cli.speaking import terminated_alike
from tests.cli.programs import REGRESSION

TELLTALE = "import pathlib\npathlib.Path('was_run').touch()\n"
COMMANDS = ("resume run", "diagnose run", "compare run nuts", "check run", "prove run", "explain run", "nuts run")


@pytest.fixture
def telltale(finished):
    """A run whose program leaves a file where it is run."""
    finished.write(line_py=TELLTALE + REGRESSION["pyro"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppvi.cli.runs.problem_of", lambda question, folders: None)
        opened(finished.folder / "run", trust=True)
    return finished


def changed(shell, **parts):
    path = shell.folder / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


@pytest.mark.parametrize("line", COMMANDS)
def test_code_of_a_foreign_folder_is_not_run(telltale, line, monkeypatch, tmp_path_factory):
    """Whatever command it is given to: its seal is with another key."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("of another user")))
    said = telltale.error(line)
    assert "run was not written by ppvi fit as this user on this machine" in said
    assert "line.py" in said
    assert "--trust" in said
    assert not (telltale.folder / "was_run").exists()
    if line == "resume run":
        telltale(f"{line} --trust")
        assert (telltale.folder / "was_run").exists()


def test_a_folder_that_names_other_programs_is_foreign(finished):
    """A seal is of what it was given to, and of nothing else."""
    finished.write(other_py=TELLTALE + REGRESSION["pyro"])
    config = json.loads((finished.folder / "run" / "config.json").read_text())
    changed(finished, question=config["question"] | {"program": "other.py"})
    assert "was not written by ppvi fit" in finished.error("resume run")
    changed(finished, question=config["question"], programs={}, seal="\u00e9")
    assert "was not written by ppvi fit" in finished.error("resume run")
    assert not (finished.folder / "was_run").exists()


def test_a_trusted_folder_is_the_users_own_from_then_on(finished, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("of another user")))
    assert finished.json("resume run --trust --steps 6")["steps"] == 6
    assert finished.json("resume run --steps 7")["steps"] == 7


def test_programs_that_have_changed_are_not_run(finished):
    finished.write(line_py="# mended\n" + TELLTALE + REGRESSION["pyro"])
    assert "'line.py' changed since the run in run began" in finished.error("diagnose run")
    assert not (finished.folder / "was_run").exists()
    finished("explain run --trust")
    finished("explain run")


def test_the_key_is_the_users_alone(finished, monkeypatch, tmp_path_factory):
    home = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    finished.error("resume run")
    assert stat.S_IMODE((home / "ppvi" / "key").stat().st_mode) == 0o600
    assert len((home / "ppvi" / "key").read_bytes()) == 32


def test_without_a_place_for_a_key_no_folder_is_ones_own(finished, monkeypatch):
    """Nothing is taken for sealed because sealing failed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(finished.folder / "data.csv"))
    finished("fit line.py --guide AutoDelta --objective elbo --data data.csv --steps 5 --draws 5 --overwrite")
    assert "was not written by ppvi fit" in finished.error("resume run")
    finished("resume run --trust")


def test_a_handler_that_is_not_pythons_is_left(monkeypatch):
    """`signal.signal` says None of it, and takes no None."""
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with terminated_alike():
            pass
        monkeypatch.undo()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
