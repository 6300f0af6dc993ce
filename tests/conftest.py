"""Common set-up: tests run on the CPU unless the environment says otherwise."""

import gc
import importlib.util
import itertools
import mmap
import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
UNOPTIMISED = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""Most programs here run once, so that time spent on optimising them is lost; `make test-all` optimises them as ever."""


def flags_that_xla_knows(flags):
    """XLA breaks off a process that names a flag which it does not know, and has no other way of saying which it knows."""
    root = Path(importlib.util.find_spec("jaxlib").origin).parent
    with (root / "libjax_common.so").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as code:
        return " ".join(f"--{name}={value}" for name, value in flags.items() if code.find(f"{name}\0".encode()) >= 0)


if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = flags_that_xla_knows(UNOPTIMISED)

# Each worker has a core of its own; PyTorch's threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

COUNT = itertools.count(1)
MOST_MAPS = 30_000
"""Every compiled program holds some memory maps, of which Linux allows a process 65,530."""


def pytest_collection_modifyitems(items):
    """The longest first, so that no worker is left alone with one of them at the end; and before them the search for leaks, which
    goes through all that a process holds and takes forty times as long at the end."""
    items.sort(key=lambda item: ("test_leaks" not in item.nodeid, "test_tutorials" not in item.nodeid))


def pytest_collection_finish():
    """Tracing makes many objects of which few are garbage, and by its defaults Python looks for garbage after every 700 of them: a
    fifth of all the time. Now it looks more rarely, and never at what tests before have left, which may be millions."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


@pytest.fixture(autouse=True)
def _forget_compiled_programs():
    yield
    if next(COUNT) % 10:
        return
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > MOST_MAPS:
        import jax

        jax.clear_caches()
        gc.unfreeze()
    gc.collect()
    gc.freeze()
