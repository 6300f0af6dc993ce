"""Planted bugs of the strategies, and of the objectives and rules that they meet: each must make a law fail."""

import math
from dataclasses import dataclass, replace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax import lax

import ppvi
import ppvi.numpyro
from ppvi import objectives
from ppvi.compiler import continuation
from ppvi.numpyro import _orders as orders, _stage as stage
from ppvi.objectives import multi_sample
from ppvi.strategies import (
    REBAR,
    BoundaryReparam,
    ParameterShift,
    StochasticPerturbation,
    Stratified,
    SumAndSample,
    UnorderedSet,
    alternatives,
    control_variates,
    phantom,
    unordered,
)
from tests.engines import xp
from tests.laws import (
    test_exact,
    test_objectives,
    test_pathwise,
    test_relaxations,
    test_second_derivatives as second,
    test_statistical,
    test_zoo,
)
from tests.laws.cases import CASES, nothing
from tests.laws.sampling import check


def named(cases, name):
    return next(case for case in cases if case.name == name)


def exactly(engine, name, strategy):
    """The exact law of this case must fail."""
    case = named(CASES, name)
    with pytest.raises(AssertionError):
        test_exact.test_expectation_is_exact(engine, case, dict.fromkeys(case.strategies[0], strategy))


def statistically(engine, cases, name, strategy):
    case = named(cases, name)
    with pytest.raises(AssertionError):
        check(engine, case, dict.fromkeys(case.strategies[0], strategy))


# Of strategies --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeanFirst(ppvi.Enumerate):
    """f(E z) for E f(z): what follows is cut off at the draw, as at the end of a branch."""

    def estimate(self, site, k):
        q = xp.exp(site.log_probs).reshape(*site.log_probs.shape, *[1] * (site.values.ndim - site.log_probs.ndim))
        return k((q * site.values).sum(0))


@dataclass(frozen=True)
class SideBySide(ppvi.Enumerate):
    """Lanes enumerated side by side where a term couples them."""

    def estimate(self, site, k):
        return k.each(site.values).mix(site.log_probs)


@dataclass(frozen=True)
class ForgottenMass(SumAndSample):
    """The draw from the other values is not weighed by their probability."""

    def draw(self, dist, rng):
        draw = super().draw(dist, rng)
        left = phantom_of(draw.log_probs[-1:], dist.ops)
        return draw._replace(log_probs=xp.concatenate([draw.log_probs[:-1], left]))


def phantom_of(x, ops):
    return x - ops.stop_gradient(x)


@dataclass(frozen=True)
class WithoutTheDraw(ppvi.LocalExpectation):
    """The draw's own value is forgotten among the alternatives."""

    def draw(self, dist, rng):
        return super().draw(dist, rng)._replace(weight=None)


@dataclass(frozen=True)
class BackwardOnly(StochasticPerturbation):
    """The rate of the draw's own value where that of the one below belongs."""

    def draw(self, dist, rng):
        draw = super().draw(dist, rng)
        return draw._replace(weights=-draw.weights)


@dataclass(frozen=True)
class TimesScore(ppvi.Reinforce):
    """A coefficient on the score."""

    coefficient: float = 1.0

    def estimate(self, site, k):
        return k(site.value).scale(self.coefficient * phantom(site, site.log_prob))


def all_at_once():
    """One baseline of VIMCO, in which every particle is left out, for all of them."""

    def at_once(log_w):
        others = (log_w.sum(0) - log_w) / (len(log_w) - 1)
        return xp.broadcast_to(ppvi.logmeanexp(others), log_w.shape)

    return mock.patch.object(multi_sample, "without_each", at_once)


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("dependent pair", MeanFirst()),
        ("lanes, coupled", SideBySide()),
        ("ELBO, means[z]", ForgottenMass()),
        ("dependent pair", WithoutTheDraw()),
        ("dependent pair", BackwardOnly()),
    ],
    ids=str,
)
def test_strategy(engine, name, strategy):
    exactly(engine, name, strategy)


