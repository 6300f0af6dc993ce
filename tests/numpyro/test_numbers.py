"""Operations by NumPy are JAX's: the same numbers of the same precision, at what is infinite, missing or too small too."""

import itertools
from contextlib import suppress

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

from ppvi.engine.algebra import ENTRYWISE
from ppvi.numpyro import _numbers as numbers
from ppvi.numpyro._arithmetic import KEY
from tests.engines import enable_x64

EDGES = np.array([0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan, 1e-30, 88.0, -90.0, 3e38, 0.5], np.float32)
WHOLE = np.array([0, 1, -7, 5, 2**31 - 1, -(2**31)], np.int32)
TRUTHS = np.array([True, False, True])
SQUARE = np.array([[2.0, 0.3], [0.3, 1.0]], np.float32)
TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)
PLACES = np.array([2, -1, 9, 0])


def loop(x):
    return lax.scan(lambda carry, y: (carry * 0.5 + y, (carry, y > carry)), x[0], x, reverse=True)


def search(x):
    return lax.while_loop(lambda s: s[1] < 5, lambda s: (s[0] * s[1], s[1] + 1), (x, 1))


def branch(x):
    return lax.cond(x.sum() > 3, lambda x: x * 2, lambda x: x - 1, x)


def rounds(x, n):
    """x after so many rounds."""
    return lax.scan(lambda x, _: (jnp.sin(x) + 0.9, None), x, length=n)[0]


def until(x, n):
    return lax.while_loop(lambda s: s[1] < n, lambda s: (jnp.sin(s[0]) + 0.9, s[1] + 1), (x, 0))[0]


