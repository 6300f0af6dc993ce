"""The budget of a check binds, however slow the estimator is."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppvi
from ppvi.engine.outcomes import EndlessError, Tape
from ppvi.numpyro._checking import _batch_size


def test_an_estimator_of_a_hundredth_of_a_second():
    def slow(seed, params):
        time.sleep(0.01)
        return 0.0, {"x": np.zeros(1)}

    def check(budget):
        start = time.monotonic()
        ppvi.check_estimator(slow, {"x": np.zeros(1)}, budget=budget, progress=False)
        return time.monotonic() - start

    check(0.01)  # which loads what is imported when it is used
    assert check(0.5) < 1.5


def test_rounds_count_as_work():
    """A batch of a loop of so many rounds is that much smaller; one of a few numbers is as large as ever."""

    def rounds(n):
        def one(key):
            noise = jax.random.normal(key, (100,))
            return jax.lax.scan(lambda x, _: (jnp.sin(x + noise), None), noise, length=n)[0]

        return _batch_size(one, jax.random.key(0))

    sizes = [rounds(n) for n in (1, 1000, 10_000, 10**7)]
    assert sizes[0] == 4096
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert 4 <= sizes[1] / sizes[2] <= 16


def test_outcomes_end_in_time():
    tape = Tape(4096, seconds=0.05)

    def slowly():
        for row in range(1000):
            time.sleep(0.01)
            yield row

    with pytest.raises(EndlessError, match=r"longer than 0\.05 seconds"):
        list(tape.in_time(slowly()))
