"""Flags of XLA."""

import os
import subprocess
import sys

import pytest

from ppvi.numpyro import _xla
from ppvi.numpyro._xla import FIRST, FIXED, FLAG, without_fused_sums

PROGRAM = """
import os, sys
import jax, jax.numpy as jnp
if "early" in sys.argv:
    jnp.ones(1).block_until_ready()
import ppvi.numpyro
assert "XLA_FLAGS" not in os.environ
jnp.ones(1).block_until_ready()
assert "XLA_FLAGS" not in os.environ
if "early" not in sys.argv:
    a = b = jnp.ones((3, 1, 2, 2, 8, 8, 8))
    assert float(jax.jit(lambda a, b: (a * b).sum(3))(a, b).sum()) == a.size
"""


def run(*arguments, program=PROGRAM, **more):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | more
    return subprocess.run([sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True)


def test_a_sum_of_products_of_seven_axes():
    """Without the flag it ends in a segmentation fault on jaxlib 0.10.2. Children of the process inherit no flag, before JAX
    computes or after."""
    assert run().returncode == 0


def test_a_word_among_the_flags_of_a_user():
    """XLA reads no flags after one without dashes, such as this one of JAX's own questions and answers."""
    program = "\n".join(line for line in PROGRAM.splitlines() if not line.startswith("assert"))
    ended = run(program=program, XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    assert ended.returncode == 0, ended.stderr


def test_jax_that_has_computed_before():
    """The process goes on, and is warned where its version has the defect."""
    late = run("early")
    assert late.returncode == 0, late.stderr
    assert ("segmentation fault" in late.stderr) == (FIRST <= _xla._compat.JAXLIB < FIXED)


@pytest.mark.parametrize("version", [(0, 7, 2), (0, 10, 0), (0, 11), (0, 12, 0)])
def test_other_versions_are_left_alone(version, monkeypatch):
    """A version that does not know the flag would break off the process."""
    monkeypatch.setattr(_xla._compat, "cpu_starts_within", lambda context: pytest.fail("it has been given the flag"))
    _xla.guard(version)


@pytest.mark.parametrize("given", [None, "--xla_a=1"])
def test_the_environment_is_as_before(given, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if given is not None:
        monkeypatch.setenv("XLA_FLAGS", given)
    with _xla.flagged():
        assert os.environ["XLA_FLAGS"] == without_fused_sums(given or "")
    assert os.environ.get("XLA_FLAGS") == given


@pytest.mark.parametrize("given", [f"{FLAG}=", f"--xla_a=1 {FLAG}=+dot", "/a/file/of/flags"])
def test_a_flag_that_is_named_is_left_alone(given):
    assert without_fused_sums(given) == given


def test_other_flags_stay():
    assert without_fused_sums("--xla_a=1") == f"{FLAG}=-reduce --xla_a=1"
    assert without_fused_sums("") == f"{FLAG}=-reduce"
