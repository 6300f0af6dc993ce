"""`ppvi fit`: programs as users have them, on data as users have them, against posteriors that are known."""

import numpy as np
import pytest
import xarray as xr

from ppvi.engine._arviz import read
from tests.cli.conftest import ROOT, both, pyro_first
from tests.cli.programs import COIN, REGRESSION, SCHOOLS, TOSSES, X, Y, regression_csv, regression_posterior

WRITTEN = ["checkpoints", "config.json", "losses.csv", "posterior.nc", "report.html", "result.json"]


@both
def test_the_libraries_first_model(engine, shell):
    """Six heads in ten tosses, a prior of Beta(10, 10): the posterior is Beta(16, 14), which the guide's family has."""
    shell.write(coin_py=COIN[engine], tosses_csv=TOSSES)
    asked = (
        "fit coin.py:model --guide coin.py:guide --objective elbo --data tosses.csv --lr 0.02 --steps 1500 --until 120s"
    )
    found = shell.json(asked)
    fairness = found["posterior"]["latent_fairness"]
    assert abs(fairness["mean"] - 16 / 30) < 0.02
    assert abs(fairness["sd"] - np.sqrt(16 * 14 / (30**2 * 31))) < 0.015
    assert found["steps"] == 1500
    assert found["why"] == "all steps taken"
    assert sorted(x.name for x in (shell.folder / "run").iterdir()) == WRITTEN
    losses = np.loadtxt(shell.folder / "run" / "losses.csv", delimiter=",", skiprows=1)
    assert losses.shape == (1500, 2)
    assert losses[-1, 0] == 1500
    draws = read(shell.folder / "run" / "posterior.nc")
    assert draws["posterior"]["latent_fairness"].shape == (1, 2000)
    np.testing.assert_allclose(draws["losses"]["loss"].values, losses[:, 1])


@both
def test_a_regression_is_approximated(engine, shell):
    """Columns become arguments by name, `sigma` is a number; the posterior is Gaussian, which `auto` finds."""
    shell.write(line_py=REGRESSION[engine], data_csv=regression_csv())
    result = shell("fit line.py --data data.csv --set sigma=0.5 --out line")
    assert "x (20), y (20), sigma = 0.5; not taken by the model: label" in result.stderr
    assert "converged: yes" in result.stdout
    posterior = read(shell.folder / "line" / "posterior.nc")["posterior"]
    means, sds = regression_posterior(0.5)
    for name, mean, sd in zip("ab", means, sds, strict=True):
        assert abs(float(posterior[name].mean()) - mean) < 0.1 * sd
        assert abs(float(posterior[name].std()) / sd - 1) < 0.1


@pyro_first
def test_eight_schools(engine, shell):
    """The model of this repository, on whole numbers of a CSV."""
    shell.write(schools_csv=SCHOOLS)
    program = ROOT / "models" / {"numpyro": "eight_schools.py", "pyro": "eight_schools_pyro.py"}[engine]
    found = shell.json(f"fit {program}:model --data schools.csv --draws 4000")
    assert found["converged"].startswith("yes")
    assert abs(found["posterior"]["mu"]["mean"] - 4.4) < 0.5  # of posteriordb's reference draws
    assert abs(found["posterior"]["mu"]["sd"] - 3.3) < 0.5
    assert len(found["posterior"]["theta"]["mean"]) == 8


@pytest.mark.parametrize("file", ["data.npz", "data.nc"])
def test_the_same_data_from_other_files(file, finished):
    if file.endswith("npz"):
        np.savez(finished.folder / file, x=X, y=Y)
    else:
        xr.Dataset({"x": ("row", X), "y": ("row", Y)}).to_netcdf(finished.folder / file, engine="h5netcdf")
    finished(f"fit line.py --guide AutoDelta --objective elbo --data {file} --steps 5 --draws 5 --out other")
    by_csv, again = (read(finished.folder / run / "posterior.nc")["posterior"]["a"] for run in ("run", "other"))
    np.testing.assert_allclose(again, by_csv, atol=1e-4)
