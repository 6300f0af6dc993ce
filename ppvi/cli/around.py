"""What is installed here, and the devices that are seen."""

from __future__ import annotations

import importlib
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import ppvi

LIBRARIES = "jax jaxlib numpyro optax flax funsor torch pyro-ppl arviz xarray h5netcdf matplotlib numpy scipy".split()


def versions() -> dict[str, str | None]:
    """By name of a library, None where it is not installed."""
    return {
        "ppvi": ppvi.__version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def devices() -> dict[str, list[str]]:
    """Those of JAX, and of PyTorch where it is installed."""
    found: dict[str, list[str]] = {"JAX": [str(x) for x in importlib.import_module("jax").devices()]}
    if find_spec("torch") is not None:
        torch: Any = importlib.import_module("torch")
        cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found["PyTorch"] = ["cpu", *cards]
    return found