def test_own_term_left_out_of_the_baseline_of_a_set(engine):
    """The baseline of a value must estimate the whole expectation, its own share included, or it depends on the value."""

    def without_own(ops, q, scores, outside):
        weights = unchanged(ops, q, scores, outside)
        whole = sum(unordered._in_order(ops, order, outside) for order in (q, q[::-1]))
        share = [p * unordered._in_order(ops, [q[1 - s]], outside) / whole for s, p in enumerate(q)]
        return [w + share[s] * scores[s] * q[s] for s, w in enumerate(weights)]

    unchanged = unordered._weights
    with mock.patch.object(unordered, "_weights", without_own):
        exactly(engine, "ELBO, means[z]", UnorderedSet(2))


def test_baseline_that_has_seen_the_draw(engine):
    """Row 23: the credit is folded into the running mean before its use, which shrinks the gradient."""

    @dataclass(frozen=True)
    class UpdatedFirst(ppvi.Reinforce):
        def estimate(self, site, k):
            log_score = phantom(site, site.log_prob)
            return k(site.value).scale(log_score).control(lambda credit: -0.05 * credit * log_score)

    exactly(engine, "dependent pair", UpdatedFirst())


def test_reinforce_on_a_support_that_moves(engine):
    """Row 11: what the compiler refuses would be wrong."""

    @dataclass(frozen=True)
    class Unchecked(ppvi.Reinforce):
        fixed_support = False

    statistically(engine, test_statistical.CASES, "Uniform with a moving end", Unchecked())


@pytest.mark.parametrize("strategy", [ppvi.Reparam(), BoundaryReparam((0.2,))], ids=["none", "another"])
def test_lost_boundary_term(engine, strategy):
    """Row 7: a pathwise gradient of a jump, without the jump's surface or with a surface where there is none."""
    statistically(engine, test_pathwise.TABLE, "Normal, a jump", strategy)


def test_strata_in_one_order_for_all_lanes(engine):
    @dataclass(frozen=True)
    class Aligned(Stratified):
        def quantiles(self, dist, rng):
            strata = xp.arange(self.n).reshape(self.n, *[1] * len(dist.lanes))
            return (strata + dist.noise(rng, "uniform", 1, n=self.n)) / self.n

    statistically(engine, test_pathwise.TABLE, "Normal lanes, coupled", Aligned(2))


def test_parameter_shift_of_one_parameter_only(engine):
    @dataclass(frozen=True)
    class AngleOnly(ParameterShift):
        def draw(self, dist, rng):
            return super().draw(dist, rng)._replace(log_prob=None)

    with mock.patch.object(test_zoo, "ParameterShift", AngleOnly), pytest.raises(AssertionError):
        test_zoo.test_parameter_shift_is_exact(engine, math.pi / 2)


def test_relaxed_draw_that_does_not_know_the_winner(engine):
    """z in place of z~: the control variate no longer has mean zero."""
    case = named(test_relaxations.TABLE, "lanes, separable")
    with (
        mock.patch.object(control_variates, "_given_winner", lambda ops, logits, z, winner: z),
        pytest.raises(AssertionError),
    ):
        check(engine, case, {"z": REBAR()})


# Of objectives ----------------------------------------------------------------------------------------------------------------


def test_all_weights_replaced_at_once(engine):
    """Row 22: the baseline of VIMCO for a particle must keep the other particles' weights."""

    with all_at_once():
        exactly(engine, "VIMCO(3), coin", ppvi.Reinforce())


@pytest.mark.parametrize(("alpha", "name"), [(0.0, "Renyi(0, 2), coin"), (-1.0, "Renyi(-1, 2), coin")])
def test_score_of_a_renyi_bound_times_alpha_over_one_minus_alpha(engine, alpha, name):
    """Rows 5 and 6: the score's coefficient, which is 1, taken for that of the log density in the weights."""

    exactly(engine, name, TimesScore(coefficient=alpha / (1 - alpha)))


