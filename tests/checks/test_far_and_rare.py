"""What a statistical check may overlook: periods, rare events, what has no randomness, what is far away, one of many coordinates."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppvi
from ppvi.checks import Question, measure
from ppvi.checks.paths import CLOSE, LENGTHS, lay
from ppvi.checks.unbiased import RARE, Judge, enough
from tests.engines import ENGINES, dist, on, ppl, xp

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
    close = np.array([question.close for question in paths.questions])
    assert LENGTHS[0] <= paths.lengths[~close].min() < paths.lengths[~close].max() <= LENGTHS[1]
    assert (paths.lengths[close] <= CLOSE).all()
    assert len(np.unique(paths.lengths.round(6))) == len(paths.questions)
    assert (paths.low <= 0).all()
    assert (paths.high >= 0).all()
    assert np.allclose(np.linalg.norm(paths.directions, axis=1), 1.0)
    far = next(i for i, question in enumerate(paths.questions) if question.point == "far")
    assert np.linalg.norm(paths.points[far]) == pytest.approx(2.0)
    with pytest.raises(ppvi.ProgramError, match="far, a distance in unconstrained parameters,"):
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
    assert "in events rarer than 1 in" in " ".join(str(report).split())


def test_a_bias_in_rare_events_is_not_called_unbiased():
    assert checked(rare(False, 1.0), budget=ppvi.Budget(60, 80_000)).verdict != "unbiased within delta"


def test_no_verdict_before_rare_events_are_drawn():
    """D = 1 throughout, and D = 0: at the end of a small budget the first is suspected, the second right as far as seen."""

    def always(difference):
        return lambda number, most: (np.full((1000, 1), difference), np.ones((1000, 1)))

    for draws, outcomes in (
        (5000, ["inconclusive", "unbiased within delta"]),
        (enough(RARE), ["biased", "unbiased within delta"]),
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
    assert "does not use the key" in " ".join(str(report).split())


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
    assert "in one coordinate of 100 alone" in " ".join(str(report).split())


# Close paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [rounded(200), waves(200)])
def test_short_periods_show_on_close_paths(estimator):
    """Along a path of length 0.2 they add up to less than what counts as none."""
    report = checked(estimator)
    assert report.verdict == "biased"
    assert {m.direction for m in report.measurements if abs(m.bias) > 0.2 * m.scale} == {"all, close"}


@pytest.mark.parametrize(("slope", "verdict"), [(1.0, "unbiased within delta"), (2.0, "biased")])
def test_small_parameters_move_by_as_little(slope, verdict):
    """The sine of t / 1e-8 goes round 1e7 times along a path of length 1."""

    def estimator(key, t):
        x = t / 1e-8
        return jnp.sum(jnp.sin(x)), slope * jnp.cos(x) / 1e-8 * (1 + noise(key, t))

    assert checked(estimator, 1e-8 * T, delta=0.05).verdict == verdict


def test_jumps_that_no_draw_has_met():
    """Draws of a close path that are 0.02 on average: by jumps of size 1, of probability 0.02 times its length, it could be 0."""
    draws, rng = enough(RARE), np.random.default_rng(0)
    questions = [Question("here", "all", length=0.5), Question("here", "all, close", length=3e-3, close=True)]
    for change, outcome in ((1.0, None), (0.01, "biased")):
        judge = Judge(questions, 1e-3, 0.01)
        differences = np.stack([np.zeros(draws), 0.02 + 0.1 * rng.normal(size=draws)], -1)
        judge.add(differences, np.stack([np.full(draws, 2 * change), np.ones(draws)], -1))
        assert judge.outcomes() == ["unbiased within delta", outcome]


def test_a_close_path_that_is_left_open_decides_nothing():
    """A coin by its score, whose value hardly ever changes along a close path, and by 300 then."""

    def estimator(key, t):
        p = jax.nn.sigmoid(t[0])
        b = (jax.random.uniform(key) < p).astype(float)
        return b, jnp.array([b * (b - p)])

    report = checked(estimator, alpha=1e-6, delta=0.05, budget=60)
    assert report.verdict == "unbiased within delta", report
    assert {m.outcome for m in report.measurements if m.close} == {"inconclusive"}
    assert "averages out" in " ".join(str(report).split())


def test_what_changes_evenly_along_a_path_leaves_no_noise():
    """Of a square, whose gradient is a line, the mean over a point of a path and its mirror image is the change itself."""

    def estimator(key, t):
        x = t + jax.random.normal(key, t.shape)
        return jnp.sum(x**2), 2 * x

    report = checked(estimator)
    assert report.verdict == "unbiased within delta"
    assert all(m.visible < 1e-4 * m.scale for m in report.measurements if not m.close)


# Slow estimators ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "unbiased within delta"), (0.5, "biased")])
def test_a_slow_estimator_is_decided_by_a_thousand_draws(factor, verdict):
    """Where it is known that no event is rarer than 1%."""

    def estimator(seed, params):
        x = params["x"] + np.random.default_rng(seed).normal(size=2)
        return np.sin(x).sum(), {"x": factor * np.cos(x)}

    budget = ppvi.Budget(60, 2000)
    report = ppvi.check_estimator(estimator, {"x": np.zeros(2)}, rare=0.01, delta=0.05, budget=budget, progress=False)
    assert report.verdict == verdict, report


# Parameters of no size, and of a size -----------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_parameters_without_entries(engine):
    def guide():
        none, one = ppl.param("none", xp.zeros(0)), ppl.param("one", xp.ones(1))
        ppl.sample("z", dist.Normal(one[0] + none.sum(), 1.0))

    with on(engine):
        bound = engine.vi.objective(lambda p, q: xp.sin(q.simulate()["z"]), lambda: None, guide)
        report = bound.check(engine.key(1), bound.init(engine.key(0)), delta=0.05, budget=20, progress=False)
    assert report.verdict == "unbiased within delta", report


# Rates ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["normal", "lopsided"])
def test_the_stated_rate_of_wrong_verdicts(name):
    """At a rate of 0.1, of 100 checks of three means that are 0 at most 20 are wrong, but for a chance of 1e-3."""
    wrong = 0
    for seed in range(100):
        rng = np.random.default_rng([seed, 7])

        def draw(number, most, rng=rng):
            found = rng.normal(size=(2000, 3)) if name == "normal" else rng.exponential(size=(2000, 3)) - 1
            return found, found + 1

        questions = [Question("here", str(i)) for i in range(3)]
        found = measure(
            draw, questions, alpha=0.1, delta=0.05, rare=0.01, budget=ppvi.Budget(60, 20_000), progress=False
        )
        wrong += any(m.outcome == "biased" for m in found)
    assert wrong <= 20
