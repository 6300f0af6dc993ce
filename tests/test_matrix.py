"""The matrix of versions says what it has not run, and why."""

import pytest

from tests import matrix
from tests.matrix import ENVIRONMENTS, Environment, Outcome, line, page


def test_a_machine_without_the_interpreter_says_so():
    outcome = matrix.tried(Environment("future", "3.99", "torch", ()))
    assert outcome.said == ["no Python 3.99 on this machine"]
    assert not outcome.failed
    assert line(outcome).startswith("future (Python 3.99): left out; not run here: no Python 3.99 on this machine")


def test_a_shim_that_does_not_work_is_no_interpreter(tmp_path, monkeypatch):
    shim = tmp_path / "python3.98"
    shim.write_text("#!/bin/sh\necho 'python3.98: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setattr(matrix.shutil, "which", lambda name: str(shim))
    assert matrix.interpreter("3.98") is None


def test_the_page_has_a_row_for_each_and_a_note_for_what_is_left_out():
    first, second = ENVIRONMENTS[:2]
    outcomes = [
        Outcome(first, {"jax": "0.7.2"}, {"surface": "94", "a fit": "FAILED: test_a_fit"}),
        Outcome(second, {"jax": "0.7.2"}, {"surface": "94"}, ["a reason"]),
    ]
    text = page(outcomes)
    assert "| oldest | 3.11 | 0.7.2 | - |" in text
    assert "FAILED: test_a_fit" in text
    assert "| Colab's [1] |" in text
    assert "[1] Not run here: a reason." in text
    assert [outcome.failed for outcome in outcomes] == [True, False]


def test_an_unknown_environment_is_refused():
    with pytest.raises(SystemExit, match="there is no environment oldst: choose of oldest, "):
        matrix.main(["oldst"])


def test_there_are_environments_of_every_kind():
    assert len(ENVIRONMENTS) >= 8
    assert {"3.11", "3.12", "3.13"} <= {environment.python for environment in ENVIRONMENTS}