LONG = {
    "a search": lambda x: until(x, 5000),
    "a loop in a loop": lambda x: lax.scan(lambda x, _: (rounds(x, 60), None), x, length=60)[0],
    "a search in a loop": lambda x: lax.scan(lambda x, _: (until(x, 300), None), x, length=20)[0],
    "a loop in a search": lambda x: lax.while_loop(lambda s: s[1] < 99, lambda s: (rounds(s[0], 99), s[1] + 1), (x, 0))[0],
    "a loop in a branch in a loop": lambda x: lax.map(lambda y: lax.cond(y > 0, lambda y: rounds(y, 500), lambda y: y, y), x),
}  # fmt: skip
CASES = {
    "arithmetic": (lambda x: (x + x, x - x, x * x, x / x, x**2, 1 / x, x * 1e-20, abs(x), -x), EDGES),
    "exponentials": (lambda x: (jnp.exp(x), jnp.expm1(x), jnp.tanh(x), jax.nn.sigmoid(x), jnp.log(jnp.exp(x))), EDGES),
    "logarithms": (lambda x: (jnp.log(x), jnp.log1p(x), jnp.sqrt(x), jnp.cbrt(x), lax.rsqrt(x)), EDGES),
    "extremes": (lambda x: (jnp.maximum(x, 0), jnp.max(x), jnp.argmax(x), jnp.clip(x, -1, 1), jnp.sort(x), jnp.sign(x)), EDGES),
    "comparisons": (lambda x: (x > 0, x == x, jnp.isfinite(x), jnp.where(x > 1, x, -x), ~(x < 1) & (x > 0)), EDGES),
    "rounding": (lambda x: (jnp.floor(x), jnp.round(x), lax.round(x), x.astype(jnp.int32), x.astype(jnp.uint8)), EDGES),
    "sums": (lambda x: (x.sum(0), jnp.cumsum(x, 1), jnp.prod(x, 1), jax.nn.logsumexp(x, 0), lax.cumlogsumexp(x, 1, reverse=True)), TABLE),
    "integers": (lambda x: (lax.div(x, x[::-1]), lax.rem(x, x[::-1]), x // 3, x % 3, x * x, x.sum(), x >> 1), WHOLE),
    "truths": (lambda x: (x.any(), x.all(), x ^ True, x.sum(), x * 2.0, jnp.cumsum(x)), TRUTHS),
    "products": (lambda x: (x @ x.T, jnp.einsum("ij,ik->ijk", x, x), jnp.einsum("ij,ij->i", x, x)), TABLE),
    "moves": (lambda x: (x.T, x[::-1], x[:, None], jnp.pad(x, ((1, 0), (0, 2))), jnp.tile(x, 2), x.reshape(2, 6)), TABLE),
    "lookups": (lambda x: (x[PLACES], x[PLACES, 1], x[jnp.array(PLACES)], jnp.take(x, PLACES, 1, mode="clip")), TABLE),
    "lookups row by row": (lambda x: jax.vmap(lambda row, i: row[i])(x, jnp.array([0, 2, 1, 0])), TABLE),
    "writes": (lambda x: (x.at[PLACES].set(7.0), x.at[PLACES, 1].add(2.0), lax.dynamic_update_slice(x, x[:1], (3, 1))), TABLE),
    "matrices": (lambda x: (jnp.linalg.cholesky(x), jnp.linalg.cholesky(-x), jnp.linalg.solve(x, x[0])), SQUARE),
    "special functions": (lambda x: (lax.lgamma(x), lax.erf(x), lax.erf_inv(x / 5), lax.digamma(x), lax.igamma(x, x)), TABLE + 1),
    "incomplete gamma functions": (lambda x: [f(x[:, None], x[None]) for f in (lax.igamma, lax.igammac)], EDGES[[0, 2, 3, 4, 5, 6, 8, 11]]),
    "loops": (lambda x: (loop(x), search(x), branch(x), jax.jit(jnp.cos)(x), jax.nn.softplus(x)), EDGES),
    "loops that end lane by lane": (lambda x: jax.vmap(lambda x: lax.while_loop(lambda s: s[0].sum() < 9, lambda s: (2 * s[0] + 1, s[1] + 1), (x, 0)))(x), TABLE),
    "quotients of halves": (lambda x: (x / 4, x[0] / x, jnp.sort(x), x.astype(jnp.int32)), jnp.array([1.5, 2.0, np.inf, -3.5, np.nan], jnp.bfloat16)),
    "functions of places": (lambda x: (x.at[0].apply(jnp.sqrt), x.at[PLACES].set(7.0)), TABLE),
    "nothing": (lambda x: (jnp.max(x, initial=0.5), jnp.einsum("bij,bjk->bik", x, x.swapaxes(1, 2)), x.sum()), np.zeros((0, 2, 3), np.float32)),
    "bits": (lambda x: lax.bitcast_convert_type(x, jnp.uint8), TABLE),
    "wider products": (lambda x: lax.dot(x, x, preferred_element_type=jnp.int32), np.full((2, 2), 100, np.int8)),
    "large integers": (lambda x: (lax.div(x, jnp.int32(3)), lax.div(x, jnp.int32(-3))), np.array([2**31 - 1, -(2**31), 2**30 + 1], np.int32)),
    "keys of 64 bits": (lambda x: jax.random.key_data(jax.random.wrap_key_data(x)), np.array([5, 7], np.uint32)),
    "halves": (lambda x: (x * 3, jnp.exp(x), x.sum(), lax.lgamma(x)), jnp.array([1.5, 2.0], jnp.bfloat16)),
}  # fmt: skip


def by_numpy(function, *values):
    closed = jax.make_jaxpr(function)(*values)
    with np.errstate(all="ignore"):
        return numbers.run_of_body(closed)(*map(numbers.number, values))


@pytest.mark.parametrize("name", CASES)
def test_the_same_numbers(name):
    function, x = CASES[name]
    expected = jax.tree.leaves(function(jnp.asarray(x)))
    for mine, theirs in zip(by_numpy(function, x), expected, strict=True):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(
            np.asarray(mine, float), np.asarray(theirs, float), 4e-3 if x.dtype == "bfloat16" else 3e-5, 1e-6
        )


@pytest.mark.parametrize("name", LONG)
def test_long_loops_are_run_by_jax(name, monkeypatch):
    """However they are nested, NumPy runs so many rounds and no more."""
    count, function, x = itertools.count(), LONG[name], np.array([0.3, 2.0, -1.0, 0.7], np.float32)
    monkeypatch.setitem(numbers.COMPUTES, "sin", lambda p, x: (next(count), np.sin(x))[1])
    [mine] = by_numpy(function, x)
    np.testing.assert_allclose(mine, function(jnp.asarray(x)), 1e-5)
    assert 0 < next(count) <= numbers.LONGEST


WIDTHS = [f"{kind}{8 * 2**n}" for kind in ("int", "uint") for n in range(4)]
DTYPES = ["float16", "float32", "float64", *WIDTHS, "bool"]
SPELT = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "not": "bitwise_not"}
OPERATIONS = {
    **{name: getattr(lax, SPELT.get(name, name), None) for name in ENTRYWISE},
    **{f"to {dtype}": lambda x, dtype=dtype: x.astype(dtype) for dtype in DTYPES},
    "to even": lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN),
    **{name: getattr(lax, name) for name in ("shift_left", "shift_right_arithmetic", "shift_right_logical")},
    **{name: getattr(lax, name) for name in ("polygamma", "bessel_i0e", "bessel_i1e")},
    **{f"power {n}": lambda x, n=n: lax.integer_pow(x, n) for n in (-2, -1, 0, 2, 3)},
}


