"""Planted bugs of loops and branches: each must make a law fail."""

from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest

import ppvi
from ppvi.compiler import continuation, lanewise
from ppvi.numpyro import _bodies as bodies, _lifting as lifting
from tests.numpyro import test_control_flow as laws


def test_credit_that_forgets_earlier_rounds():
    """A draw is credited with what it enters, and not with what it makes of later draws."""
    with (
        mock.patch.object(lifting, "pasts", lambda own, steps: {site: {} for site in own}),
        pytest.raises(AssertionError),
    ):
        laws.test_drawn_by_a_program("persistent", {"z": ppvi.Reinforce()})


def test_weights_where_a_branch_is_passed_over():
    """Zeros for log_probs, as if every value were certain."""
    with mock.patch.object(ppvi.Enumerate, "absent", lambda self, draw: draw), pytest.raises(AssertionError):
        laws.test_drawn_by_a_program("branch", {"x": ppvi.Enumerate(), "b": ppvi.Enumerate()})


def test_lanes_run_again_that_are_the_next():
    """The round that is run at its alternative is not the one whose weight it has."""

    def next_round(chosen, *lanes):
        return lanewise.laid(np.roll(chosen, 1, 1), *lanes)

    with mock.patch.object(continuation, "laid", next_round), pytest.raises(AssertionError):
        laws.test_rounds_that_meet_in_what_is_stacked(ppvi.LocalExpectation())


def test_one_key_for_all_rounds():
    """What peers do whose bodies hold the key that they were traced with."""
    ahead = bodies.drawn_ahead

    def frozen(step, init, rounds, **how):
        given, planted, keys, entries = rounds
        return ahead(step, init, (given, planted, keys[jnp.zeros(len(keys), int)], entries), **how)

    with mock.patch.object(bodies, "drawn_ahead", frozen), pytest.raises(AssertionError):
        laws.test_state_space_model(ppvi.Reparam())


def test_the_rest_at_the_draws_whatever_is_asked():
    """Alternatives that are told what the draws have given."""

    def stuck(self, eqn, inputs, make, reader):
        equation = rest(self, eqn, inputs, make, reader)
        return lifting.replace(equation, run=lambda *arrays: arrays[: eqn.params["before"]])

    rest = lifting.Reader.rest
    with mock.patch.object(lifting.Reader, "rest", stuck), pytest.raises(AssertionError):
        laws.test_drawn_by_a_program("independent", {"z": ppvi.Enumerate()})


def test_runs_that_count_at_the_ends_as_between():
    """A first round that depends on no state, once for every state."""
    with (
        mock.patch.object(continuation, "_present", return_value=continuation.np.ones(())),
        pytest.raises(AssertionError),
    ):
        laws.test_a_state_that_counts_in_the_next_round(ppvi.Enumerate())
