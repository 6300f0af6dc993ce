"""Planted bugs of scales: each must make a law fail."""

from unittest import mock

import numpy as np
import pytest

from ppvi.engine import divergences
from ppvi.engine.minibatches import Owed
from ppvi.numpyro import _markers as markers
from ppvi.program import Trace
from tests.engines import double
from tests.laws import test_masks, test_minibatches
from tests.numpyro import test_rounds


def per_row(engine):
    test_minibatches.test_a_bound_per_row_counts_each_row_of_its_minibatch_so_many_times(
        engine, test_minibatches.OBJECTIVES["iwelbo"]
    )


def test_scale_inside_the_logarithm(engine):
    """Rows that count N / n times each before a function of them is taken."""
    kept = Trace._kept

    def scaled(self, site, names, *others):
        minibatch = np.prod([plate.scale for plate in self.plates[site] if plate.name in names])
        return float(minibatch) * kept(self, site, names, *others)

    with (
        mock.patch.object(Trace, "_kept", scaled),
        mock.patch.object(Owed, "settle", lambda self, plates: self.plates.clear() or 1.0),
        pytest.raises(AssertionError),
    ):
        per_row(engine)


def test_minibatch_that_stands_for_itself(engine):
    with (
        mock.patch.object(Owed, "settle", lambda self, plates: self.plates.clear() or 1.0),
        pytest.raises(AssertionError),
    ):
        per_row(engine)


def test_scale_by_lane_in_place_of_by_round():
    """As broadcasting has it where a plate is as long as its loop."""
    data = np.arange(9.0).reshape(3, 3)
    case = test_rounds.Rounds((3,), 3, data, np.array([1.0, 2.0, 3.0]), np.ones(3, bool), by_round=True, handled=True)
    with double():
        test_rounds.agree(case.programs(test_rounds.by_scan), case.exact)
        with mock.patch.object(markers, "_laid_along", lambda scale, shape: scale), pytest.raises(AssertionError):
            test_rounds.agree(case.programs(test_rounds.by_scan), case.exact)


def test_closed_form_whatever_the_masks_are(engine):
    by_entry = divergences._by_entry

    def everywhere(*args):
        divergence, _ = by_entry(*args)
        return divergence, True

    with mock.patch.object(divergences, "_by_entry", everywhere), pytest.raises(AssertionError):
        test_masks.test_closed_forms_count_as_the_programs_do(engine, "False in the model", 1)
