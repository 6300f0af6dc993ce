"""One Adam step of Attend, Infer, Repeat on 64 images: ppvi, code written by hand, GenJAX and Pyro.

Table 2 of Becker, Lew et al. 2024. All contenders use the same networks, the separable spatial transformer among them, and
the same images; each runs in a process of its own, and they take turns (`benchmarks.turns`). The code by hand has the flags
of XLA that ppvi sets (`ppvi.numpyro._xla`), the others their own. Run with

    python -m benchmarks.air_steps [--genjax PYTHON]

where PYTHON is the interpreter of an environment with GenJAX, which `benchmarks/genjax_env.sh` makes; without it GenJAX is
left out. It writes `out/air_steps.json`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.results import table
from benchmarks.timing import summary
from benchmarks.turns import Contender, rounds
from models.multi_mnist import multi_mnist

PEERS = {
    "REINFORCE": ("ppvi", "by hand", "GenJAX", "Pyro", "ppvi on Pyro"),
    "MVD": ("ppvi", "by hand", "GenJAX", "ppvi on Pyro"),
    "ENUM": ("ppvi", "by hand", "GenJAX", "Pyro", "ppvi on Pyro"),
    "MVD + ENUM": ("ppvi", "GenJAX"),
    "IWELBO(2) + REINFORCE": ("ppvi", "by hand", "GenJAX"),
    "IWELBO(2) + MVD": ("ppvi", "by hand", "GenJAX"),
}
"""Who runs what: Pyro has no measure-valued derivative, and its RenyiELBO no score term for discrete sites."""
MODULES = {
    "ppvi": "ppvi_air",
    "by hand": "hand_air",
    "GenJAX": "genjax_air",
    "Pyro": "pyro_air",
    "ppvi on Pyro": "ppvi_pyro_air",
}
ROUNDS, SECONDS = 12, 0.6


def compare(estimator, images, genjax):
    """Seconds a step by contender and round, and seconds to the first step done, initialisation and compilation included."""
    contenders = {}
    for name in PEERS[estimator]:
        python = genjax if name == "GenJAX" else sys.executable
        if python is not None:
            command = [python, "-m", f"benchmarks.air_peers.{MODULES[name]}", estimator, images]
            contenders[name] = Contender(command, os.environ)
    try:
        return rounds(contenders, ROUNDS, SECONDS), {name: c.first for name, c in contenders.items()}
    finally:
        for contender in contenders.values():
            contender.end()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--genjax", help="interpreter of an environment with GenJAX")
    genjax = parser.parse_args().genjax
    rows, others = [], list(MODULES)[1:]
    with tempfile.TemporaryDirectory() as folder:
        images = str(Path(folder) / "images.npy")
        np.save(images, multi_mnist(64, seed=1)[0])
        for estimator in PEERS:
            times, firsts = compare(estimator, images, genjax)
            ratios = {name: np.array(times["ppvi"]) / np.array(x) for name, x in times.items() if name != "ppvi"}
            known = (summary(ratios[name]) if name in ratios else "" for name in others)
            first = ", ".join(f"{name} {seconds:.0f}" for name, seconds in firsts.items())
            rows.append((estimator, f"{1e3 * np.median(times['ppvi']):.0f} ms", *known, first))
            print(rows[-1], flush=True)
    header = ("estimator", "ppvi", *(f"ppvi / {name}" for name in others), "seconds to the end of the first step")
    table("AIR, one Adam step of 64 images: median [min, max] of the ratios by round", header, rows)


if __name__ == "__main__":
    main()
