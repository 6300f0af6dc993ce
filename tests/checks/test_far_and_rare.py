"""What a statistical check may overlook: periods, rare events, what has no randomness, what is far away, one of many coordinates."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppvi
from ppvi.checks import Question, measure
from ppvi.checks.paths import LENGTHS, lay
from ppvi.checks.unbiased import ENOUGH

T = jnp.array([0.37])


def checked(estimator, params=T, seed=0, **options):
    return ppvi.check_estimator(
        estimator, params, key=jax.random.key(seed), **{"budget": 20, "progress": False, **options}
    )


def noise(key, t):
    return 0.1 * jax.random.normal(key, t.shape)


def rounded(n):
    return lambda key, t: (jnp.sum(jnp.round(n * t) / n), jnp.ones_like(t) + noise(key, t))


def waves(n):
    return lambda key, t: (jnp.sum(jnp.sin(t)), jnp.cos(t) + 2 * jnp.sin(2 * jnp.pi * n * t) + noise(key, t))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("estimator", [rounded(4), rounded(16), waves(1), waves(2), waves(8)])
def test_periods(estimator, seed):
    """Whole periods of a bias along paths of one length add up to nothing."""
    assert checked(estimator, seed=seed).verdict == "biased"


def test_paths_have_lengths_and_places_of_their_own():
    paths = lay({"given": np.zeros(5)}, np.arange(5), "abcde", range(5), 0, 2.0)
    assert LENGTHS[0] <= paths.lengths.min() < paths.lengths.max() <= LENGTHS[1]
    assert len(np.unique(paths.lengths.round(6))) == len(paths.questions)
    assert (paths.low <= 0).all()
    assert (paths.high >= 0).all()
    assert np.allclose(np.linalg.norm(paths.directions, axis=1), 1.0)
    far = next(i for i, question in enumerate(paths.questions) if question.point == "far")
    assert np.linalg.norm(paths.points[far]) == pytest.approx(2.0)
    with pytest.raises(ppvi.ProgramError, match="far must be a distance"):
        lay({"given": np.zeros(1)}, np.zeros(1), "a", [0], 0, math.inf)


def test_as_far_as_it_is_told():
    """A gradient that is wrong from a distance of 4 on."""

    def estimator(key, t):
        return jnp.sum(jnp.sin(t)), jnp.cos(t) + jnp.where(jnp.abs(t - 0.37) > 4.0, 1.0, 0.0) + noise(key, t)

    near = checked(estimator)
    assert near.verdict == "unbiased within delta"
    assert "which is 1 away" in str(near)
    assert checked(estimator, far=6.0).verdict == "biased"


# Rare events ----------------------------------------------------------------------------------------------------------


def rare(miss, bias):
    """The slope of sines, as it is or carried by events of probability 1e-4, and a bias that these carry."""

    def estimator(key, t):
        event = 1e4 * jax.random.bernoulli(key, 1e-4, t.shape)
        return jnp.sum(jnp.sin(t)), jnp.cos(t) * (event if miss else 1.0) + bias * event

    return estimator


@pytest.mark.parametrize("budget", [ppvi.Budget(60, 5000), ppvi.Budget(60, 80_000)], ids=["few draws", "more draws"])
def test_a_mean_in_rare_events_is_not_called_biased(budget):
    report = checked(rare(True, 0.0), budget=budget)
    assert report.verdict != "biased", report
    assert "in events rarer than 1 in" in str(report)


def test_a_bias_in_rare_events_is_not_called_unbiased():
    assert checked(rare(False, 1.0), budget=ppvi.Budget(60, 80_000)).verdict != "unbiased within delta"


def test_no_verdict_before_rare_events_are_drawn():
    """D = 1 throughout, and D = 0: at the end of a small budget the first is suspected, the second right as far as seen."""

    def always(difference):
        return lambda number, most: (np.full((1000, 1), difference), np.ones((1000, 1)))

    for draws, outcomes in (
        (5000, ["inconclusive", "unbiased within delta"]),
        (ENOUGH, ["biased", "unbiased within delta"]),
    ):
        found = [
            measure(always(d), [Question("here", "a")], budget=ppvi.Budget(60, draws), progress=False)
            for d in (1.0, 0.0)
        ]
        assert [m.outcome for [m] in found] == outcomes
    [suspected] = measure(always(1.0), [Question("here", "a")], budget=ppvi.Budget(60, 5000), progress=False)
    assert suspected.reason == "biased, unless events rarer than 1 in 724 make up for it"


# What has no randomness -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "unbiased within delta"), (1.2, "biased")])
def test_an_estimator_without_randomness(factor, verdict):
    report = checked(lambda key, t: (jnp.sum(jnp.sin(t)), factor * jnp.cos(t)))
    assert report.verdict == verdict
    assert "does not use the key" in str(report)


def test_a_coin_that_rarely_falls():
    """Nine keys give the same estimate, of a right gradient: E[b] for a coin of probability 1e-3, by its score."""

    def estimator(key, t):
        p = 1e-3 * jax.nn.sigmoid(t[0])
        b = jax.random.bernoulli(key, p).astype(float)
        score = jax.grad(
            lambda t: b * jnp.log(1e-3 * jax.nn.sigmoid(t)) + (1 - b) * jnp.log1p(-1e-3 * jax.nn.sigmoid(t))
        )(t[0])
        return b, jnp.array([b * score])

    report = checked(estimator, budget=ppvi.Budget(60, 80_000))
    assert report.verdict != "biased"
    assert not report.problems


# One of many coordinates ----------------------------------------------------------------------------------------------


def test_delta_in_one_coordinate():
    """Of a hundred coordinates: a random direction has a tenth of what is wrong in one of them."""
    t = jnp.linspace(-1.0, 1.0, 100)
    report = checked(lambda key, t: (jnp.sum(jnp.sin(t)), jnp.cos(t) + noise(key, t)), t, budget=ppvi.Budget(60, 4096))
    drawn = report.measurements[0]
    assert drawn.of_coordinate == pytest.approx(10 * drawn.delta)
    assert "in one coordinate of 100 alone" in str(report)
