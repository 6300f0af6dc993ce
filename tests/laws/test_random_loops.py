"""Every random loop has the gradient that a Python loop over all values of its sites has, by every strategy that fits."""

import os

import pytest
from hypothesis import HealthCheck, Phase, given, reject, seed, settings

from ppvi.errors import StrategyError
from tests.engines import NUMPYRO
from tests.laws.random_loops import case_of, loops
from tests.laws.sampling import check

LOOPS = int(os.environ.get("PPVI_FUZZ", "600")) // 5
"""Loops in all, one for every five programs of `make fuzz`; with PPVI_FUZZ set they are new ones each time."""
SHARDS = 4
FRESH = "PPVI_FUZZ" in os.environ
DRAWS = 20_000


@pytest.mark.parametrize("shard", [i if FRESH else pytest.param(i, marks=pytest.mark.slow) for i in range(SHARDS)])
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

    (run if FRESH else seed(shard)(run))()
    assert count >= LOOPS // SHARDS
