"""Planted bugs in the rows of plates: each must make a law fail."""

from unittest import mock

import pytest

from ppvi.engine.minibatches import Minibatches, Whole
from tests.laws import test_plates


def each_its_own(self, stated, same):
    """Every plate has the rows that are stated where it is."""
    return stated


def test_two_minibatches_in_one_evaluation(engine):
    """A size beside given rows, which fits them in shape."""
    with mock.patch.object(Minibatches, "hold", each_its_own), pytest.raises(AssertionError):
        test_plates.test_given_rows_are_those_of_both_programs(engine, "guide first", [2, 1], 2)


def test_rows_that_disagree_go_unnoticed(engine):
    with mock.patch.object(Minibatches, "hold", each_its_own), pytest.raises(pytest.fail.Exception):
        test_plates.test_minibatches_that_disagree_are_refused_by_the_plate_and_both_places(engine, [0, 1], [0, 2])


def test_a_minibatch_of_its_own_for_every_run(engine):
    """Replicates of one evaluation that each draw rows."""
    programs = engine.programs
    name = "plate_key" if hasattr(programs, "plate_key") else "subsample"
    sampled = getattr(programs, name)

    def anew(self, scope, plate, *sizes):
        return sampled(self, scope, f"{plate} {next(numbers)}", *sizes)

    numbers = iter(range(100))
    with mock.patch.object(programs, name, anew), pytest.raises(AssertionError):
        test_plates.test_a_plate_has_one_minibatch_whoever_states_its_size(engine, "guide first", 2, 2)


def test_draws_of_the_rows_of_a_minibatch(engine):
    with mock.patch.object(Whole, "hold", each_its_own), pytest.raises(AssertionError):
        test_plates.test_draws_after_a_fit_are_of_all_rows_in_order(engine, 2, 2)