def grid(dtype):
    """Zeros, ones, ends, and what is beyond them."""
    if dtype == "bool":
        return np.array([False, True])
    if dtype.startswith("float"):
        info = np.finfo(dtype)
        near = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -3.0, 88.0, -90.0, 1e4, np.inf, -np.inf, np.nan]
        return np.array([*near, 1 - info.eps, info.max, info.min, info.tiny, -info.tiny, info.eps], dtype)
    info = np.iinfo(dtype)
    values = (0, 1, -1, 2, -2, 3, 7, 8, 31, -7, 100, info.min, info.min + 1, info.max - 1, info.max)
    return np.array(sorted({x for x in values if info.min <= x <= info.max}), dtype)


def known(*values):
    """The operations that are of as many numbers of this kind."""
    for name, operation in OPERATIONS.items():
        with suppress(TypeError, ValueError):
            jax.eval_shape(operation, *values)
            yield name


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_numbers_at_ends(dtype):
    """Of every operation on single numbers, but for the sign of zero, which JAX promises of none."""
    x, rtol, atol = grid(dtype), *{"float16": (4e-3, 1e-6), "float64": (1e-11, 1e-14)}.get(dtype, (3e-5, 1e-6))
    with enable_x64(dtype.endswith("64")):
        for values in ([x], [np.ravel(each) for each in np.meshgrid(x, x)]):
            found = list(known(*values))

            def every(*xs):
                return [OPERATIONS[name](*xs) for name in found]

            for name, mine, theirs in zip(found, by_numpy(every, *values), jax.jit(every)(*values), strict=True):
                theirs = np.asarray(theirs)
                assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype), name
                if theirs.dtype.kind == "f":
                    np.testing.assert_allclose(mine, theirs, rtol, atol, err_msg=name)
                else:
                    np.testing.assert_array_equal(mine, theirs, name)


def test_what_is_too_small_is_zero():
    [mine] = by_numpy(lambda x: jnp.log(x * x), np.array([1e-30], np.float32))
    assert mine == -np.inf


def test_draws_are_independent_and_of_their_distribution():
    """Kolmogorov's test rejects what is right once in a million runs, and sees a distance of 0.013 at 2 * 10^5 draws."""

    def draw(key):
        one, two = jax.random.split(key)
        again = jax.random.fold_in(key, 1)
        return (
            jax.random.uniform(one, (200_000,)),
            jax.random.normal(two, (200_000,)),
            jax.random.gamma(again, 0.3, (200_000,)),
        )

    uniform, normal, gamma = by_numpy(draw, jax.random.key(0))
    for x, law in ((uniform, stats.uniform()), (normal, stats.norm()), (gamma, stats.gamma(0.3))):
        assert stats.kstest(x, law.cdf).pvalue > 1e-6
    assert abs(np.corrcoef([uniform, normal, gamma])[np.triu_indices(3, 1)]).max() < 5 / np.sqrt(200_000)


def test_only_what_is_wanted_of_a_loop():
    closed = jax.make_jaxpr(loop)(EDGES)
    [scan] = [eqn for eqn in closed.eqns if eqn.primitive.name == "scan"]
    inputs = [np.float32(1.0), np.arange(3, dtype=np.float32)]
    every, some = (
        numbers.run_of(scan.replace(params={**scan.params, "length": 3}), wanted)(*inputs) for wanted in (None, {2})
    )
    assert some[1] is None
    np.testing.assert_array_equal(some[2], every[2])


def test_a_key_is_a_number():
    key = numbers.number(jax.random.key(7))
    assert (key.dtype, key.shape) == (KEY, ())
    [words] = by_numpy(jax.random.key_data, jax.random.key(7))
    np.testing.assert_array_equal(words, jax.random.key_data(jax.random.key(7)))
