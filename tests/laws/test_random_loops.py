"""Every random loop has the gradient that a Python loop over all values of its sites has, by every strategy that fits."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, reject, seed, settings

from ppvi import Reinforce
from ppvi.errors import StrategyError
from ppvi.strategies import StochasticPerturbation
from tests.engines import NUMPYRO
from tests.laws.random_loops import Body, Loop, case_of, loops
from tests.laws.sampling import check
from tests.laws.seeds import FIRST, each_shard, how_many, how_many_shards

LOOPS, SHARDS = how_many(600) // 5, how_many_shards(4)
"""One for every five programs of `make fuzz`."""
DRAWS = 20_000


BRANCH = Loop(
    rounds=3,
    how="scan",
    reverse=False,
    guide=Body(logits=(("mul", ("a", 1), ("a", 0)),), carry=("a", 2), out=("site", 0), branch=("mul", ("a", 1), "x")),
    model=Body(logits=("x",), carry="carry", out="carry"),
    objective="stacked",
    strategies=(StochasticPerturbation(),),
    data=(-0.9, -0.2, 0.5),
    params=(0.4, -0.3, 0.7, 0.7),
)
FOUND = {
    "a lane that a branch passes over draws no lot": BRANCH,
    "a logit of 0": replace(
        BRANCH, guide=replace(BRANCH.guide, branch=None, logits=(("add", ("a", 0), ("half", ("a", 1))),)), params=(0.4, -0.8, 0.7, 0.7), strategies=(Reinforce(),),
    ),
    "a model that branches otherwise": replace(
        BRANCH, objective="weight", model=replace(BRANCH.model, branch=("add", "carry", ("neg", "x")), carry=("neg", ("site", 0))), strategies=(Reinforce(),),
    ),
    "a model that does not branch": replace(BRANCH, objective="weight", strategies=(Reinforce(),)),
}  # fmt: skip
"""Loops whose gradients were wrong."""


@pytest.mark.parametrize("name", FOUND)
def test_loops_that_were_wrong(name):
    check(NUMPYRO, case_of(FOUND[name], DRAWS), {"z0": FOUND[name].strategies[0]})


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
