"""Flags of XLA."""

import os
import subprocess
import sys

import pytest

from ppvi.numpyro._xla import FLAG, without_fused_sums

PROGRAM = """
import jax, jax.numpy as jnp, ppvi.numpyro
a = b = jnp.ones((3, 1, 2, 2, 8, 8, 8))
assert float(jax.jit(lambda a, b: (a * b).sum(3))(a, b).sum()) == a.size
"""


def test_a_sum_of_products_of_seven_axes():
    """Without the flag it ends in a segmentation fault on jaxlib 0.10.2."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ | {"XLA_FLAGS": ""}, check=False)
    assert run.returncode == 0


@pytest.mark.parametrize("given", [f"{FLAG}=", f"--xla_a=1 {FLAG}=+dot"])
def test_a_flag_that_is_named_is_left_alone(given):
    assert without_fused_sums(given) == given


def test_other_flags_stay():
    assert without_fused_sums("--xla_a=1") == f"--xla_a=1 {FLAG}=-reduce"
    assert without_fused_sums("") == f"{FLAG}=-reduce"
