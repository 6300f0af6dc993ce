"""Programs whose estimators the laws show to be unbiased: the static check proves them all."""

import jax.numpy as jnp
import numpy as np
import pytest

import ppvi.numpyro as vi
from tests.laws import cases, test_objectives, test_statistical

TABLES = (cases, test_statistical, test_objectives)
CASES = [case for table in TABLES for case in table.CASES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_proved(case):
    params = {name: jnp.asarray(np.asarray(value), jnp.float32) for name, value in case.params.items()}
    report = vi.objective(case.program, case.model, case.guide, strategies=case.strategies[0]).prove(params)
    assert report.verdict == "proved", report
