"""A guard: ratios of times beside those that are kept, and which of them moved by more than the noise; in three minutes.

Every row is timed in several sittings, half a minute apart, since on a shared machine a minute is more like itself than like
the next: the row's ratio is the mean over sittings of the logarithms of their median ratios, with its standard error. A row is
said to have moved when the difference from `baseline.json` is more than five standard errors of both, which of so few sittings
are uncertain themselves, and 5%.

`python -m benchmarks.quick` compares and never fails; `python -m benchmarks.quick --keep` writes what it finds as the new
baseline. `--only WORD ...` takes the rows that have one of these words in their names.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pyro
import torch

from benchmarks import cone, control_flow, mixture, pyro_svi, scaling, vae_overhead
from benchmarks.results import table
from benchmarks.timing import rounds

BASELINE = Path(__file__).parent / "baseline.json"
SITTINGS, SECONDS = 4, 2.0
LEAST = math.log(1.05)


class Row(NamedTuple):
    """Two contenders of those that a benchmark has."""

    name: str
    ours: str
    theirs: str
    contenders: Callable[[], dict[str, Callable[[], Any]]]


def of_mixture() -> dict[str, Callable[[], Any]]:
    params, x = mixture.problem(1000)
    return {name: lambda step=step: step(jax.random.key(0), params, x) for name, step in mixture.contenders().items()}


def of_pyro(cases: Any) -> Callable[[], dict[str, Callable[[], Any]]]:
    return lambda: pyro_svi.contenders(next(iter(cases())), {"ppvi": False})[0]


ROWS = [
    Row("mixture, Enumerate / by hand", "Enumerate()", "by hand", of_mixture),
    Row("mixture, Reinforce / by hand", "Reinforce()", "by hand", of_mixture),
    Row("mixture, Reinforce / score by hand", "Reinforce()", "score by hand", of_mixture),
    Row("mixture, Reinforce / TraceGraph_ELBO", "Reinforce()", "TraceGraph_ELBO", of_mixture),
    Row("one particle / by hand", "ppvi", "by hand", lambda: scaling.contenders(1, 1000)),
    Row("ten particles / by hand", "ppvi", "by hand", lambda: scaling.contenders(10, 1000)),
    Row("random walk, Reinforce / by hand", "ppvi", "by hand", control_flow.of_walks),
    Row("hidden Markov chain / by hand", "ppvi", "by hand", control_flow.of_chains),
    Row("hidden Markov chain / NumPyro", "ppvi", "NumPyro, enumeration", control_flow.of_chains),
    Row("DIWHVI / by hand", "ppvi", "by hand", cone.of_diwhvi),
    Row("VAE, batch 64 / by hand", "ppvi", "by hand", lambda: vae_overhead.contenders(64)),
    Row("VAE, batch 64 / Trace_ELBO", "ppvi", "NumPyro", lambda: vae_overhead.contenders(64)),
    Row("Pyro: mixture, Reinforce / Trace_ELBO", "ppvi", "Pyro", of_pyro(pyro_svi.mixture)),
    Row("Pyro: VAE 196-64-5 / Trace_ELBO", "ppvi", "Pyro", of_pyro(lambda: pyro_svi.autoencoder(64, 196, 64, 5))),
    Row("Pyro: eight schools / Trace_ELBO", "ppvi", "Pyro", of_pyro(pyro_svi.schools)),
]


class Measured(NamedTuple):
    """A ratio's logarithm and its standard error over sittings."""

    log_ratio: float
    error: float


def measured(sittings: Any) -> Measured:
    """Of the median ratios of sittings."""
    logs = np.log(sittings)
    return Measured(float(logs.mean()), float(logs.std(ddof=1) / math.sqrt(len(logs))))


def moved(now: Measured, before: Measured) -> str:
    """In a word, "" where it is no more than noise: five standard errors of both, and 5%."""
    change = now.log_ratio - before.log_ratio
    if abs(change) <= max(5 * math.hypot(now.error, before.error), LEAST):
        return ""
    return f"{'slower' if change > 0 else 'faster'} by {abs(math.expm1(change)):.0%}"


def measure(rows: list[Row], sittings: int = SITTINGS, seconds: float = SECONDS) -> dict[str, Measured]:
    """Each row in so many sittings of so many seconds, one round of all rows after the other."""
    made = {row.contenders: row.contenders() for row in rows}
    pairs = {row.name: {name: made[row.contenders][name] for name in (row.ours, row.theirs)} for row in rows}
    found: dict[str, list[float]] = {row.name: [] for row in rows}
    for _ in range(sittings):
        for row in rows:
            times = rounds(pairs[row.name], seconds)
            found[row.name].append(float(np.median(times[row.ours] / times[row.theirs])))
    return {name: measured(ratios) for name, ratios in found.items()}


def kept() -> dict[str, Measured]:
    """The baseline; of no rows where there is none."""
    return (
        {name: Measured(*pair) for name, pair in json.loads(BASELINE.read_text()).items()} if BASELINE.exists() else {}
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quick", description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="write what is found as the baseline")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="rows with one of these in their names")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    pyro.enable_validation(False)
    torch.set_num_threads(1)
    rows = [row for row in ROWS if any(word in row.name for word in asked.only)]
    if not rows:
        parser.error(f"no row has any of {asked.only} in its name; there are: {', '.join(row.name for row in ROWS)}")
    found, before = measure(rows), kept()
    said = []
    for name, now in found.items():
        then = before.get(name)
        change = (moved(now, then) or "-") if then else "new"
        said.append((name, ratio(now), ratio(then) if then else "", change))
    table("ratios of times ± one standard error", ("row", "now", "kept", "moved"), said)
    if asked.keep:
        BASELINE.write_text(json.dumps(before | found, indent=1) + "\n")


def ratio(found: Measured) -> str:
    return f"{math.exp(found.log_ratio):.2f} ± {math.exp(found.log_ratio) * found.error:.2f}"


if __name__ == "__main__":
    main()
