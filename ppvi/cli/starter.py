"""Starter projects: a model, a guide, data and the commands to try, which run as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ppvi.cli.failures import InputError

NUMPYRO = '''"""Rain and yield: a regression with an unknown slope and spread, on NumPyro."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints


def model(rain, harvest):
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 5.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 5.0))
    spread = numpyro.sample("spread", dist.HalfNormal(2.0))
    with numpyro.plate("fields", len(rain)):
        numpyro.sample("harvest", dist.Normal(intercept + slope * rain, spread), obs=harvest)


def guide(rain, harvest):
    """Normal distributions, of which none knows of the others; `--guide auto` needs none of this."""
    for name in ("intercept", "slope"):
        loc = numpyro.param(f"{name}_loc", 0.0)
        scale = numpyro.param(f"{name}_scale", 0.1, constraint=constraints.positive)
        numpyro.sample(name, dist.Normal(loc, scale))
    loc = numpyro.param("spread_loc", jnp.log(0.5))
    scale = numpyro.param("spread_scale", 0.1, constraint=constraints.positive)
    numpyro.sample("spread", dist.LogNormal(loc, scale))
'''

PYRO = '''"""Rain and yield: a regression with an unknown slope and spread, on Pyro."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints


def model(rain, harvest):
    intercept = pyro.sample("intercept", dist.Normal(0.0, 5.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 5.0))
    spread = pyro.sample("spread", dist.HalfNormal(2.0))
    with pyro.plate("fields", len(rain)):
        pyro.sample("harvest", dist.Normal(intercept + slope * rain, spread), obs=harvest)


def guide(rain, harvest):
    """Normal distributions, of which none knows of the others; `--guide auto` needs none of this."""
    for name in ("intercept", "slope"):
        loc = pyro.param(f"{name}_loc", torch.tensor(0.0))
        scale = pyro.param(f"{name}_scale", torch.tensor(0.1), constraint=constraints.positive)
        pyro.sample(name, dist.Normal(loc, scale))
    loc = pyro.param("spread_loc", torch.tensor(math.log(0.5)))
    scale = pyro.param("spread_scale", torch.tensor(0.1), constraint=constraints.positive)
    pyro.sample("spread", dist.LogNormal(loc, scale))
'''

COMMANDS = (
    (
        "ppvi fit model.py --data data.csv --out run",
        "from the model to draws, without a guide; look at run/report.html",
    ),
    ("ppvi diagnose run", "whether to believe it"),
    ("ppvi compare run nuts", "beside MCMC"),
    (
        "ppvi fit model.py --guide model.py:guide --objective iwelbo:5 --data data.csv --until converged --out own",
        "with a guide and an objective of one's own choice",
    ),
    ("ppvi check own", "is its gradient right?"),
)


def begin(folder: Path, engine: str) -> list[str]:
    """Write a starter project; the names of its files."""
    if folder.exists():
        raise InputError(f"{folder} is there already: choose another name.")
    folder.mkdir(parents=True)
    files = {
        "model.py": {"numpyro": NUMPYRO, "pyro": PYRO}[engine],
        "data.csv": _data(),
        "README.md": _readme(folder.name),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return list(files)


def _data() -> str:
    rng = np.random.default_rng(0)
    rain = rng.uniform(0.0, 4.0, 40)
    harvest = 1.5 + 0.8 * rain + 0.6 * rng.standard_normal(40)
    rows = (f"{number},{x:.3f},{y:.3f}" for number, (x, y) in enumerate(zip(rain, harvest, strict=True), 1))
    return "\n".join(["field,rain,harvest", *rows]) + "\n"


def _readme(name: str) -> str:
    said = "\n".join(f"{command}    # {why}" for command, why in COMMANDS)
    return (
        f"# {name}\n\nA model in `model.py`, whose arguments are columns of `data.csv` by their names. The data are made up: "
        f"intercept 1.5,\nslope 0.8, spread 0.6.\n\n```bash\n{said}\n```\n"
    )
