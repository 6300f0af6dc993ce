"""Whether losses have settled, of losses whose course is known: a decay at a known rate, and noise about it.

`no` of what is stationary is a false alarm, below one in a hundred: of 1200 series at most 24 (of a rate of 0.01 more are seen
with probability 0.001). `yes` of what has a nat to fall, or a half of its sd, is false, and rare.
"""

import numpy as np
import pytest

from ppvi._losses import converged, course_of

RNG = np.random.default_rng(0)
NOISE = {
    "normal": lambda n: RNG.normal(size=n),
    "Student, 2": lambda n: RNG.standard_t(2, size=n),
    "exponential": lambda n: RNG.exponential(size=n),
    "spikes": lambda n: RNG.normal(size=n) + 100 * (RNG.random(n) < 0.002),
    "correlated": lambda n: correlated(n, 0.7),
}


def correlated(n, by):
    from scipy.signal import lfilter

    return lfilter([1.0], [1.0, -by], RNG.normal(size=n + 200))[200:]


def verdict(losses):
    return converged(losses).split(":")[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", NOISE)
def test_noise_alone_does_not_fall(kind):
    found = [verdict(100 + 3 * NOISE[kind](n)) for n in (600, 3000, 6000) for _ in range(400)]
    assert found.count("no") <= 24
    long = [verdict(100 + 3 * NOISE[kind](20_000)) for _ in range(40)]
    assert long.count("yes") >= 34


@pytest.mark.parametrize("sd", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("steps", [300, 1500, 6000])
def test_what_falls_has_not_settled(steps, rate, sd):
    """exp(-rate) of the fall from the start of the steps is still to come at their end."""
    left = 2 * max(1.0, sd / 2)
    mean = left * np.exp(rate * (1 - np.arange(steps) / steps))
    found = [verdict(mean + sd * RNG.normal(size=steps)) for _ in range(30)]
    assert found.count("yes") <= 3


@pytest.mark.parametrize("steps", [3000, 6000])
@pytest.mark.parametrize("rate", [15, 40])
def test_what_fell_and_falls_no_more_has_settled(rate, steps):
    mean = 50 * np.exp(-rate * np.arange(steps) / steps)
    found = [verdict(mean + RNG.normal(size=steps)) for _ in range(60)]
    assert found.count("yes") >= 50
    assert found.count("no") <= 4


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (100 * np.exp(-3 * np.arange(1000) / 1000), "no: the loss was still falling, by 1"),
        (100 * np.exp(-40 * np.arange(1000) / 1000), "yes: the loss had settled"),
        (np.arange(100.0), "no: the loss was still rising, by 50 over the last half"),
        (np.zeros(100), "yes"),
        (np.zeros(39), "unknown: fewer than 40 steps"),
        (np.r_[np.zeros(99), np.nan], "unknown"),
        (np.r_[np.full(900, 5.0), 5 - 0.05 * np.arange(100)], "no: the loss was still falling"),
    ],
)
def test_losses_without_noise(losses, said):
    assert converged(losses).startswith(said)


def test_what_could_have_been_seen():
    """A trend of the change that is named is seen in most series, and one of a third of it in few."""
    named = np.median([course_of(RNG.normal(size=2000)).seen for _ in range(50)])
    for factor, least, most in ((1.3, 60, 100), (0.3, 0, 15)):
        trend = -factor * named * 2 * np.arange(2000) / 2000
        found = [verdict(trend + RNG.normal(size=2000)) for _ in range(100)]
        assert least <= found.count("no") <= most