def test_stopped_parameters_outside_the_evidence_lower_bound(engine):
    """Rows 8 to 10: sticking the landing is right for the reverse divergence, whose log weight has f' = -1 and f'' = 0."""
    case = named(test_objectives.CASES, "chi-square moment")

    def stuck(p, q):
        z = q.simulate()
        return xp.exp(2 * (p.log_density(z) - q.log_density(dict(z), stop_params=True) + 1.5))

    with pytest.raises(AssertionError):
        check(engine, replace(case, program=stuck), {"z": ppvi.Reparam()})


@pytest.mark.slow
def test_curvature_left_out_of_the_doubly_reparameterised_gradient(engine):
    """Rows 8 to 10 again: F' alone, as if F were the identity."""
    first, slope, _ = test_objectives.SQUARE
    wrong = objectives.dreg(2, of=(first, slope, lambda x: 0.0 * x))
    case = named(test_objectives.CASES, "DReG of exp(2 L)")
    with pytest.raises(AssertionError):
        check(engine, replace(case, program=wrong), {"z": ppvi.Reparam()})


# Of rules -----------------------------------------------------------------------------------------------------------------------


def softplus(x):
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@pytest.mark.parametrize(
    "run",
    [
        softplus,
        lambda x: lax.cond(x > -1, softplus, lambda x: x, x),
        lambda x: lax.scan(lambda total, _: (total + softplus(x) / 2, None), 0.0, length=2)[0],
        jax.checkpoint(lambda x: lax.map(softplus, jnp.full(2, x)).mean()),
    ],
    ids=["straight", "branch", "loop", "bodies in a body"],
)
def test_absolute_value_differentiated_from_one_side(run):
    """JAX's own rule for |x| at 0 makes the gradient wrong of a softplus that is written with it; PyTorch's is symmetric."""

    def slope():
        bound = ppvi.numpyro.objective(lambda p, q: run(numpyro.param("x", 0.0)), nothing, nothing)
        return float(bound.value_and_grad(jax.random.key(0), {"x": jnp.zeros(())})[1]["x"])

    assert slope() == 0.5
    with mock.patch.object(stage, "symmetric", lambda closed: closed):
        assert slope() != 0.5


def test_second_derivatives_of_what_is_right_to_the_first_order():
    """A draw's own log density has a gradient of mean zero, which is left out of the first derivative, and no such curvature."""
    once = orders.surrogate
    with mock.patch.object(orders, "surrogate", lambda *given: once(*given[:4])), pytest.raises(AssertionError):
        second.test_of_finite_sites((ppvi.Reinforce(), ppvi.Enumerate()), "derivative of the gradient")


def test_second_derivatives_through_a_kink():
    """Along the path of a draw the curvature is lost that lies in a kink."""
    with mock.patch.object(orders, "refuse_second"), pytest.raises(pytest.fail.Exception):
        second.test_refused("a kink")


def test_plain_evaluations_of_some_terms_only(engine):
    """Row 17: the plain continuation forgets what the differentiable one adds up."""

    def first_term(self, value):
        terms = unchanged(self, value)
        return {i: x if i == min(terms) else 0.0 * x for i, x in terms.items()}

    unchanged = continuation.Rest.draw
    with mock.patch.object(continuation.Rest, "draw", first_term):
        exactly(engine, "lanes, both", ppvi.LeaveOneOut(2))


def test_lanes_changed_together_that_are_coupled(engine):
    """Every lane takes its alternative at once, each weighed as if it were alone."""
    with mock.patch.object(alternatives, "one_lane_each", lambda site, coupled: np.ones((1, *site.lanes), bool)):
        exactly(engine, "lanes, coupled", ppvi.LocalExpectation())


def test_sites_own_log_prob_dropped_at_relaxed_values(engine):
    """The gradient of log q has mean zero at draws of q, and nowhere else."""
    with mock.patch.object(control_variates.Relaxed, "route", "credit"), pytest.raises(AssertionError):
        check(engine, named(test_relaxations.TABLE, "ELBO, coin"), {"z": REBAR()})
