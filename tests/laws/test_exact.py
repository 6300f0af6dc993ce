"""Laws of finite programs, exactly: the enumerated expectation of each estimator is the enumerated objective and its
gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.engines import double, on
from tests.laws.cases import CASES, rows

EXACT = {}
"""By case: its strategies on both engines are compared with the same sums."""


def exactly(case):
    if case.name not in EXACT:
        params = {name: jnp.asarray(np.asarray(x), jnp.float64) for name, x in case.params.items()}
        EXACT[case.name] = jax.value_and_grad(case.exact)(params)
    return EXACT[case.name]


@pytest.mark.parametrize(("engine", "case", "strategies"), rows(CASES))
def test_expectation_is_exact(engine, case, strategies):
    with double():
        exact_value, exact_grads = exactly(case)
        with on(engine):
            params = {name: engine.array(np.asarray(x, float)) for name, x in case.params.items()}
            objective = engine.vi.objective(case.program, case.model, case.guide, strategies=strategies)
            value, grads = engine.outcomes(objective, params, limit=20_000).mean()
    np.testing.assert_allclose(value, exact_value, rtol=1e-6)
    scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(exact_grads))
    for name, grad in exact_grads.items():
        np.testing.assert_allclose(grads[name], grad, rtol=1e-6, atol=1e-6 * scale, err_msg=name)
