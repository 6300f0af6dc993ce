"""How many gradients a Gaussian guide takes to within a nat of its best bound, by optimiser, on fifteen real posteriors.

NumPyro's AutoMultivariateNormal from its own start, the ELBO with one draw a step, in double precision. Each optimiser has the
settings that it comes with; Adam has three step sizes, and the best is taken for it. A run is looked at after 20, 40, 60, ...
steps, about an eighth further each time, by the bound over the same draws for all, which no step has. The best bound is the
highest that any run has reached, `approximate` of the model as written among them. A run ends where it has been within a nat of
the best that was known and has gone on three times as long, after 10,000 steps, or 30 processor seconds. The error is that of
the worst marginal then, in sds of the reference; seconds those of the processor, compilation among them. Every run is a record
in `curves/geometry.jsonl`; what has a record is not run again.

    python -m benchmarks.geometry [POSTERIOR ...] [--ways WAY ...] [--seed N] [--again]
    python -m benchmarks.geometry --table      # from the records: RESULTS.md and the figure
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from numpyro.infer import Predictive
from numpyro.infer.autoguide import AutoMultivariateNormal

import ppvi
import ppvi.numpyro as vi
from benchmarks.geometry_pages import FILE, draw
from benchmarks.posterior_peers.numpyro_ways import continuous
from benchmarks.posterior_peers.serving import DRAWS, data_of
from benchmarks.posterior_records import Key, Records
from benchmarks.posteriors import judged
from models.posteriors import MODELS
from ppvi.objectives import elbo
from ppvi.optimizers import BuresWasserstein, Natural, Proximal

STEPS, EVERY, LOOKS, LONGER, SECONDS = 10_000, 20, 512, 3, 30.0
"""The most steps, and those between two looks; draws of a bound; how many times as long a run goes on that was near; and the
most processor seconds of a run."""

WAYS: dict[str, Any] = {
    "Adam 0.1": 0.1,
    "Adam 0.01": 0.01,
    "Adam 0.001": 0.001,
    "Natural": Natural(),
    "BuresWasserstein": BuresWasserstein(),
    "Proximal": Proximal(),
}
APPROXIMATE = "approximate"


def looked_at() -> list[int]:
    """Steps at which a run is looked at, about an eighth apart."""
    found = [EVERY]
    while found[-1] < STEPS:
        found.append(max(found[-1] + EVERY, EVERY * round(1.125 * found[-1] / EVERY)))
    return [*found[:-1], STEPS]


class Problem:
    """A posterior, the guide of it, and the bound as all runs are measured by."""

    def __init__(self, name: str, seed: int):
        self.name, self.data, self.key = name, data_of(name), jax.random.key(seed)
        model = MODELS[name]
        self.guide = AutoMultivariateNormal(continuous(model))
        self.objective = vi.objective(elbo, model, self.guide)

        def many(p: ppvi.Program, q: ppvi.Program) -> Any:
            return ppvi.replicate(LOOKS, lambda: elbo(p, q)).mean()

        averaged = vi.objective(many, model, self.guide)
        averaged.init(self.key, **self.data)
        self._bound = jax.jit(lambda params: averaged.estimate(jax.random.key(1234), params, **self.data))
        self._drawn = jax.jit(self._draws)

    def bound(self, params: Mapping[str, Any]) -> float:
        return float(self._bound(own(params)))

    def errors(self, params: Mapping[str, Any]) -> dict[str, float]:
        return judged(self.name, {site: np.asarray(x) for site, x in self._drawn(own(params)).items()})

    def _draws(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Draws of the guide, and of what the model computes of them."""
        drawn = self.guide.sample_posterior(jax.random.key(1), params, sample_shape=(DRAWS,), **self.data)
        if any(site["type"] == "deterministic" for site in self.guide.prototype_trace.values()):
            drawn |= Predictive(MODELS[self.name], drawn, infer_discrete=False)(jax.random.key(2), **self.data)
        return drawn


def own(params: Mapping[str, Any]) -> dict[str, Any]:
    """The guide's."""
    return {name: params[name] for name in ("auto_loc", "auto_scale_tril")}


def approximated(problem: Problem) -> dict[str, Any]:
    """What `approximate` has reached, of the model as written and where it is one Gaussian; else nothing is known before."""
    began = time.process_time()
    fit = vi.approximate(MODELS[problem.name], problem.key, **problem.data)
    seconds, about = time.process_time() - began, fit.approximated
    if about.version not in (None, "as written") or len(about.weights) > 1:
        return {"seconds": seconds, "bounds": []}
    return {"seconds": seconds, "bounds": [problem.bound(fit.params)], **problem.errors(fit.params)}


def run(problem: Problem, optimizer: Any, top: float) -> dict[str, Any]:
    """The bounds of one fit by step, and what it ended with."""
    steps, bounds, looking, near = looked_at(), [], [0.0], [STEPS]

    def look(step: int, fit: vi.Fit) -> bool:
        began = time.process_time()
        if step in steps:
            bounds.append(problem.bound(fit.params))
            if bounds[-1] > top - 1:
                near[0] = min(near[0], step)
        looking[0] += time.process_time() - began
        return step >= LONGER * near[0] or time.process_time() - start - looking[0] > SECONDS

    start, error = time.process_time(), None
    try:
        fit = vi.fit(
            problem.objective,
            problem.key,
            **problem.data,
            optimizer=optimizer,
            num_steps=STEPS,
            callback=look,
            every=EVERY,
            progress=False,
        )
    except ppvi.FitError as stopped:
        error, fit = f"{stopped}".partition(".")[0], stopped.fit
    seconds = time.process_time() - start - looking[0]
    dimension = len(fit.params["auto_loc"])
    ended = {} if error else problem.errors(fit.params)
    return {"dimension": dimension, "bounds": bounds, "seconds": seconds, "error": error, **ended}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(MODELS), metavar="POSTERIOR")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), metavar="WAY")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="what has a record, too")
    parser.add_argument("--table", action="store_true", help="only write the table and the figure")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    records = Records.read(FILE)
    for name in [] if options.table else options.names:
        keys = {way: Key(name, way, options.seed) for way in (APPROXIMATE, *options.ways)}
        if not (options.again or any(key not in records for key in keys.values())):
            continue
        problem = Problem(name, options.seed)
        made: dict[str, Callable[[], dict[str, Any]]] = {APPROXIMATE: lambda p=problem: approximated(p)}
        for way in options.ways:
            made[way] = lambda p=problem, way=way: run(p, WAYS[way], top(records, name))
        for way, key in keys.items():
            if key not in records or (options.again and way != APPROXIMATE):
                records[key] = made[way]()
                print(*key, {k: x for k, x in records[key].items() if k != "bounds"}, flush=True)
        jax.clear_caches()
    draw(records, list(MODELS), looked_at())
    return 0


def top(records: Records, name: str) -> float:
    """The highest bound of a posterior that is known."""
    known = [x for key, record in records.items() if key.posterior == name for x in record["bounds"]]
    return max((x for x in known if np.isfinite(x)), default=np.inf)


if __name__ == "__main__":
    sys.exit(main())
