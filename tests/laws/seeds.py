"""Which random programs the random laws try.

They are of fixed seeds, in so many tests that are marked slow. The environment asks for others: PPVI_FUZZ for how many, PPVI_FIRST
for the seed of the first, without which they are new each time, and PPVI_SHARDS for how many tests they are divided among.
"""

import os

import pytest

FRESH = "PPVI_FUZZ" in os.environ
FIRST = int(os.environ.get("PPVI_FIRST", int.from_bytes(os.urandom(4)) if FRESH else 0))


def how_many(usual):
    """How many programs there are in all."""
    return int(os.environ.get("PPVI_FUZZ", usual))


def how_many_shards(usual):
    return int(os.environ.get("PPVI_SHARDS", usual))


def each_shard(shards):
    marks = [] if FRESH else [pytest.mark.slow]
    return pytest.mark.parametrize("shard", [pytest.param(i, marks=marks) for i in range(shards)])
