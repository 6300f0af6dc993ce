"""Common set-up: tests run on the CPU unless the environment says otherwise."""

import itertools
import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most programs here run once, so that time spent on optimising them is lost; `make test-all` optimises them as ever.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1",
)

# Each worker has a core of its own; PyTorch's threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

COUNT = itertools.count(1)
MOST_MAPS = 30_000
"""Every compiled program holds some memory maps, of which Linux allows a process 65,530."""


def pytest_collection_modifyitems(items):
    """The longest first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: "test_tutorials" not in item.nodeid)


@pytest.fixture(autouse=True)
def _forget_compiled_programs():
    yield
    maps = Path("/proc/self/maps")
    if next(COUNT) % 10 == 0 and maps.exists() and maps.read_text().count("\n") > MOST_MAPS:
        import jax

        jax.clear_caches()
