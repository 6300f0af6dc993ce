"""Fifteen real posteriors with reference draws: how far from them, and how many processor seconds, beside peers.

Ways to a posterior, all of them with the settings they come with, each in the environment of its system (`posterior_peers`),
which is made when it is first needed, and each run in a process of its own, with a limit of processor seconds. Errors are
those of the worst marginal, in standard deviations of the reference: of the mean, of the logarithm of the sd, and the
Wasserstein distance. Every run is a record in `curves/posteriors.jsonl`, a failure with its reason; what has a record is not
run again.

    python -m benchmarks.posteriors [POSTERIOR ...] [--seeds N] [--ways WAY ...] [--again]
    python -m benchmarks.posteriors --table     # from the records: RESULTS.md, POSTERIORS.md and the figure
    python -m benchmarks.posteriors --check     # whether the peers' models have the densities of ours

The data are those of posteriordb, in the folder that the environment variable PPVI_DATA names.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import ppvi
from benchmarks.posterior_pages import draw
from benchmarks.posterior_peers.checking import check
from benchmarks.posterior_peers.contenders import WAYS, started
from benchmarks.posterior_peers.serving import DATA
from benchmarks.posterior_records import Key, Records
from models.posteriors import MODELS


def measured(key: Key) -> dict[str, Any]:
    """One run: errors, seconds and versions, and what failed; with no compiled code of other runs at hand."""
    with tempfile.TemporaryDirectory(prefix="posteriors") as folder:
        file = Path(folder) / "draws.npz"
        _, error = started(key.way, key.way, key.posterior, str(key.seed), str(file), cache=folder)
        if not file.exists():
            return {"error": error}
        with np.load(file) as found:
            draws = {name.removeprefix("draws/"): x for name, x in found.items() if name.startswith("draws/")}
            seconds, again = map(float, found["seconds"])
            versions = json.loads(str(found["versions"]))
    kept = {"seconds": seconds, "again": None if error else again, "versions": versions}
    if not all(np.isfinite(x).all() for x in draws.values()):
        return {**kept, "error": "draws that are not finite"}
    return {**judged(key.posterior, draws), **kept, "error": error and f"the second call: {error}"}


def judged(name: str, draws: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Errors of the worst marginal. The draws are one chain: nothing else could tell theirs from another axis."""
    marginals = ppvi.compare([draws], DATA / name / "reference_draws.json.zip").marginals
    with np.errstate(divide="ignore"):
        each = [(m.mean_error, np.log(m.sd_ratio), m.wasserstein) for m in marginals]
    worst = [float(np.abs(x).max()) for x in zip(*each, strict=True)]
    return dict(zip(("mean_error", "log_sd_ratio", "w1"), worst, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(MODELS), metavar="POSTERIOR")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), metavar="WAY")
    parser.add_argument("--again", action="store_true", help="what has a record, too")
    parser.add_argument("--table", action="store_true", help="only draw the tables and the figure")
    parser.add_argument("--check", action="store_true", help="only compare the peers' models with ours")
    options = parser.parse_args()
    if options.check:
        return check(options.names)
    records = Records.read()
    asked = [Key(name, way, seed) for seed in range(options.seeds) for way in options.ways for name in options.names]
    for key in [] if options.table else asked:
        if options.again or key not in records:
            records[key] = measured(key)
            print(*key, records[key], flush=True)
    draw(records, list(MODELS), list(WAYS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
