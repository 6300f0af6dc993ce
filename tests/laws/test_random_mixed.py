"""Every random continuous or mixed program has the value and gradient that quadrature has, and no verdict that contradicts them."""

import jax
import numpy as np

from tests.engines import NUMPYRO, PYRO, on
from tests.laws.random_mixed import exact_of, guide_of, mixed_program, model_of, objective_of, params_of, strategies_of
from tests.laws.sampling import Z, moments
from tests.laws.seeds import FIRST, each_shard, how_many, how_many_shards

PROGRAMS, SHARDS = how_many(500), how_many_shards(6)
"""NumPyro, which compiles each of them, has a quarter; the second half of all jump."""
NUMBERS = {NUMPYRO.name: range(PROGRAMS // 4), PYRO.name: range(PROGRAMS // 4, PROGRAMS)}
DRAWS = 10_000


def law(engine, mixed):
    with on(engine):
        params = {name: engine.array(np.asarray(x, np.float32)) for name, x in params_of(mixed).items()}
        bound = engine.vi.objective(
            objective_of(mixed), model_of(mixed), guide_of(mixed), strategies=strategies_of(mixed)
        )
        proof = bound.prove(params)
        if not mixed.sound and proof.verdict != "proved":
            return
        assert not (mixed.sound and proof.verdict.startswith("biased")), proof
        mean, sd = moments(engine, bound, params, DRAWS)
    exact = exact_of(mixed)
    rounding = 2e-5 * max(1.0, *(float(np.abs(x).max()) for x in jax.tree.leaves(exact)))
    for found, spread, truth in zip(jax.tree.leaves(mean), jax.tree.leaves(sd), jax.tree.leaves(exact), strict=True):
        error, standard = np.abs(found - truth), spread / np.sqrt(DRAWS)
        assert (error <= Z * standard + rounding).all(), f"{found} +- {standard}, not {truth}\n{proof}"


@each_shard(SHARDS)
def test_random_mixed(engine, shard):
    for number in NUMBERS[engine.name][shard::SHARDS]:
        program = (FIRST + number, number >= PROGRAMS // 2)
        try:
            law(engine, mixed_program(*program))
        except Exception as error:
            error.add_note(f"random_mixed.mixed_program{program} on {engine.name}")
            raise
