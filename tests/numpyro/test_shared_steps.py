"""Fits that are alike take their steps by one compiled program, and those that are not do not."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints
from numpyro.infer.autoguide import AutoNormal

import ppvi
import ppvi.numpyro as vi
from ppvi.objectives import elbo
from ppvi.optimizers import Natural

X = np.array([0.5, 1.5, 2.0], np.float32)


def model(x):
    mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def guide(x):
    loc = numpyro.param("loc", 0.0)
    numpyro.sample("mean", dist.Normal(loc, numpyro.param("scale", 1.0, constraint=constraints.positive)))


@pytest.fixture
def loops(caplog):
    """How many loops of steps were compiled so far."""
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        yield lambda: sum("Finished XLA compilation of jit(run)" in x.getMessage() for x in caplog.records)


def new(model=model, guide=guide):
    """An objective that equals no other."""
    return vi.objective(lambda p, q: elbo(p, q), model, guide)


def fitted(bound, seed=0, x=X, **options):
    return vi.fit(bound, jax.random.key(seed), x, num_steps=20, progress=False, **options)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {}),
        ({"optimizer": 0.1}, {"optimizer": optax.adam(0.1)}),
        ({"optimizer": optax.adam(0.1)}, {"optimizer": optax.adam(0.1)}),
        ({"optimizer": Natural()}, {"optimizer": Natural(rest=optax.adam(0.01))}),
        ({"num_starts": 2}, {"num_starts": 2}),
        ({}, {"params": {"loc": 3.0}}),
    ],
)
def test_fits_that_are_alike_compile_their_steps_once(loops, one, other):
    bound = new()
    fitted(bound, **one)
    again = fitted(bound, seed=1, x=X + 1, **other)
    assert loops() == 1
    alone = fitted(new(), seed=1, x=X + 1, **other)
    assert loops() == 2
    jax.tree.map(np.testing.assert_array_equal, again.params, alone.params)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"optimizer": 0.1}, {"optimizer": 0.2}),
        ({"optimizer": optax.adam(0.1)}, {"optimizer": optax.adam(0.1, b1=0.8)}),
        ({"optimizer": optax.sgd(0.1)}, {"optimizer": optax.chain(optax.clip(1.0), optax.sgd(0.1))}),
        ({"optimizer": Natural()}, {"optimizer": Natural(0.5)}),
        ({}, {"num_starts": 2}),
        ({}, {"x": np.append(X, X)}),
        ({}, {"averaging": 3.0}),
    ],
)
def test_those_that_differ_are_what_they_would_be_alone(one, other):
    bound = new()
    fitted(bound, **one)
    again = fitted(bound, seed=1, **other)
    alone = fitted(new(), seed=1, **other)
    jax.tree.map(np.testing.assert_array_equal, again.params, alone.params)


def test_a_schedule_that_reads_what_has_changed_is_followed(loops):
    speed = [0.1]
    optimizer = optax.sgd(lambda step: jnp.asarray(speed[0]))
    bound = new()
    assert fitted(bound, optimizer=optimizer).params["loc"] != 0
    speed[0] = 0.0
    assert fitted(bound, optimizer=optimizer).params["loc"] == 0
    speed[0] = 0.1
    fitted(bound, optimizer=optimizer)
    assert loops() == 2


def test_constraints_that_data_set_are_those_of_the_data():
    def bounded(x):
        loc = numpyro.param("loc", jnp.max(x) / 2, constraint=constraints.interval(0.0, jnp.max(x)))
        numpyro.sample("mean", dist.Normal(loc, 0.1))

    bound = new(guide=bounded)
    narrow, wide = (fitted(bound, x=x, optimizer=1.0).params["loc"] for x in (X / 10, 10 * X))
    assert 0 <= narrow <= 0.2
    assert 2 < wide <= 20


def test_a_program_that_has_changed_is_run_as_it_is():
    scale = [1.0]

    def sharpened(x):
        mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", dist.Normal(mean, scale[0]), obs=x)

    bound = new(sharpened)
    before = fitted(bound).losses
    scale[0] = 5.0
    after = fitted(bound).losses
    np.testing.assert_array_equal(after, fitted(new(sharpened)).losses)
    assert (before != after).all()


def test_functions_of_python_that_an_optimizer_calls_are_its_own():
    """Programs that call them are alike as texts."""

    def called(rate):
        def schedule(step):
            return jax.pure_callback(lambda _: np.float32(rate), jax.ShapeDtypeStruct((), jnp.float32), step)

        return optax.sgd(schedule)

    bound = new()
    assert fitted(bound, optimizer=called(0.1)).params["loc"] != 0
    assert fitted(bound, optimizer=called(0.0)).params["loc"] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_array_that_is_written_to_is_read_anew_or_refused(dtype):
    scale = np.ones(3, dtype)

    def sharpened(x):
        mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", dist.Normal(mean, scale), obs=x)

    bound = new(sharpened)
    first = fitted(bound).losses
    scale[:] = 5.0
    if scale.dtype != jax.dtypes.canonicalize_dtype(dtype):
        with pytest.raises(ppvi.ProgramError, match="scale was changed in place"):
            fitted(bound)
        scale = scale.copy()
    after = fitted(bound).losses
    scale = np.full(3, 5.0)
    np.testing.assert_array_equal(after, fitted(new(sharpened)).losses)
    assert (first != after).all()


def test_an_autoguide_that_has_seen_other_sizes_is_told_so():
    def local(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    bound = new(local, AutoNormal(local))
    fitted(bound)
    with pytest.raises(ppvi.ProgramError, match="the data that it has seen first"):
        fitted(bound, x=np.append(X, X))
