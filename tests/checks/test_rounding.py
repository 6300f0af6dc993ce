"""The statistical check at the last digit of single precision: it calls no right gradient biased, and wrong ones still are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppvi
from ppvi.checks import Question
from ppvi.checks.unbiased import DIGITS, RARE, ROUNDED, Judge, enough
from ppvi.numpyro._magnitudes import with_summands
from tests.engines import ENGINES, dist, enable_x64, on, ppl, xp
from tests.saboteurs.test_saboteurs import DroppedScore

Y = np.linspace(-2.0, 2.5, 40)


def model():
    k = ppl.sample("k", dist.Bernoulli(0.4))
    with ppl.plate("data", 40):
        ppl.sample("y", dist.Normal(0.6 * k, 1.0), obs=xp.array(Y))


def guide():
    ppl.sample("k", dist.Bernoulli(logits=ppl.param("logit", 14.0)))


def checked(engine, logit, strategy, seed):
    with on(engine):
        bound = engine.vi.objective(ppvi.objectives.elbo, model, guide, strategies={"k": strategy})
        params = {"logit": engine.array(logit)}
        return bound.check(engine.key(seed), params, alpha=1e-6, budget=10, progress=False)


@pytest.mark.parametrize("seed", [5, pytest.param(9, marks=pytest.mark.slow)])
@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_where_the_gradient_is_zero_up_to_rounding(engine, seed):
    """A sigmoid that is 1 - 1e-6: the exact slope is less than the last digit of the bound, and every outcome says it is right."""
    report = checked(engine, 14.0, ppvi.Enumerate(), seed)
    assert report.verdict == "unbiased within delta", report
    assert f"{ROUNDED}; unbiased by every outcome" in " ".join(str(report).split())


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_a_bias_at_the_same_values(engine):
    assert checked(engine, 0.5, DroppedScore(), 5).biased_by == ("statistical",)


T = jnp.array([0.3, -0.5, 1.0])


def offset(by, slope=1.0, noise=1.0):
    """The sum of sines above a constant, and its gradient times a number."""

    def estimate(key, t):
        return by + jnp.sum(jnp.sin(t)), slope * jnp.cos(t) + noise * jax.random.normal(key, t.shape)

    return estimate


def check_offset(**options):
    return ppvi.check_estimator(offset(**options), T, key=jax.random.key(1), budget=5, progress=False)


def test_values_far_from_zero():
    """In steps of 1/16 a change of about 1 says nothing of 1% of it; what is said is that it is the arithmetic."""
    report = check_offset(by=1e6, noise=0.1)
    assert report.verdict == "inconclusive", report
    assert report.measurements[0].reason == f"inconclusive: {ROUNDED}"
    assert report.measurements[0].visible >= DIGITS * 2**-23 * 2e6


@pytest.mark.parametrize(("by", "slope"), [(0.0, 1.1), (1e3, 1.1), (1e4, 2.0)])
def test_a_wrong_slope_is_found_above_the_rounding(by, slope):
    assert check_offset(by=by, slope=slope).verdict == "biased"


def test_the_last_digit_is_that_of_the_precision():
    """In double precision the same constant hides nothing."""
    with enable_x64(True):
        t = jnp.asarray(np.asarray(T), float)
        report = ppvi.check_estimator(offset(1e6, noise=0.1), t, key=jax.random.key(1), budget=20, progress=False)
    assert report.verdict == "unbiased within delta", report


def test_what_is_below_the_last_digit():
    """Neither a bias nor none, unless it is less than what counts as none."""
    rng = np.random.default_rng(0)
    for bias, spacing, outcome in (
        (0.1, 0.1, "inconclusive"),
        (0.1, 1e-4, "biased"),
        (1e-4, 0.1, "unbiased within delta"),
        (4.0, 0.1, "biased"),
    ):
        judge = Judge([Question("here", "a")], 1e-3, 0.01)
        draws = enough(RARE)
        judge.add(bias + 1e-3 * rng.normal(size=(draws, 1)), np.ones((draws, 1)), np.full((draws, 1), spacing))
        assert judge.outcomes() == [outcome]


@pytest.mark.parametrize("size", [1e6, 1e8])
def test_parameters_of_many_digits(size):
    """A path of length 1 from 1e8 has no numbers to go along; what is said is that it is the arithmetic."""

    def estimate(key, t):
        x = t - size
        return jnp.sum(jnp.sin(x)), jnp.cos(x) * (1 + 0.1 * jax.random.normal(key, t.shape))

    report = ppvi.check_estimator(estimate, T + size, key=jax.random.key(1), budget=5, progress=False)
    assert report.verdict == "inconclusive", report
    assert ROUNDED in " ".join(str(report).split())


def test_sums_whose_value_is_small():
    """What the last digits of 1e6 are does not show in the difference of two such numbers."""

    def estimate(key, t):
        return jax.lax.optimization_barrier(1e6 + jnp.sum(jnp.sin(t))) - 1e6, jnp.cos(t)

    report = ppvi.check_estimator(estimate, T, key=jax.random.key(1), budget=5, progress=False)
    assert report.verdict == "inconclusive", report
    assert ROUNDED in " ".join(str(report).split())


@pytest.mark.parametrize(
    ("function", "largest"),
    [
        (lambda x: jnp.sum(x) - 7.0, 7.0),
        (lambda x: 2 * (jnp.sum(1e3 * x) - 3000.0), 6000.0),
        (lambda x: jnp.exp(jnp.sum(x) - 3.0), 1.0),
        (lambda x: jnp.where(jnp.arange(3) < 2, x, -1e30).max(), 1.0),
        (lambda x: jax.nn.softplus(jnp.reshape(x * 1e4 - 1e4, (3, 1)))[0, 0], 1e4),
    ],
)
def test_the_largest_summand(function, largest):
    value, size = jax.jit(with_summands(function))(jnp.ones(3))
    assert value == pytest.approx(float(function(jnp.ones(3))))
    assert size == pytest.approx(largest)
