"""Every random finite program has the gradient that summing over its joint values has."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, Phase, given, reject, seed, settings
from numpyro.distributions.distribution import validation_enabled

from ppvi.engine.outcomes import EndlessError
from tests.engines import double, on
from tests.laws.cases import nothing
from tests.laws.random_programs import exact_of, guide_of, objective_of, params_of, specs, strategies_of
from tests.laws.seeds import FIRST, FRESH, each_shard, how_many, how_many_shards

PROGRAMS, SHARDS = how_many(300), how_many_shards(10)
"""On each engine; `make random`, which is part of continuous integration, runs them."""


def agree(engine, spec):
    """The estimator's exact expectation, of value and gradient, is the enumerated objective's."""
    with double(), validation_enabled(False):
        with on(engine):
            params = {name: engine.array(x) for name, x in params_of(spec).items()}
            bound = engine.vi.objective(objective_of(spec), nothing, guide_of(spec), strategies=strategies_of(spec))
            value, grads = engine.outcomes(bound, params, limit=512).mean()
        params = {name: jnp.asarray(x) for name, x in params_of(spec).items()}
        exact_value, exact_grads = jax.value_and_grad(exact_of(spec))(params)
        np.testing.assert_allclose(value, exact_value, rtol=1e-6, atol=1e-9)
        scale = max(1.0, *(float(jnp.abs(g).max()) for g in jax.tree.leaves(exact_grads)))
        for name, grad in exact_grads.items():
            np.testing.assert_allclose(grads[name], grad, rtol=1e-6, atol=1e-6 * scale, err_msg=name)


@each_shard(SHARDS)
def test_random_programs(engine, shard):
    count = 0

    @settings(
        max_examples=PROGRAMS // SHARDS,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink] if FRESH else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(specs())
    def run(spec):
        nonlocal count
        try:
            agree(engine, spec)
        except EndlessError:
            reject()
        count += 1

    seed(FIRST + shard)(run)()
    assert count >= PROGRAMS // SHARDS
