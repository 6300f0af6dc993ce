"""What people type wrong: one line, the user's file and line, the next thing to try, exit code 1, and no traceback."""

import numpy as np
import pytest
import xarray as xr

from tests.cli.programs import REGRESSION, regression_csv

LINE = REGRESSION["numpyro"]

PROGRAMS = [
    ("fit nowhere.py:model", ["there is no Python file nowhere.py", "'line.py'"]),
    ("fit line.py:modle", ["line.py has no 'modle'", "Did you mean 'model'?", "FILE:FUNCTION"]),
    ("fit line.py:dist", ["line.py:dist is no function, but module"]),
    ("fit broken.py", ["broken.py:2: SyntaxError", "Mend the line"]),
    ("fit raises.py --data data.csv", ["raises.py:5: ZeroDivisionError: division by zero", "--debug"]),
    ("fit at_import.py", ["at_import.py:2: ModuleNotFoundError: No module named 'no_such_module'"]),
    ("fit bare.py", ["bare.py imports neither NumPyro nor Pyro", "--engine numpyro or --engine pyro"]),
    ("fit two.py", ["two.py imports both NumPyro and Pyro"]),
    ("fit line.py --engine stan", ["--engine 'stan': it is numpyro or pyro"]),
    ("fit line.py --guide AutoNorml --data data.csv", ["Did you mean 'AutoNormal'?", "line.py:guide"]),
    ("fit line.py --guide line.py:gide --data data.csv", ["line.py has no 'gide'"]),
    ("fit line.py --objective iwelb:5 --data data.csv", ["Did you mean 'iwelbo'?"]),
    ("fit line.py --objective iwelbo --data data.csv", ["--objective 'iwelbo'", "particles"]),
    ("fit line.py --objective renyi:a --data data.csv", ["--objective 'renyi:a'"]),
    ("fit line.py --objective elbo --until soon --data data.csv", ["converged, plateau", "10m"]),
    ("fit line.py --objective elbo --strategy z --data data.csv", ["--strategy z=Enumerate"]),
    ("fit line.py --objective elbo --strategy a=Enumerat --data data.csv", ["Did you mean 'Enumerate'?"]),
    ("fit line.py --objective elbo --strategy q=Reparam --data data.csv --steps 3", ["'q'"]),
    ("fit line.py --steps 100 --data data.csv", ["--steps is of a fit by stochastic gradients", "--objective elbo"]),
    ("fit line.py --stepz 3", ["No such option: --stepz", "ppvi fit --help"]),
    ("fit", ["Missing argument 'FILE:MODEL'"]),
    ("fti line.py", ["fti"]),
    ("resume nowhere", ["nowhere is not the folder of a run"]),
    ("diagnose nowhere", ["nowhere is not the folder of a run"]),
    ("compare nowhere nuts", ["nowhere has no posterior yet"]),
    ("new there", ["there is there already"]),
    ("nuts line.py --data data.csv --out no/where.nc", ["there is no folder no"]),
]


@pytest.mark.parametrize(("line", "pieces"), PROGRAMS, ids=[line for line, _ in PROGRAMS])
def test_programs(line, pieces, shell):
    shell.write(
        line_py=LINE,
        data_csv=regression_csv(),
        broken_py="import numpyro\ndef model(:\n",
        raises_py="import numpyro\n\n\ndef model(x):\n    return 1 / 0\n",
        bare_py="def model(): pass\n",
        two_py="import numpyro\nimport pyro\ndef model(): pass\n",
    )
    (shell.folder / "at_import.py").write_text("import numpyro\nimport no_such_module\n")
    (shell.folder / "there").mkdir()
    said = shell.error(line)
    assert all(piece in said for piece in pieces), said
    assert not list(shell.folder.glob("run/checkpoints/step-*[1-9]*"))


GOOD = {"x": np.arange(20.0), "y": np.arange(20.0)}

