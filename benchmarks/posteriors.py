"""Fifteen real posteriors with reference draws: how far from them, and how many processor seconds.

Four ways to a posterior, all of them with the settings they come with: `approximate`, `fit` of AutoMultivariateNormal,
NumPyro's SVI of it, and NUTS. Each runs in a process of its own, in double precision, and then again without compilation.
Errors are those of the worst marginal, in standard deviations of the reference: of the mean, of the logarithm of the sd, and
the Wasserstein distance; medians and the worst over the seeds. Run with
`python -m benchmarks.posteriors [--seeds N] [NAME ...]`; the data are those of posteriordb, in the folder that the environment
variable PPVI_DATA names.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import table

DATA = Path(os.environ.get("PPVI_DATA", "../shared/data")) / "posteriordb"
STEPS, DRAWS = 20_000, 4000


def approximate(model, key, data):
    import ppvi.numpyro as vi

    return vi.approximate(model, key, **data).posterior(draws=DRAWS, log_likelihood=False)


def fit(model, key, data):
    from numpyro.infer.autoguide import AutoMultivariateNormal

    import ppvi.numpyro as vi
    from ppvi.objectives import elbo

    bound = vi.objective(elbo, model, AutoMultivariateNormal(_continuous(model)))
    found = vi.fit(bound, key, **data, num_steps=STEPS, progress=False)
    return found.posterior(draws=DRAWS, log_likelihood=False)


def svi(model, key, data):
    from jax import random
    from numpyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO
    from numpyro.infer.autoguide import AutoMultivariateNormal
    from numpyro.optim import Adam

    guide = AutoMultivariateNormal(_continuous(model))
    loss = Trace_ELBO() if _continuous(model) is model else TraceEnum_ELBO()
    found = SVI(model, guide, Adam(0.01), loss).run(key, STEPS, progress_bar=False, **data)
    drawn = guide.sample_posterior(random.fold_in(key, 1), found.params, sample_shape=(DRAWS,), **data)
    if any(site["type"] == "deterministic" for site in guide.prototype_trace.values()):
        drawn |= Predictive(model, drawn, infer_discrete=False)(random.fold_in(key, 2), **data)
    return {name: np.asarray(x) for name, x in drawn.items()}


def nuts(model, key, data):
    import ppvi.numpyro as vi

    return vi.nuts(model, key, **data, progress=False)


WAYS = {"approximate": approximate, "fit": fit, "SVI": svi, "NUTS": nuts}


def _continuous(model):
    """Without the discrete sites, of which an autoguide has none."""
    from numpyro.handlers import block

    hidden = {"hmm": ["z_0", "z"], "gaussian_mixture": ["second"]}.get(model.__name__)
    return block(model, hide=hidden) if hidden else model


def member(name: str, file: str) -> Any:
    with zipfile.ZipFile(DATA / name / file) as archive:
        return json.loads(archive.read(archive.namelist()[0]))


def run(way: str, name: str, seed: int) -> None:
    """One way to one posterior, in this process; prints what came of it."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import ppvi
    from models.posteriors import MODELS

    data = {k: np.asarray(x) if isinstance(x, list) else x for k, x in member(name, "data.json.zip").items()}
    seconds, found = [], []
    for again in range(2):
        began = time.process_time()
        found.append(WAYS[way](MODELS[name], jax.random.key(seed + 1000 * again), data))
        seconds.append(time.process_time() - began)
    marginals = ppvi.compare(found[0], DATA / name / "reference_draws.json.zip").marginals
    each = [(m.mean_error, np.log(m.sd_ratio), m.wasserstein) for m in marginals]
    errors = [max(map(abs, x)) for x in zip(*each, strict=True)]
    print(json.dumps([*map(float, errors), *seconds]))


def measured(way: str, name: str, seed: int) -> list[float]:
    """Infinite errors where it fails."""
    command = [sys.executable, "-m", "benchmarks.posteriors", "--run", way, "--seed", str(seed), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{way}, {name}, seed {seed}: {done.stderr.strip().splitlines()[-1][:160]}", file=sys.stderr)
        return [float("nan")] * 5
    return json.loads(done.stdout.splitlines()[-1])


def shown(numbers: np.ndarray) -> list[str]:
    """Medians and the worst of errors; medians of seconds."""
    errors = [f"{np.median(x):.2f} ({x.max():.2f})" for x in numbers[:, :3].T]
    return [*errors, *(f"{np.median(x):.1f}" for x in numbers[:, 3:].T)]


def main() -> None:
    from models.posteriors import MODELS

    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--run")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    if options.run:
        run(options.run, options.names[0], options.seed)
        return
    header = ("posterior", "way", "mean error", "log sd ratio", "W1", "seconds", "again")
    rows = []
    for name in options.names:
        for way in options.ways:
            found = np.array([measured(way, name, seed) for seed in range(options.seeds)])
            rows.append((name, way, *shown(found)))
            print(" | ".join(rows[-1]), flush=True)
    table(f"Worst marginals, medians (worst) of {options.seeds} seeds, and processor seconds", header, rows)


if __name__ == "__main__":
    main()
