"""The other commands, on one small run."""

import json
import re

import pytest

import ppvi
from ppvi.cli.app import app
from tests.cli.conftest import ROOT, Shell, both
from tests.cli.programs import COIN, REGRESSION, TOSSES, regression_csv

PAGE = (ROOT / "docs" / "command_line.md").read_text()
COMMANDS = [x.callback.__name__ for x in app.registered_commands]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, shell):
    said = " ".join(shell(f"{command} --help").stdout.split())
    assert re.search(rf"Example: ppvi {command}\b", said)


def test_the_commands_are_those_of_the_page():
    assert all(f"ppvi {command}" in PAGE for command in COMMANDS)


@pytest.mark.slow
def test_the_page_runs_as_it_is_written(shell, monkeypatch):
    """Each command of the page, in order, in the starter project that its first one makes; what it says of exit codes, too."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in "\n".join(blocks).splitlines():
        command, _, comment = (part.strip() for part in line.partition("#"))
        if command.startswith("cd "):
            monkeypatch.chdir(shell.folder / command.removeprefix("cd "))
        elif command.startswith("ppvi "):
            code = re.search(r"exit code (\d)", comment)
            shell(command.removeprefix("ppvi "), code=int(code[1]) if code else 0)


def test_ppvi_alone_shows_its_commands(shell):
    said = shell("").stdout
    assert all(command in said for command in COMMANDS)
    assert "Exit codes" in said


def test_version(shell):
    found = shell.json("version")
    assert found["versions"]["ppvi"] == ppvi.__version__
    assert found["devices"]["JAX"]
    assert "not installed" in shell("version").stdout or all(found["versions"].values())


@both
def test_a_starter_project_runs(engine, shell, monkeypatch):
    """Its first command, and the one with a guide."""
    shell(f"new harvest --engine {engine}")
    monkeypatch.chdir(shell.folder / "harvest")
    assert (shell.folder / "harvest" / "README.md").read_text().startswith("# harvest")
    found = shell.json("fit model.py --data data.csv --out run")
    assert abs(found["posterior"]["slope"]["mean"] - 0.87) < 0.02  # least squares: 0.872
    shell("fit model.py --guide model.py:guide --objective iwelbo:5 --data data.csv --steps 5 --out own")


DESIGNED = "--guide coin.py:guide --objective elbo --data tosses.csv"


def test_a_proof(shell):
    shell.write(coin_py=COIN["numpyro"], tosses_csv=TOSSES)
    assert shell.json(f"prove coin.py {DESIGNED}")["verdicts"] == ["proved"]


def test_a_biased_gradient_is_exit_code_2(shell):
    """A straight-through gradient is biased by design; so says the proof, and so says the check."""
    model = "import numpyro\nimport numpyro.distributions as dist\n\n\ndef model():\n"
    model += "    z = numpyro.sample('z', dist.Bernoulli(0.3))\n    numpyro.factor('f', -3.0 * (z - 0.4) ** 2)\n\n\n"
    model += "def guide():\n    numpyro.sample('z', dist.Bernoulli(numpyro.param('p', 0.4)))\n"
    shell.write(switch_py=model)
    asked = "switch.py --guide switch.py:guide --strategy z=StraightThrough"
    assert shell.json(f"prove {asked}", code=2)["verdicts"] == ["biased by design"]
    assert shell.json(f"check {asked} --budget 0.5", code=2)["verdicts"] == ["biased"]


def test_an_explanation(shell):
    shell.write(coin_py=COIN["numpyro"], tosses_csv=TOSSES)
    said = shell(f"explain coin.py {DESIGNED}").stdout
    assert "latent_fairness" in said
    assert "Beta" in said
    [found] = shell.json(f"explain coin.py {DESIGNED}")["explanations"]
    assert found["sites"][0]["name"] == "latent_fairness"


def test_pairs_of_objectives(shell):
    """Wake-sleep: an objective for the model, which has a parameter, and one for the guide."""
    learned = COIN["pyro"].replace("alpha0, beta0 = ", "alpha0, beta0 = pyro.param('prior', torch.tensor(10.0)), ")
    learned = learned.replace("torch.tensor(10.0)), torch.tensor(10.0), ", "torch.tensor(10.0)), ")
    shell.write(coin_py=learned, tosses_csv=TOSSES)
    asked = "fit coin.py --guide coin.py:guide --objective reweighted_wake_sleep:5 --data tosses.csv --steps 20"
    shell(asked)
    assert (shell.folder / "run" / "losses.csv").read_text().startswith("step,loss_0,loss_1")


def test_an_objective_and_a_guide_of_ones_own(shell):
    """A guide whose argument is called otherwise, and an objective in a file."""
    guide = COIN["pyro"].replace("def guide(data)", "def guide(tosses)")
    objective = "def objective(p, q):\n    z = q.simulate()\n    return p.log_density(z) - z.log_density\n"
    shell.write(coin_py=guide, own_py=objective, tosses_csv=TOSSES)
    shell("fit coin.py --guide coin.py:guide --objective own.py --data tosses.csv --steps 5")


def test_finite_sites_are_summed_out_beside_an_autoguide(shell):
    model = "import pyro\nimport pyro.distributions as dist\n\n\ndef model(x, /):\n"
    model += "    m = pyro.sample('m', dist.Normal(0.0, 3.0))\n    with pyro.plate('rows', len(x)):\n"
    model += "        z = pyro.sample('z', dist.Bernoulli(0.5))\n"
    model += "        pyro.sample('x', dist.Normal(m + 2.0 * z, 1.0), obs=x)\n"
    shell.write(mix_py=model, x_csv="x\n0.1\n2.2\n-0.3\n1.9\n")
    found = shell.json("fit mix.py --objective elbo --data x.csv --steps 5")
    assert len(found["posterior"]["z"]["mean"]) == 4


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A regression that has been approximated."""
    shell = Shell(tmp_path_factory.mktemp("project"))
    shell.write(line_py=REGRESSION["numpyro"], data_csv=regression_csv())
    shell(
        f"fit {shell.folder / 'line.py'} --data {shell.folder / 'data.csv'} --out {shell.folder / 'run'} --draws 2000"
    )
    return shell


