"""Lookups in small tables are the gathers that they stand for: in value, in gradient, out of range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppvi.compiler.ir import Var
from ppvi.numpyro.stage import stage

TABLES = {"vector": (3,), "rows": (4, 2), "matrices": (2, 3, 2), "one row": (1,)}
LABELS = jnp.array([[0, 2, -1], [1, 1, 7]])


@pytest.mark.parametrize("mode", ["promise_in_bounds", "clip", "fill", None])
@pytest.mark.parametrize("shape", TABLES.values(), ids=TABLES)
def test_lookup_is_the_gather(shape, mode):
    table = jax.random.normal(jax.random.key(0), shape)
    # The default mode promises to stay in range; outside of it the gather's own value and gradient disagree.
    labels = LABELS if mode in ("clip", "fill") else LABELS % shape[0]

    def rows(table):
        return table.at[labels].get(mode=mode)

    weight = jax.random.normal(jax.random.key(1), rows(table).shape)

    def program(table):
        return jnp.sum(jnp.nan_to_num(rows(table), nan=3.0) * weight)

    staged = stage(program, table)
    assert any(equation.op == "gather" and equation.run.__name__ == "run_lookup" for equation in staged.equations)

    def run(table):
        env = dict(zip(staged.inputs, [table], strict=True)) | staged.constants
        for equation in staged.equations:
            outputs = equation.run(*[env[x] if isinstance(x, Var) else x.value for x in equation.inputs])
            env.update(zip(equation.outputs, outputs, strict=True))
        return env[staged.output]

    ours, theirs = jax.value_and_grad(run)(table), jax.value_and_grad(program)(table)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5, atol=1e-6)


def test_large_tables_are_gathered():
    staged = stage(lambda table: table[LABELS].sum(), jnp.zeros(100))
    assert not any(equation.run.__name__ == "run_lookup" for equation in staged.equations)
