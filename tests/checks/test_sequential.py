"""Levels and power of the sequential tests, on draws made for the purpose.

Levels: so many runs on means that are zero, each looked at many times, reject no more often than the level allows; the bound
on the number of rejections is the binomial one at probability 1e-6, for 12 such tests about 1e-5 in all. Power: a bias is
found by the number of draws at which the interval's half width plus 3.1 standard errors is the bias.
"""

import math

import numpy as np
import pytest
from scipy import stats

import ppvi
from ppvi.checks import Asymptotic, Bounded, Catoni, Question, measure
from ppvi.checks.tails import k_hat
from ppvi.checks.unbiased import Judge

RUNS = 2000
DRAWS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exponential, skewness 2": lambda rng, shape: rng.exponential(size=shape) - 1,
    "-1 or 9, skewness 2.7": lambda rng, shape: np.where(rng.random(shape) < 0.1, 9.0, -1.0),
    "log-normal, skewness 6": lambda rng, shape: rng.lognormal(0, 1, shape) - math.exp(0.5),
    "Student, 3 degrees": lambda rng, shape: rng.standard_t(3, shape),
    "mostly zero, skewness 10": lambda rng, shape: np.where(rng.random(shape) < 0.01, 99.0, -1.0),
}


def rejections(test, draws, looks, batch, seed=0):
    rng = np.random.default_rng(seed)
    rejected = np.zeros(RUNS, bool)
    for _ in range(looks):
        test.add(draws(rng, (batch, RUNS)))
        low, high = test.interval()
        rejected |= (low > 0) | (high < 0)
    return int(rejected.sum())


def most(alpha):
    """Rejections that a level allows, but for a chance of 1e-6."""
    return int(stats.binom.isf(1e-6, RUNS, alpha))


@pytest.mark.parametrize(
    ("name", "alpha"),
    [
        pytest.param(name, alpha, marks=[] if i == 0 and alpha == 0.05 else [pytest.mark.slow])
        for i, name in enumerate(DRAWS)
        for alpha in (0.05, 1e-3)
    ],
)
def test_level_of_the_asymptotic_test(name, alpha, capsys):
    """The level is asymptotic; on skewed and heavy-tailed draws it holds all the same, and on normal ones from the start."""
    batch = 250 if name == "normal" else 1000
    found = rejections(Asymptotic(RUNS, alpha, tightest=20 * batch), DRAWS[name], looks=40, batch=batch)
    with capsys.disabled():
        print(f"\n{name}: {found} of {RUNS} false alarms at alpha = {alpha:g}, at most {most(alpha)} allowed")
    assert found <= most(alpha)


@pytest.mark.slow
def test_level_of_the_bounded_test():
    test = Bounded(RUNS, 0.05, -1.0, 9.0, np.array([0.0]))
    assert _ruled_out(test, DRAWS["-1 or 9, skewness 2.7"], looks=20, batch=200) <= most(0.05)


def test_level_of_the_catoni_test():
    test = Catoni(RUNS, 0.05, 9.0, np.array([0.0]))
    assert _ruled_out(test, DRAWS["-1 or 9, skewness 2.7"], looks=20, batch=200) <= most(0.05)


def _ruled_out(test, draws, looks, batch):
    rng = np.random.default_rng(1)
    for _ in range(looks):
        test.add(draws(rng, (batch, RUNS)))
    return int(test.ruled_out.sum())