DATA = [
    ("", {}, ["needs the argument 'x'", "there are no data", "--data FILE"]),
    ("--data a.csv", {"a.csv": "z,y\n1,2\n"}, ["needs the argument 'x'", "does not take 'z'", "--columns x=z"]),
    ("--data a.csv", {"a.csv": "x,Y\n1,2\n"}, ["takes 'y', which has a default", "'Y'", "--columns y=Y"]),
    ("--data a.csv", {"a.csv": "x,y\n1,2\n2,\n3,NA\n"}, ["'y' has 2 missing of 3 values", "line 3", "mask"]),
    ("--data a.csv", {"a.csv": "x,y\nlow,2\nhigh,3\n"}, ["'x' is of texts, such as 'high', 'low'", "--factor x"]),
    ("--data a.csv --factor x", {"a.csv": "x,y\nlow,2\n,3\n"}, ["'x' has 1 missing", "line 3"]),
    ("--data a.csv --factor y", {"a.csv": "x,y\n1,2\n2,3\n"}, ["--factor y", "no column of texts"]),
    ("--data a.csv", {"a.csv": "x,y\n1,2,3\n"}, ["a.csv:2: 3 cells", "header has 2"]),
    ("--data a.csv", {"a.csv": "1,2\n3,4\n"}, ["first line is numbers", "names"]),
    ("--data a.csv", {"a.csv": "x,x\n3,4\n"}, ["two columns are called 'x'"]),
    ("--data a.csv", {"a.csv": "x,y\n"}, ["a line for each row"]),
    ("--data a.csv", {}, ["a.csv: there is no such file"]),
    ("--data a.xls", {"a.xls": ""}, [".csv, .tsv, .npz or .nc"]),
    ("--data a.csv --data b.csv", {"a.csv": "x\n1\n", "b.csv": "x,y\n1,2\n"}, ["'x' is in a.csv and in b.csv"]),
    ("--data a.csv --set sigma", {"a.csv": "x,y\n1,2\n"}, ["--set sigma=0.5"]),
    ("--data a.csv --set tau=2", {"a.csv": "x,y\n1,2\n"}, ["no argument 'tau'", "'sigma'"]),
    ("--data a.csv --set sigma=[[1],[2,3]]", {"a.csv": "x,y\n1,2\n"}, ["--set sigma: its lists are of unlike lengths"]),
    ('--data a.csv --set sigma=[1,"b"]', {"a.csv": "x,y\n1,2\n"}, ["--set sigma: a list is of numbers"]),
    ("--data a.csv --set x=2", {"a.csv": "x,y\n1,2\n"}, ["the data have 'x', too"]),
    ("--data a.csv --columns x=u,v", {"a.csv": "x,u,y\n1,2,3\n"}, ["there is no column 'v'"]),
    ("--data a.npz", {"a.npz": {**GOOD, "x": np.array([{"a": 1}])}}, ["'x' is of Python objects", "not read"]),
    ("--data a.npz", {"a.npz": {**GOOD, "y": np.array([1.0, np.nan])}}, ["'y' has 1 missing of 2 values", "index 1"]),
    ("--data a.npz", {"a.npz": b"no archive"}, ["a.npz: it cannot be read"]),
    ("--data a.nc", {"a.nc": b"no archive"}, ["a.nc: it cannot be read"]),
    ("--data a.nc", {"a.nc": {**GOOD, "x": np.array(["2020-01-01"], "M8[ns]")}}, ["'x' is of datetime64[ns]"]),
]


@pytest.mark.parametrize(("options", "files", "pieces"), DATA, ids=[f"{line} {list(x)}" for line, x, _ in DATA])
def test_data(options, files, pieces, shell):
    shell.write(line_py=LINE)
    for name, content in files.items():
        made(shell.folder / name, content)
    said = shell.error(f"fit line.py {options}")
    assert all(piece in said for piece in pieces), said


@pytest.mark.parametrize("overwrite", ["", " --overwrite"])
def test_files_that_are_of_no_run_stay(overwrite, shell):
    """A folder for the run may be one of work, with files that are called as those of a run are."""
    shell.write(line_py=LINE, data_csv="x,y\n1,2\n2,3\n", config_json='{"mine": 1}', nuts_nc="mine")
    said = shell.error(f"fit line.py --data data.csv --out .{overwrite}")
    assert "'nuts.nc', 'config.json' would be replaced" in said
    assert (shell.folder / "config.json").read_text() == '{"mine": 1}'
    assert (shell.folder / "nuts.nc").read_text() == "mine"


def made(path, content):
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    else:
        xr.Dataset({name: (f"{name}_row", x) for name, x in content.items()}).to_netcdf(path, engine="h5netcdf")


def test_debug_shows_the_traceback(shell):
    shell.write(raises_py="import numpyro\n\n\ndef model():\n    return 1 / 0\n")
    said = shell("fit raises.py --debug", code=1).stderr
    assert "Traceback" in said
    assert "return 1 / 0" in said


def test_machines_are_told_too(shell):
    shell.write(line_py=LINE)
    found = shell.json("fit line.py", code=1)
    assert "needs the argument 'x'" in found["error"]


def test_no_code_of_a_data_file_runs(shell):
    """A pickle that would write a file, in an npz."""
    (shell.folder / "line.py").write_text(LINE)
    np.savez(shell.folder / "bad.npz", x=np.array([Bomb()], dtype=object))
    said = shell.error("fit line.py --data bad.npz")
    assert "Python objects" in said
    assert not (shell.folder / "exploded").exists()


class Bomb:
    def __reduce__(self):
        return open, ("exploded", "w")


def test_a_fit_that_is_lost_says_where(shell):
    """NaN in the fit is no bad input: exit code 2, and the site."""
    shell.write(
        model_py="import numpyro, jax.numpy as jnp\nimport numpyro.distributions as dist\n\n\ndef model():\n"
        "    a = numpyro.sample('a', dist.Normal(0.0, 1.0))\n    numpyro.factor('f', jnp.log(a - 100.0))\n\n\n"
        "def guide():\n    numpyro.sample('a', dist.Normal(numpyro.param('m', 0.0), 1.0))\n"
    )
    said = shell.error("fit model.py --guide model.py:guide --steps 5", code=2)
    assert "the fit stopped at step 0" in said
    assert "'f'" in said
