"""Lookups in small tables are the gathers that they stand for: in value, in gradient, out of range."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from ppvi.ir import Var
from ppvi.numpyro._distributions import SiteDistribution, peel
from ppvi.numpyro._ops import OPS
from ppvi.numpyro._stage import stage

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


# Of a stack by a constant index -------------------------------------------------------------------------------------------

INDICES = {
    "identity": np.arange(3)[:, None, None],
    "one for all": np.array([[[2]], [[0]]]),
    "in turns": np.indices((3, 3)).reshape(2, 9).T[:, np.arange(4) % 2][:, :, None],
    "each its own": np.random.default_rng(0).integers(0, 3, (5, 4, 3)),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
@pytest.mark.parametrize("event", [(), (2,)], ids=["numbers", "vectors"])
def test_rows_are_chosen_lane_by_lane(index, event):
    values = jax.random.normal(jax.random.key(2), (3, 4, 3, *event))
    spread = np.broadcast_to(index.reshape(*index.shape, *[1] * len(event)), (len(index), *values.shape[1:]))

    def weighed(choose):
        return jax.value_and_grad(lambda values: (choose(values) * jnp.arange(1.0, 4.0)[:, *[None] * len(event)]).sum())

    ours, theirs = (
        weighed(choose)(values)
        for choose in (lambda x: OPS.choose(x, index), lambda x: jnp.take_along_axis(x, spread, 0))
    )
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5)


LOGITS = jax.random.normal(jax.random.key(3), (4, 3))
CATEGORICALS = {
    "logits": dist.Categorical(logits=LOGITS),
    "probs, one of them zero": dist.Categorical(probs=jnp.array([[0.2, 0.8, 0.0], [0.3, 0.3, 0.4]])),
    "expanded": dist.Categorical(logits=LOGITS[0]).expand((2, 4)),
    "independent": dist.Categorical(logits=LOGITS).to_event(1),
    "masked": dist.Categorical(logits=LOGITS).mask(jnp.arange(4) < 2),
}


@pytest.mark.parametrize("fn", CATEGORICALS.values(), ids=CATEGORICALS)
def test_a_categorical_support_has_its_logits_for_log_probs(fn):
    site = SiteDistribution(fn)
    support = site.enumerate_support()
    found = jax.make_jaxpr(lambda: site.log_prob(support))()
    assert "gather" not in str(found)
    np.testing.assert_allclose(site.log_prob(support), peel(fn).log_prob(support), rtol=1e-5)
