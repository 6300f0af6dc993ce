"""The guard of `benchmarks.quick`: what it calls moved is more than noise, and rows name contenders that there are."""

import json
import math

import numpy as np
import pytest

from benchmarks import quick
from benchmarks.quick import Measured, Row, measure, measured, moved


def test_the_ratio_of_sittings_is_their_geometric_mean_with_its_standard_error():
    found = measured([1.0, 2.0, 4.0])
    assert found.log_ratio == pytest.approx(math.log(2))
    assert found.error == pytest.approx(math.log(2) / math.sqrt(3))


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (Measured(0.3, 0.05), Measured(0.0, 0.0), "slower by 35%"),
        (Measured(0.3, 0.05), Measured(0.0, 0.09), ""),
        (Measured(-0.3, 0.01), Measured(0.0, 0.01), "faster by 26%"),
        (Measured(0.04, 0.001), Measured(0.0, 0.001), ""),
    ],
)
def test_moved_is_more_than_the_noise_of_both(now, before, said):
    assert moved(now, before) == said


def test_a_contender_that_does_more_is_slower():
    def work(size):
        x = np.ones((size, size))
        return lambda: x @ x

    row = Row("big / small", "big", "small", lambda: {"big": work(256), "small": work(64)})
    assert measure([row], sittings=2, seconds=0.05)["big / small"].log_ratio > 1


def test_the_baseline_has_the_rows():
    assert set(json.loads(quick.BASELINE.read_text())) == {row.name for row in quick.ROWS}
