"""When iterates have converged, of iterates that are known: means over blocks, R-hat, the memory of noise, and what drifts.

`drift` is infinite for independent values of one number once in 225,000 times: for 40,000 numbers at most 3 times (more with
probability 4e-5). A straight line is never at rest.
"""

import arviz as az
import numpy as np
import pytest
from scipy import stats

import ppvi
from ppvi._averages import PARTS
from ppvi._losses import memory, split_r_hat
from ppvi.engine import trail
from ppvi.engine.trail import BLOCK, Trail
from ppvi.stopping import R_HAT, drift

RNG = np.random.default_rng(0)
LINE = np.linspace(-1, 1, PARTS)[:, None]


def test_however_many_the_numbers_there_are_blocks_for_all_parts(monkeypatch):
    """After a join, when they are fewest."""
    monkeypatch.setattr(trail, "NUMBERS", 0)
    assert trail.LEAST >= 4 * PARTS
    found, blocks = Trail({"x": np.zeros((3, 0), np.float32)}), []
    for i in range(1, 600):
        found = found.after(BLOCK * i, {"x": np.full(3, i)})
        blocks.append(found.recent().blocks)
    assert min(blocks[2 * PARTS :]) >= PARTS
    assert max(blocks) <= trail.LEAST // 2


def test_r_hat_is_that_of_arviz():
    x = RNG.normal(size=(40, 3)).cumsum(0)
    theirs = [float(az.rhat({"x": column.reshape(2, -1)}, method="identity")["x"]) for column in x.T]
    np.testing.assert_allclose(split_r_hat(x), theirs)


def test_what_is_still_and_what_jumps():
    x = np.stack([np.ones(8), np.repeat([0.0, 1.0], 4)], 1)
    np.testing.assert_array_equal(split_r_hat(x), [np.sqrt(3 / 4), np.inf])
    np.testing.assert_array_equal(memory(x - x.mean(0))[0], 1.0)


@pytest.mark.parametrize("by", [0.0, 0.5, 0.9])
def test_memory_is_that_of_an_autoregression(by):
    from scipy.signal import lfilter

    x = lfilter([1.0], [1.0, -by], RNG.normal(size=(20_000, 20)), axis=0)
    np.testing.assert_allclose(memory(x - x.mean(0)).mean(), (1 + by) / (1 - by), rtol=0.1)


def test_a_line_drifts_and_noise_does_not():
    half = PARTS // 2
    chance = stats.f.sf((R_HAT**2 - (half - 1) / half) * half, 1, 2 * half - 2)
    assert chance == pytest.approx(1 / 225_000, rel=0.02)
    assert split_r_hat(LINE)[0] == pytest.approx(2.6, abs=0.05)
    drifted = [drift(RNG.normal(size=(PARTS, 1))) == np.inf for _ in range(2000)]
    assert sum(drifted) == 0
    assert (split_r_hat(RNG.normal(size=(PARTS, 40_000))) > R_HAT).sum() <= 3


@pytest.mark.parametrize("sd", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_line_drifts_in_any_units(sd, unit):
    found = [drift(unit * (LINE + sd * RNG.normal(size=LINE.shape))) for _ in range(200)]
    assert min(found) == np.inf


def test_of_many_numbers_one_that_drifts_is_found():
    moves = RNG.normal(size=(PARTS, 1000))
    moves[:, [700]] = LINE
    assert drift(moves) == np.inf


@pytest.mark.parametrize("heavy", [False, True])
def test_the_average_is_off_by_half_of_what_it_moves(heavy):
    """Of independent errors: |m1 - m2| / 2 and the error of the average have the same distribution."""
    noise = RNG.standard_t(5, size=(PARTS, 4000)) if heavy else RNG.normal(size=(PARTS, 4000))
    moved = np.array([drift(x[:, None]) for x in noise.T])
    assert np.median(moved / 2) == pytest.approx(np.median(np.abs(noise.mean(0))), rel=0.1)


@pytest.mark.parametrize("most", [4, 16, 512])
def test_blocks_are_means(most, monkeypatch):
    """However many there were, they have one width, but for the last one, and are the means over their steps."""
    monkeypatch.setattr(trail, "MOST", most)
    monkeypatch.setattr(trail, "LEAST", 2)
    steps = RNG.normal(size=(53 * BLOCK, 2, 3))
    found = Trail({"x": np.zeros((2, 3, 0))})
    for step in range(1, len(steps) + 1):
        found = found.after(
            step, {"x": steps[step // BLOCK * BLOCK - BLOCK : step].mean(0)} if step % BLOCK == 0 else {}
        )
    assert found.blocks <= most
    assert (found.blocks - 1) * found.width < len(steps) <= found.blocks * found.width
    for i in range(found.blocks):
        mean = steps[i * found.width : (i + 1) * found.width].mean(0)
        np.testing.assert_allclose(found.means["x"][..., i], mean, atol=1e-12)
    np.testing.assert_allclose(found.recent().mean()["x"], found.means["x"][..., found.blocks // 2 :].mean(-1))


def test_memory_is_bounded():
    x = np.zeros((trail.NUMBERS // 100, 0), np.float32)
    found = Trail({"x": x})
    for i in range(1, 300):
        found = found.after(i * BLOCK, {"x": np.zeros(len(x), np.float32)}) if i < 20 else found
    assert found.means["x"].size <= trail.NUMBERS


@pytest.mark.parametrize("bad", [0, -1.0, "0.1", True, np.inf])
def test_bad_tolerances(bad):
    with pytest.raises(ppvi.ProgramError, match="Converged: the tolerance"):
        ppvi.Converged(bad)
