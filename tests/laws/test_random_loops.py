"""Every random loop has the gradient that a Python loop over all values of its sites has, by every strategy that fits."""

from hypothesis import HealthCheck, Phase, given, reject, seed, settings

from ppvi.errors import StrategyError
from tests.engines import NUMPYRO
from tests.laws.random_loops import case_of, loops
from tests.laws.sampling import check
from tests.laws.seeds import FIRST, each_shard, how_many, how_many_shards

LOOPS, SHARDS = how_many(600) // 5, how_many_shards(4)
"""One for every five programs of `make fuzz`."""
DRAWS = 20_000


@each_shard(SHARDS)
def test_random_loops(shard):
    count = 0

    @settings(
        max_examples=LOOPS // SHARDS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(loops())
    def run(loop):
        nonlocal count
        try:
            check(NUMPYRO, case_of(loop, DRAWS), {f"z{i}": s for i, s in enumerate(loop.strategies)})
        except StrategyError:
            reject()
        count += 1

    seed(FIRST + shard)(run)()
    assert count >= LOOPS // SHARDS