@pytest.mark.parametrize("bias", [0.1, 0.03, 0.01])
def test_power_of_the_asymptotic_test(bias):
    """Of 50 runs all have found the bias by the n that the width of the interval predicts, and not much earlier."""
    alpha, runs, rng = 1e-3, 50, np.random.default_rng(2)
    test = Asymptotic(runs, alpha, tightest=max(2000, int(30 / bias**2)))
    n = 2000
    while _half_width(test, n) + 3.1 / math.sqrt(n) > bias:
        n = int(1.02 * n)
    step = max(n // 40, 500)
    found = np.full(runs, np.inf)
    while test.count < n + step:
        test.add(rng.normal(bias, 1.0, (step, runs)))
        low, _ = test.interval()
        found = np.where((low > 0) & np.isinf(found), test.count, found)
    assert (found <= n + step).all()
    assert np.median(found) >= n / 4 or n < 8000


def _half_width(test, n):
    return math.sqrt(2 * (n * test.r + 1) / (n**2 * test.r) * math.log(math.sqrt(n * test.r + 1) / test.alpha))


def test_power_of_the_bounded_test():
    """A bias of a sixth of a standard deviation in draws of -1 and 9, at alpha = 0.01: in the median within 900 draws."""
    rng, runs = np.random.default_rng(3), 200
    test = Bounded(runs, 0.01, -1.0, 9.0, np.array([0.0]))
    found = np.full(runs, np.inf)
    for _ in range(60):
        test.add(np.where(rng.random((50, runs)) < 0.15, 9.0, -1.0))
        found = np.where(test.ruled_out[0] & np.isinf(found), test.count, found)
    assert np.median(found) <= 900
    assert np.isfinite(found).mean() > 0.95


def test_bounded_and_catoni_answer_both_ways():
    """Unbiased within delta, and biased, with an exact level."""
    rng = np.random.default_rng(4)

    def draw(shift):
        def batch(number, most):
            d = np.where(rng.random((4000, 1)) < 0.5, 1.0, -1.0) + shift
            return d, np.full_like(d, 5.0)

        return batch

    question = [Question("here", "a")]
    for options in ({"bounds": (-2.5, 2.5)}, {"variance": 1.1}):
        [good] = measure(draw(0.0), question, delta=0.02, progress=False, **options)
        [bad] = measure(draw(0.3), question, delta=0.02, progress=False, **options)
        assert good.outcome == "unbiased within delta"
        assert bad.outcome == "biased"
        assert bad.low <= 0.3 <= bad.high


def test_draws_outside_their_bounds():
    test = Bounded(1, 0.05, -1.0, 1.0, np.array([0.0]))
    with pytest.raises(ppvi.ProgramError, match="not all within"):
        test.add(np.array([[3.0]]))


def test_tails():
    """Shapes around 1 / (degrees of freedom); of bounded draws with a rare value none."""
    rng = np.random.default_rng(5)
    assert k_hat(rng.normal(size=50_000)) < 0.2
    assert k_hat(rng.standard_cauchy(50_000)) > 0.8
    assert k_hat(np.where(rng.random(50_000) < 0.01, 5.0, 0.1) + 0.05 * rng.random(50_000)) < 0.1
    assert k_hat(np.where(rng.random(50_000) < 0.5, 1.0, -1.0)) == -np.inf


def test_heavy_tails_are_inconclusive():
    """Draws of infinite variance are neither passed nor called biased, whatever their mean."""
    for shift in (0.0, 3.0):
        judge = Judge([Question("here", "a")], 1e-3, 0.01)
        rng = np.random.default_rng(6)
        for _ in range(60):
            judge.add(rng.standard_t(1.2, (1000, 1)) + shift, np.ones((1000, 1)))
        assert judge.outcomes() == ["inconclusive"]


def test_draws_that_are_not_finite():
    judge = Judge([Question("here", "a")], 1e-3, 0.01)
    judge.add(np.array([[np.nan], [1.0]]), np.ones((2, 1)))
    assert judge.outcomes() == ["inconclusive"]
    assert "not finite" in judge.measurements()[0].reason


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"alpha": 2.0}, {"delta": 0.0}])
def test_levels_are_checked(options):
    with pytest.raises(ppvi.ProgramError, match="between 0 and 1"):
        measure(lambda number, most: (np.zeros((1, 1)), np.zeros((1, 1))), [Question("here", "a")], **options)
