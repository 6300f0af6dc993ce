"""Reference data: found through PPVI_DATA, else ../shared/data; tests that need it skip where it is absent."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pytest

ROOT = Path(os.environ.get("PPVI_DATA", Path(__file__).parents[2] / "shared" / "data"))


def posterior_data(posterior: str) -> dict[str, Any]:
    """The data of a posterior of posteriordb, lists as arrays."""
    found = _member(posterior, "data.json.zip")
    return {name: np.asarray(x) if isinstance(x, list) else x for name, x in found.items()}


def gold_standard(posterior: str, sites: tuple[str, ...] | None = None) -> Any:
    """Reference draws of posteriordb, 10 chains of 1,000; of all sites by default."""
    chains = _member(posterior, "reference_draws.json.zip")
    draws = {}
    for site in sites or dict.fromkeys(name.split("[")[0] for name in chains[0]):
        names = [name for name in chains[0] if name == site or name.startswith(f"{site}[")]
        values = np.stack([[chain[name] for name in names] for chain in chains])
        draws[site] = values[:, 0] if names == [site] else np.moveaxis(values, 1, -1)
    return arviz_data(posterior=draws)


def _member(posterior: str, file: str) -> Any:
    path = ROOT / "posteriordb" / posterior / file
    if not path.exists():
        pytest.skip(f"there is no {path}: set PPVI_DATA to a folder with posteriordb in it")
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(archive.namelist()[0]))


def arviz_data(**groups):
    """Data by ArviZ's own converter, of whichever version there is."""
    return az.from_dict(**groups) if hasattr(az, "from_pyro") else az.from_dict(groups)
