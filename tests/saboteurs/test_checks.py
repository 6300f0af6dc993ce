"""Planted bugs in the statistical check: each must make a law fail."""

from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest

from ppvi.checks.paths import Paths, lay
from ppvi.checks.sequential import Asymptotic
from ppvi.checks.unbiased import Judge
from ppvi.engine import checking as engine_checking
from ppvi.numpyro import _checking as checking
from tests.checks import test_far_and_rare as laws, test_rounding as rounding


def fails(law, *args):
    with pytest.raises(AssertionError):
        law(*args)


def test_paths_that_are_all_long():
    with mock.patch.object(engine_checking, "lay", lambda *args, close, **options: lay(*args, close=False, **options)):
        fails(laws.test_short_periods_show_on_close_paths, laws.rounded(200))


def test_paths_of_one_length():
    def alike(*args, **options):
        paths = lay(*args, **options)
        return Paths(paths.questions, paths.points, paths.directions, 0 * paths.low, 0 * paths.low + 1.0, paths.said)

    with mock.patch.object(engine_checking, "lay", alike):
        fails(laws.test_periods, laws.waves(1), 0)


def test_jumps_that_are_taken_to_have_been_met():
    with mock.patch.object(Judge, "jumps_seen", lambda self, low, high: np.ones(self.tests, bool)):
        fails(laws.test_jumps_that_no_draw_has_met)


def test_verdicts_before_rare_events_are_drawn():
    with mock.patch.object(Judge, "is_enough", return_value=True):
        fails(laws.test_no_verdict_before_rare_events_are_drawn)


def test_one_point_of_a_path_alone():
    def one(self, u):
        return self.low + u * self.lengths, self.low + u * self.lengths

    with mock.patch.object(Paths, "mirrored", one):
        fails(laws.test_what_changes_evenly_along_a_path_leaves_no_noise)


def test_digits_of_the_value_alone():
    def sized(function):
        return lambda *args: (function(*args), jnp.abs(function(*args)))

    with mock.patch.object(checking, "with_summands", sized):
        fails(rounding.test_sums_whose_value_is_small)


def test_parameters_that_are_taken_to_be_exact():
    with mock.patch.object(checking, "_norm", return_value=jnp.zeros(())):
        fails(rounding.test_parameters_of_many_digits, 1e8)


def test_intervals_that_are_too_narrow():
    interval = Asymptotic.interval

    def narrow(self):
        low, high = interval(self)
        return self.mean() + (low - self.mean()) / 6, self.mean() + (high - self.mean()) / 6

    with mock.patch.object(Asymptotic, "interval", narrow):
        fails(laws.test_the_stated_rate_of_wrong_verdicts, "normal")
