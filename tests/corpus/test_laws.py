"""Programs whose estimators the laws show to be unbiased: the static check must not call any of them biased."""

import jax.numpy as jnp
import numpy as np
import pytest

import ppvi.numpyro as vi
from tests.laws import cases, test_objectives, test_statistical

TABLES = (cases, test_statistical, test_objectives)
CASES = [case for table in TABLES for case in table.CASES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_not_called_biased(case):
    params = {name: jnp.asarray(np.asarray(value), jnp.float32) for name, value in case.params.items()}
    strategies = {str(strategies): strategies for strategies in case.strategies}
    for chosen in list(strategies.values())[:3]:
        report = vi.objective(case.program, case.model, case.guide, strategies=chosen).prove(params)
        assert report.verdict in ("proved", "suspect"), report
