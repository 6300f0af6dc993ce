"""Planted bugs of probability zero: each must make a law fail."""

from unittest import mock

import numpy as np
import pytest

from ppvi import Enumerate, LeaveOneOut, LocalExpectation
from ppvi.compiler import estimates, plan
from ppvi.engine.distributions import SiteDistribution
from ppvi.numpyro import _edges as edges
from tests.engines import NUMPYRO
from tests.laws import test_edges, test_zero


def sum_over_what_is_possible(engine, case, law, strategy):
    test_zero.test_the_sum_is_over_what_is_possible(engine, case, law, strategy)


def test_zero_times_infinity(engine):
    plain = mock.patch.object(estimates, "counted", lambda ops, value, weight: value * weight)
    with plain, pytest.raises(AssertionError):
        sum_over_what_is_possible(engine, "a prior that bars nothing", "logits of -inf", Enumerate())


def test_a_difference_from_infinity(engine):
    plain = mock.patch.object(estimates, "varied", lambda ops, f, w: f * (w - ops.stop_gradient(w)))
    with plain, pytest.raises(AssertionError):
        sum_over_what_is_possible(engine, "a prior that bars nothing", "logits of -inf", LocalExpectation())


def test_gradients_through_infinity(engine):
    unguarded = mock.patch.object(plan, "guarded", lambda program, edges: program)
    with unguarded, pytest.raises(AssertionError):
        sum_over_what_is_possible(engine, "the logarithm of a zero", "logits of -inf", Enumerate())


@pytest.mark.parametrize("by_coin", [True, False], ids=["Bernoulli", "Categorical"])
def test_weights_made_of_densities_that_are_clamped(engine, by_coin):
    clamped = mock.patch.object(SiteDistribution, "log_weights", lambda self: self.log_prob(self.enumerate_support()))
    with clamped, np.errstate(all="ignore"), pytest.raises(AssertionError):
        test_edges.test_probabilities_of_0_and_1_have_one_sided_derivatives(engine, by_coin, Enumerate())


def test_draws_on_the_end_of_a_support():
    """PyTorch's samplers stay inside by themselves."""
    with (
        mock.patch.object(SiteDistribution, "inside", lambda self, value: value),
        mock.patch.object(edges, "least", return_value=0.0),
        pytest.raises(AssertionError),
    ):
        test_edges.test_draws_that_underflow(NUMPYRO, "Gamma", LeaveOneOut(2))
