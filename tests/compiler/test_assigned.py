"""Tables at the assignments of runs, and windows along an axis, beside lookups of NumPy's."""

import importlib
import itertools

import jax
import numpy as np
import pytest

from ppvi._ops import as_numpy
from ppvi.compiler.continuation import window_sum
from ppvi.ir import Along
from ppvi.strategies import assigned
from tests.engines import ENGINES, NUMPYRO

both = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


def ops_of(engine):
    return importlib.import_module(f"ppvi.{engine.name.lower()}._ops").OPS


def digits_of(base, width, places):
    """Of the number of each of base ** width runs, the digits at these places, `(C, *lanes)`."""
    numbers = np.indices((base,) * width).reshape(width, -1).T
    return numbers[:, np.asarray(places, int)]


CASES = {
    "one lane after the other": (3, 2, [[0, 1, 0, 1, 0]]),
    "pairs of neighbours": (3, 2, [[1, 0, 1, 0], [0, 1, 0, 1]]),
    "pairs with an end that is alone": (2, 2, [[0, 0, 1, 0], [0, 1, 0, 1]]),
    "one of three": (2, 3, [[2, 1, 2]]),
    "triples, one value twice": (2, 3, [[2, 0], [2, 1], [0, 2]]),
    "more kinds than are laid apart": (2, 4, [[i % 4 for i in range(16)], [i // 4 for i in range(16)]]),
    "no lanes": (4, 1, [0]),
    "no pairs": (2, 2, [[], []]),
    "one value": (1, 1, [[0, 0]]),
}


@both
@pytest.mark.parametrize("name", CASES)
def test_a_table_in_all_runs_is_what_is_looked_up(engine, name):
    base, width, places = CASES[name]
    digits = [digits_of(base, width, place) for place in places]
    check(engine, base, digits)


@both
def test_digits_of_no_number_are_looked_up(engine):
    rng = np.random.default_rng(0)
    check(engine, 3, [rng.integers(0, 3, (9, 4)), rng.integers(0, 3, (9, 4))])
    check(engine, 3, [np.array([[2, 0, 1]])])


def check(engine, base, digits):
    lanes = digits[0].shape[1:]
    table = np.random.default_rng(1).normal(size=(*[base] * len(digits), *lanes, 2)).astype(np.float32)
    expected = np.stack(
        [
            [table[(*(d[(c, *lane)] for d in digits), *lane)] for lane in itertools.product(*map(range, lanes))]
            for c in range(len(digits[0]))
        ]
    )
    found = assigned.at(ops_of(engine), engine.xp.array(table), digits)
    np.testing.assert_array_equal(as_numpy(found).reshape(expected.shape), expected)


def test_all_assignments_of_neighbours_are_laid_without_a_lookup():
    digits = [digits_of(3, 2, [1, 0, 1, 0]), digits_of(3, 2, [0, 1, 0, 1])]
    text = str(jax.make_jaxpr(lambda x: assigned.at(ops_of(NUMPYRO), x, digits))(np.zeros((3, 3, 4))))
    assert "gather" not in text


WINDOWS = [
    (-1, 0),
    (0, 2),
    (-3, -3),
    (7, 8),
    (-9, -8),
    (-np.inf, 0),
    (-np.inf, -2),
    (-1, np.inf),
    (2, np.inf),
    (-np.inf, 9),
]


@both
@pytest.mark.parametrize("window", WINDOWS)
def test_sums_over_windows_are_sums_by_hand(engine, window):
    x, size = np.random.default_rng(2).normal(size=(2, 5)).astype(np.float32), 6
    first, last = window
    expected = [[sum(row[j] for j in range(5) if i + first <= j <= i + last) for i in range(size)] for row in x]
    found = window_sum(ops_of(engine), engine.xp.array(x), 1, Along(1, first, last), size)
    np.testing.assert_allclose(as_numpy(found), expected, atol=1e-5)


@both
def test_an_infinite_entry_counts_in_the_windows_that_have_it_alone(engine):
    """As of a log probability of zero: where a window ends before it, a product with zero would be no number."""
    x = np.array([-np.inf, 1.0, 2.0, -np.inf], np.float32)
    found = window_sum(ops_of(engine), engine.xp.array(x), 0, Along(0, -1, 0), 5)
    np.testing.assert_array_equal(as_numpy(found), [-np.inf, -np.inf, 3.0, -np.inf, -np.inf])
    found = window_sum(ops_of(engine), engine.xp.array(x), 0, Along(0, -2, -2), 4)
    np.testing.assert_array_equal(as_numpy(found), [0.0, 0.0, -np.inf, 1.0])
