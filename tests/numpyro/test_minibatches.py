"""The rows of a plate's minibatch: those that NumPyro draws, in the memory of the minibatch."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.handlers import seed, trace

import ppvi.numpyro as vi
from ppvi.numpyro._minibatches import is_small, rows_of
from ppvi.objectives import elbo
from tests.engines import enable_x64


def of_library(size, count, key):
    def model():
        with numpyro.plate("rows", size, subsample_size=count) as i:
            numpyro.deterministic("i", i)

    sites = trace(seed(model, key)).get_trace()
    # Its plate has folded the key: the rows are those of the key that it has used.
    return sites["rows"]["value"], sites["rows"]["kwargs"]["rng_key"]


@pytest.mark.parametrize("wide", [False, True], ids=["32 bits", "64 bits"])
@pytest.mark.parametrize(("size", "count"), [(2, 1), (9, 8), (100, 10), (100_000, 31)])
def test_rows_are_those_of_the_library(size, count, wide):
    """In the same order; small plates have swaps that meet."""
    with enable_x64(wide):
        drawn = jax.jit(rows_of, static_argnums=(0, 1))
        for number in range(3):
            expected, key = of_library(size, count, jax.random.key(number))
            rows = drawn(size, count, rng_key=key)
            assert rows.dtype == expected.dtype
            np.testing.assert_array_equal(rows, expected)


def test_all_rows_are_a_permutation():
    assert sorted(rows_of(40, 40, jax.random.key(0)).tolist()) == list(range(40))


def bound(n, count):
    def model(x):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", n, subsample_size=count) as i:
            numpyro.sample("x", dist.Normal(mean, 1.0), obs=x[i])

    def guide(x):
        numpyro.sample("mean", dist.Normal(numpyro.param("loc", 0.0), 0.1))

    return vi.objective(elbo, model, guide)


def test_a_gradient_takes_the_memory_of_the_minibatch():
    """Of a million rows none but those that it needs, beside the data."""
    x = jnp.arange(1e6) / 1e6
    of = bound(len(x), 100)
    compiled = jax.jit(of.value_and_grad).lower(jax.random.key(0), {"loc": jnp.array(0.3)}, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1e5


def test_minibatches_are_those_of_before(monkeypatch):
    """A bound by these rows is the bound by the library's, number for number."""
    x = jnp.sin(jnp.arange(400.0))
    for key in jax.random.split(jax.random.key(1), 2):
        ours = bound(len(x), 20).value_and_grad(key, {"loc": jnp.array(0.3)}, x)
        with monkeypatch.context() as without:
            without.setattr("ppvi.numpyro._handlers.is_small", lambda *_: False)
            jax.clear_caches()
            library = bound(len(x), 20).value_and_grad(key, {"loc": jnp.array(0.3)}, x)
        np.testing.assert_allclose(ours[0], library[0], rtol=1e-6)
        np.testing.assert_allclose(ours[1]["loc"], library[1]["loc"], rtol=1e-6)


def test_large_parts_are_drawn_by_the_library():
    assert [is_small(size, 100) for size in (9_999, 10_000)] == [False, jax.default_backend() == "cpu"]
