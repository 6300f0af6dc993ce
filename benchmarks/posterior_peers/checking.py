"""Whether a peer's model is ours: their log densities at points differ by a constant.

Densities are of the constrained sites, without the Jacobians of whatever transforms a system has, and with discrete sites
summed out.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax import random
from numpyro.contrib.funsor import config_enumerate, enum, log_density as enumerated_log_density
from numpyro.infer.initialization import init_to_median
from numpyro.infer.util import initialize_model, log_density

from benchmarks.posterior_peers.contenders import started
from benchmarks.posterior_peers.numpyro_ways import continuous
from benchmarks.posterior_peers.serving import data_of
from models.posteriors import MODELS

TWINS = "Pyro SVI", "PyMC ADVI"
"""Ways that have models of their own."""
POINTS = 5
TOLERANCE = 1e-5
"""Relative, of log densities: what ours of Lotka and Volterra's equations is off by, at the tolerance that its solver has."""


def points_of(name: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Points about the middle of the prior, and our log densities there."""
    model, data = MODELS[name], data_of(name)
    summed = continuous(model) is not model
    enumerated = enum(config_enumerate(model), first_available_dim=-2) if summed else model
    points, densities = [], []
    for i in range(POINTS):
        begun = initialize_model(random.key(i), model, model_kwargs=data, init_strategy=init_to_median)
        rng = np.random.default_rng(i)
        z = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape), begun.param_info.z)
        point = begun.postprocess_fn(z)
        found, _ = (enumerated_log_density if summed else log_density)(enumerated, (), data, point)
        points.append(point)
        densities.append(float(found))
    return {site: np.stack([np.asarray(x[site]) for x in points]) for site in points[0]}, np.array(densities)


def check(names: Sequence[str]) -> int:
    """Say of each model how far its log density is from ours; the number of those that are not ours."""
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="posteriors") as folder:
        for name in names:
            points, ours = points_of(name)
            file = Path(folder) / "points.npz"
            np.savez(file, **points)
            for way in TWINS:
                said, error = started(way, "check", name, str(file), cache=folder)
                if error is None:
                    gaps = np.array(json.loads(said.splitlines()[-1])) - ours
                    apart = float(np.ptp(gaps) / (1 + np.abs(ours).max()))
                    wrong += not apart < TOLERANCE
                    error = f"{'ours' if apart < TOLERANCE else 'NOT OURS'}, to {apart:.1e}"
                else:
                    wrong += not error.startswith("NotImplementedError")
                print(f"{name}, {way}: {error}", flush=True)
    return wrong
