"""Runs that are interrupted go on exactly: in another process, to the bit."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from ppvi.cli.runs import Run
from ppvi.engine._arviz import group_of, read
from tests.cli.conftest import ROOT, pyro_first
from tests.cli.programs import COIN, REGRESSION, TOSSES, regression_csv

PPVI = [sys.executable, "-c", "from ppvi.cli import main; main()"]


def started(shell, line):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (shell.folder / "said").open("w") as said:
        return subprocess.Popen(
            [*PPVI, *line.split()], cwd=shell.folder, env=environment, stdout=said, stderr=said, preexec_fn=listening
        )


def listening():
    """What a shell runs in the background, and all that this runs, is deaf to SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended(shell, line, code=0):
    assert started(shell, line).wait(timeout=240) == code, (shell.folder / "said").read_text()


def steps_of(folder):
    return max((int(x.stem.removeprefix("step-")) for x in folder.glob("checkpoints/step-*.safetensors")), default=0)


def interrupted(shell, line, how, code):
    """Begin a run that would go on for hours, and end it once it has taken some steps."""
    process = started(shell, line)
    give_up = time.monotonic() + 240
    while not steps_of(shell.folder / "broken") and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.05)
    process.send_signal(how)
    try:
        assert process.wait(timeout=120) == code, (shell.folder / "said").read_text()
    finally:
        process.kill()


def arrays_of(folder, step):
    return load_file(folder / "checkpoints" / f"step-{step:09d}.safetensors")


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name, strict=True)


CASES = [
    pytest.param("numpyro", "", signal.SIGINT, 130, id="numpyro", marks=pytest.mark.slow),
    pytest.param("pyro", "", signal.SIGINT, 130, id="pyro"),
    pytest.param("numpyro", "", signal.SIGTERM, 130, id="numpyro, terminated", marks=pytest.mark.slow),
    pytest.param("pyro", "", signal.SIGKILL, -signal.SIGKILL, id="pyro, killed", marks=pytest.mark.slow),
    pytest.param("numpyro", "--starts 2", signal.SIGINT, 130, id="numpyro, two starts", marks=pytest.mark.slow),
    pytest.param("pyro", "--until converged", signal.SIGINT, 130, id="pyro, averaged", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("engine", "options", "how", "code"), CASES)
def test_an_interrupted_run_is_the_uninterrupted_one(engine, options, how, code, shell):
    """State, parameters, losses and draws are equal bit by bit."""
    shell.write(coin_py=COIN[engine], tosses_csv=TOSSES)
    asked = f"fit coin.py --guide coin.py:guide --objective iwelbo:3 --data tosses.csv --seed 7 --draws 50 {options}"
    interrupted(shell, f"{asked} --steps 100000000 --out broken", how, code)
    total = steps_of(shell.folder / "broken") + 300
    ended(shell, f"resume broken --steps {total}")
    shell(f"{asked} --steps {total} --out whole")
    broken, whole = shell.folder / "broken", shell.folder / "whole"
    assert steps_of(broken) == steps_of(whole)
    assert_same(arrays_of(broken, steps_of(broken)), arrays_of(whole, steps_of(whole)))
    assert (broken / "losses.csv").read_bytes() == (whole / "losses.csv").read_bytes()
    one, other = (group_of(read(x / "posterior.nc"), "posterior") for x in (broken, whole))
    assert one.equals(other)


def test_what_is_finished_stays_as_it_is(finished):
    before = arrays_of(finished.folder / "run", 5)
    (finished.folder / "run" / "report.html").unlink()
    assert "nothing left to do" in finished("resume run").stderr
    assert (finished.folder / "run" / "report.html").exists()
    assert_same(arrays_of(finished.folder / "run", 5), before)


def test_more_steps_go_on_from_the_last(finished):
    assert finished.json("resume run --steps 8")["steps"] == 8
    finished("fit line.py --guide AutoDelta --objective elbo --data data.csv --steps 8 --draws 5 --out whole")
    assert_same(arrays_of(finished.folder / "run", 8), arrays_of(finished.folder / "whole", 8))


def test_more_steps_are_asked_for_once(finished):
    """What a run is to come to is remembered when it is interrupted again."""
    finished("resume run --steps 6")
    finished("resume run --steps 7")
    for step in (6, 7):
        (finished.folder / "run" / "checkpoints" / f"step-{step:09d}.safetensors").unlink()
    assert finished.json("resume run")["steps"] == 7


def test_fewer_steps_than_there_are_change_nothing(finished):
    config = finished.folder / "run" / "config.json"
    before = config.read_text()
    assert "nothing left to do" in finished("resume run --steps 4").stderr
    assert config.read_text() == before


def test_runs_go_on_from_another_folder(finished, monkeypatch):
    (finished.folder / "elsewhere").mkdir()
    monkeypatch.chdir(finished.folder / "elsewhere")
    assert finished.json("resume ../run --steps 8")["steps"] == 8


def test_other_data_are_refused(finished):
    finished.write(data_csv=regression_csv().replace("-1.000000,", "-1.500000,"))
    assert "data.csv has changed since the run in run began" in finished.error("resume run --steps 8")


def test_another_model_is_refused(finished):
    """By its file, and where that is trusted by what the library knows of it."""
    finished.write(line_py=REGRESSION["pyro"].replace("10.0", "11.0"))
    assert "'line.py' changed since the run in run began" in finished.error("resume run --steps 8")
    assert "the code of its model model was another" in finished.error("resume run --steps 8 --trust")


def test_a_run_is_not_overwritten_unasked(finished):
    again = "fit line.py --guide AutoDelta --objective elbo --data data.csv --steps 5"
    assert "ppvi resume run goes on with it, --overwrite replaces it" in finished.error(again)
    finished(f"{again} --overwrite")


def test_a_command_is_said_as_it_is_typed(tmp_path):
    assert Run(tmp_path / "my run").resumed == f"ppvi resume '{tmp_path}/my run'"


def test_a_config_that_is_cut_off_is_refused(finished):
    config = finished.folder / "run" / "config.json"
    config.write_text(config.read_text()[:40])
    assert "config.json cannot be read" in finished.error("resume run")


@pyro_first
def test_an_approximation_is_loaded_in_another_process(engine, shell):
    shell.write(line_py=REGRESSION[engine], data_csv=regression_csv())
    shell("fit line.py --data data.csv --draws 50")
    before = group_of(read(shell.folder / "run" / "posterior.nc"), "posterior")
    ended(shell, "resume run")
    assert group_of(read(shell.folder / "run" / "posterior.nc"), "posterior").equals(before)
