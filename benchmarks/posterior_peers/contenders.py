"""Ways to a posterior by name, and how a run of one is started and ended."""

from __future__ import annotations

import os
import signal
import subprocess

from benchmarks.posterior_peers.environments import NUMPYRO, PYMC, PYRO, Environment, Here
from benchmarks.posterior_peers.serving import LIMIT

WAYS: dict[str, tuple[Environment | Here, str]] = {
    "approximate": (Here(), "ours"),
    "fit": (Here(), "ours"),
    "NumPyro SVI": (NUMPYRO, "numpyro_ways"),
    "Pyro SVI": (PYRO, "pyro_ways"),
    "PyMC ADVI": (PYMC, "pymc_ways"),
    "PyMC DADVI": (PYMC, "pymc_ways"),
    "PyMC Pathfinder": (PYMC, "pymc_ways"),
    "BlackJAX Pathfinder": (NUMPYRO, "numpyro_ways"),
    "NUTS": (Here(), "ours"),
}
PATIENCE = 6 * LIMIT
"""Seconds after which a run that uses no processor is ended."""


def started(way: str, *asked: str, cache: str) -> tuple[str, str | None]:
    """A contender in a process of its own, in a group with those that it starts: what it said, and why it failed if it did.

    PyTensor keeps compiled code in the folder `cache`.
    """
    environment, module = WAYS[way]
    command = [environment.made(), "-m", f"benchmarks.posterior_peers.{module}", *asked]
    settings = {"JAX_PLATFORMS": "cpu", **os.environ, "PYTENSOR_FLAGS": f"base_compiledir={cache}"}
    process = subprocess.Popen(
        command, env=settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        said, complaints = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, complaints = process.communicate()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return said, reason(process.returncode, complaints) if process.returncode else None


def reason(code: int, complaints: str) -> str:
    """The last error that was raised, which notes may follow."""
    if code == -signal.SIGXCPU:
        return f"more than {LIMIT} processor seconds"
    if code == -signal.SIGKILL:
        return f"no end after {PATIENCE} seconds"
    lines = complaints.strip().splitlines() or [f"exit status {code}"]
    raised = [line for line in lines if "Error" in line and not line[:1].isspace()]
    return (raised or lines)[-1][:160]