def test_a_diagnosis(project):
    run = project.folder / "run"
    assert project.json(f"diagnose {run}")["verdict"] == "good"
    assert "diagnosis: good" in (run / "report.html").read_text()


def test_beside_nuts(project):
    """NUTS runs once, and is kept."""
    run = project.folder / "run"
    sampled = project.json(f"nuts {run} --samples 500 --warmup 300 --chains 2")
    assert sampled["file"] == str(run / "nuts.nc")
    before = (run / "nuts.nc").stat().st_mtime_ns
    found = project.json(f"compare {run} nuts --within 0.2")
    assert (run / "nuts.nc").stat().st_mtime_ns == before
    assert {x["site"] for x in found["marginals"]} == {"a", "b"}
    project(f"compare {run} {run / 'nuts.nc'} --within 0.0001", code=2)
    assert "Beside" in (run / "report.html").read_text()
    project(f"compare {run} {run}")
    assert "there is no reference" in project.error(f"compare {run} {run / 'no.nc'}")


def test_a_run_has_its_own_options(project):
    said = project.error(f"prove {project.folder / 'run'} --seed 3")
    assert "is a run, which has its own guide, objective and data" in said
    assert project.json(f"prove {project.folder / 'run'}")["verdicts"] == ["proved"]


def test_a_report_without_matplotlib(project, monkeypatch):
    """It says so plainly, and how to get figures."""
    find = ppvi.cli.pages.find_spec
    monkeypatch.setattr(ppvi.cli.pages, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    project(f"resume {project.folder / 'run'}")
    page = (project.folder / "run" / "report.html").read_text()
    assert "matplotlib is not installed: pip install matplotlib" in page
    assert "<img" not in page
    monkeypatch.undo()
    project(f"resume {project.folder / 'run'}")
    assert (project.folder / "run" / "report.html").read_text().count("<img") == 2


def test_nothing_in_a_run_is_a_pickle(project):
    """Text, safetensors and NetCDF."""
    files = [x for x in (project.folder / "run").rglob("*") if x.is_file()]
    assert {x.suffix for x in files} <= {".json", ".csv", ".nc", ".html", ".safetensors"}
    config = json.loads((project.folder / "run" / "config.json").read_text())
    assert config["question"]["program"].endswith("line.py")
