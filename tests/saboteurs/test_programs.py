"""Planted bugs in programs made from programs, and in functions of expectations: each must make a law fail."""

from contextlib import contextmanager
from unittest import mock

import jax
import pytest

from ppvi import expectations
from ppvi.engine.evaluations import Evaluation
from ppvi.inference.marginal import Marginal
from ppvi.inference.posterior import Posterior
from ppvi.numpyro._programs import NumPyroPrograms
from tests.engines import NUMPYRO, double, enable_x64
from tests.laws import test_expectations, test_objectives, test_programs
from tests.laws.sampling import check


@pytest.fixture(autouse=True)
def in_double():
    with double():
        yield


def derived(name):
    return next(case for case in test_programs.TABLE if case.name == name)


def reciprocal(engine, name):
    test_programs.test_reciprocal_density_of_its_own_draw(engine, derived(name), ())


def agreement(engine, name):
    test_programs.test_simulate_agrees_with_log_density(engine, derived(name), ())


def test_joint_score_in_place_of_the_importance_weight(engine):
    """Row 20 of the field's list: right only where the auxiliary's density is one."""

    def retained(self, whole, kept, stop_params):
        return whole.per(self.per)

    with mock.patch.object(Marginal, "_retained", retained), pytest.raises(AssertionError):
        reciprocal(engine, "marginal, learned proposal, K = 2")


def test_fresh_draws_in_place_of_the_retained_one(engine):
    def retained(self, whole, kept, stop_params):
        return self._fresh(kept, stop_params)[0]

    with mock.patch.object(Marginal, "_retained", retained), pytest.raises(AssertionError):
        reciprocal(engine, "marginal, learned proposal, K = 2")


def test_density_of_a_posterior_without_the_retained_particle(engine):
    sampled = Posterior._sampled

    def unconditional(self, retained, stop_params):
        return sampled(self, None, stop_params)

    with mock.patch.object(Posterior, "_sampled", unconditional), pytest.raises(AssertionError):
        agreement(engine, "SIR, K = 2")


def test_backward_kernel_left_out_of_the_weight(engine):
    weighed = Posterior._weighed

    def forward_only(self, step, old, drawn, target, stop_params):
        return weighed(
            self, step._replace(backward=lambda z: test_programs.forward(z)), old, drawn, target, stop_params
        )

    with mock.patch.object(Posterior, "_weighed", forward_only), pytest.raises(AssertionError):
        agreement(engine, "AIS over tempered targets")


def test_resampling_scores_left_out(engine):
    """As in the common FIVO gradient."""
    choice = Evaluation.choice

    def uncredited(self, site, log_weights, n):
        return choice(self, site, self.ops.stop_gradient(log_weights), n)

    with mock.patch.object(Evaluation, "choice", uncredited), pytest.raises(AssertionError):
        test_objectives.test_fivo_with_its_resampling_scores(engine)


def test_plain_function_of_an_estimate():
    """E[exp(X)] is not exp(E[X])."""
    case = test_expectations.CASES[1]
    plain = mock.patch.object(expectations, "_joined", lambda name, value, slope, run, other: jax.numpy.exp(run))
    with plain, enable_x64(False), pytest.raises(AssertionError):
        check(NUMPYRO, case, case.strategies[0], batch=100)


@pytest.mark.slow
def test_one_minibatch_for_all_runs_of_a_product():
    """The factors of exp_of have to be independent, minibatches included."""
    separate = NumPyroPrograms.separate_evaluation

    @contextmanager
    def sharing(self, session, key, i):
        evaluation = session.scope.evaluation
        with separate(self, session, key, i), session.within(evaluation=evaluation):
            yield

    case = next(case for case in test_expectations.CASES if "subsampled" in case.name)
    with (
        mock.patch.object(NumPyroPrograms, "separate_evaluation", sharing),
        enable_x64(False),
        pytest.raises(AssertionError),
    ):
        check(NUMPYRO, case, case.strategies[0], batch=100)
