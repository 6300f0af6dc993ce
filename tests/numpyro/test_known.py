"""What is known is computed by NumPy, where JAX would compile it: the numbers and formats are JAX's, random ones to the bit."""

import gc
import logging
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ppvi.numpyro as vi
from ppvi.numpyro import _known
from ppvi.numpyro._known import by_numpy
from ppvi.objectives import elbo


def data(key):
    return jax.random.key_data(key)


RANDOM = {
    "data of a key": data,
    "split": lambda key: data(jax.random.split(key)),
    "split to a shape": lambda key: data(jax.random.split(key, (3, 4))),
    "splits of keys": lambda key: data(jax.vmap(lambda k: jax.random.split(k, 3))(jax.random.split(key, 5))),
    "fold": lambda key: data(jax.random.fold_in(key, 7)),
    "fold of a large number": lambda key: data(jax.random.fold_in(key, np.uint32(2**31 + 3))),
    "folds of keys": lambda key: data(jax.vmap(jax.random.fold_in)(jax.random.split(key, 5), jnp.arange(5))),
    "8 bits": lambda key: jax.random.bits(key, (3, 5), jnp.uint8),
    "16 bits": lambda key: jax.random.bits(key, (3, 5), jnp.uint16),
    "32 bits": lambda key: jax.random.bits(key, (), jnp.uint32),
    "bits of the width of a number": lambda key: jax.random.bits(
        key, (3,), jnp.asarray(0).dtype.name.replace("int", "uint")
    ),
    "no bits": lambda key: jax.random.bits(key, (0, 2)),
    "bits of keys": lambda key: jax.vmap(lambda k: jax.random.bits(k, (3, 2)))(jax.random.split(key, 4)),
    "permutation": lambda key: jax.random.permutation(key, 10),
    "poisson, in a loop": lambda key: jax.random.poisson(key, 2.0, (3,)),
    "categorical": lambda key: jax.random.categorical(key, jnp.zeros(5), shape=(7,)),
    "seed": lambda key: data(jax.random.key(5)),
    "negative seed": lambda key: data(jax.random.key(-5)),
    "large seed": lambda key: data(jax.random.key(2**31 - 1)),
    "keys of old": lambda key: jax.random.split(jax.random.PRNGKey(3)),
    "another kind of keys": lambda key: data(jax.random.split(jax.random.key(5, impl="rbg"))),
}


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_are_those_of_jax(name, double):
    with jax.enable_x64(double) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64(double):
        key = jax.random.key(123)
        expected = RANDOM[name](key)
        with by_numpy():
            found = RANDOM[name](key)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


NUMBERS = {
    "normal": lambda: jax.random.normal(jax.random.key(1), (4,)),
    "gamma": lambda: jax.random.gamma(jax.random.key(1), 2.0, (3,)),
    "weak": lambda: jnp.asarray(1.5) * jnp.ones(2, jnp.float16),
    "weak vector": lambda: jnp.full(3, 2.0) * jnp.ones(3, jnp.float16),
    "a derivative": lambda: jax.grad(lambda x: jnp.sum(jax.nn.softplus(x) ** 2))(jnp.arange(3.0)),
    "a rule": lambda: jax.nn.relu(jnp.linspace(-1.0, 1.0, 5)),
    "lanes": lambda: jax.vmap(jnp.linalg.cholesky)(jnp.eye(3) * jnp.arange(1.0, 3.0)[:, None, None]),
    "a loop": lambda: jax.lax.scan(lambda c, x: (c + x, c * x), 0.0, jnp.arange(4.0))[1],
    "a while": lambda: jax.lax.while_loop(lambda x: x < 50.0, lambda x: 2 * x, 1.5),
    "branches": lambda: jax.lax.cond(jnp.asarray(True), jnp.sin, jnp.cos, 0.3),
    "of Python": lambda: jax.pure_callback(lambda x: 2 * x, jax.ShapeDtypeStruct((), jnp.float32), jnp.asarray(1.0)),
    "large": lambda: jnp.ones(2 * _known.SMALL).cumsum(),
    "compiled": lambda: jax.jit(lambda x: jnp.exp(x) @ x)(jnp.arange(3.0)),
    "halves": lambda: jnp.exp(jnp.linspace(0.0, 1.0, 5, dtype=jnp.bfloat16)),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_those_of_jax(name):
    expected = NUMBERS[name]()
    with by_numpy():
        found = NUMBERS[name]()
    assert isinstance(found, jax.Array)
    assert (found.dtype, found.shape, found.weak_type) == (expected.dtype, expected.shape, expected.weak_type)
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(expected, float), rtol=1e-6, atol=1e-6)


def test_numbers_decide():
    with by_numpy():
        x = jnp.asarray(3.0)
        assert ("more" if x > 2 else "less") == "more"


def test_what_is_traced_is_recorded_beside_it():
    def function(x):
        with by_numpy():
            known = jax.nn.softplus(jnp.arange(3.0))
            assert not isinstance(known, jax.core.Tracer)
            return jax.nn.softplus(x * known) + jnp.where(known > 1, x, 0.0)

    def plain(x):
        known = jax.nn.softplus(jnp.arange(3.0))
        return jax.nn.softplus(x * known) + jnp.where(known > 1, x, 0.0)

    for transform in (jax.jit, lambda f: jax.jacfwd(f), lambda f: jax.jacrev(f), lambda f: jax.jit(jax.jacfwd(f))):
        np.testing.assert_allclose(transform(function)(0.7), transform(plain)(0.7), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(function)(jnp.arange(2.0)), jax.vmap(plain)(jnp.arange(2.0)), rtol=1e-6)


def test_a_users_array_that_changes_later():
    given = np.arange(3.0, dtype=np.float32)
    with by_numpy():
        found = jnp.asarray(given)
    given[:] = 9.0
    np.testing.assert_array_equal(found, [0.0, 1.0, 2.0])


def test_errors_are_those_of_jax():
    with by_numpy(), pytest.raises(TypeError, match="incompatible shapes"):
        jnp.zeros(2) + jnp.zeros(3)


def test_a_fit_begins_without_programs_of_single_operations(caplog):
    """But for its gradient, its steps and draws: keys, initial values and memories of optimisers are numbers."""

    def model(x):
        scale = numpyro.sample("scale", dist.HalfNormal(jnp.exp(jnp.asarray(0.5))))
        numpyro.sample("x", dist.Normal(0.0, scale).expand([3]).to_event(1), obs=x)

    def guide(x):
        loc = numpyro.param("loc", lambda key: 0.1 * jax.random.normal(key, ()))
        numpyro.sample("scale", dist.LogNormal(loc, numpyro.param("s", 0.5, constraint=dist.constraints.positive)))

    key, x = jax.random.key(0), np.arange(3.0)
    jax.clear_caches()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        vi.objective(elbo, model, guide).init(key, x)
    compiled = [record.getMessage() for record in caplog.records if "XLA compilation of" in record.getMessage()]
    assert len(compiled) <= 3, compiled


def init_of(initial):
    def guide():
        numpyro.sample("z", dist.Normal(numpyro.param("loc", initial).sum(), 1.0))

    def model():
        numpyro.sample("z", dist.Normal(0.0, 1.0))

    return vi.objective(elbo, model, guide).init(jax.random.key(1))["loc"]


def test_a_parameter_stays_where_it_was_put():
    mesh = jax.make_mesh((1,), ("rows",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    initials = [
        jax.device_put(jnp.arange(4.0), sharding),
        lambda key: jax.device_put(jax.random.normal(key, (4,)), sharding),
        lambda key: jax.jit(jax.random.normal, static_argnums=1, out_shardings=sharding)(key, (4,)),
    ]
    for initial in initials:
        assert init_of(initial).sharding == sharding


def test_what_is_mapped_over_devices():
    mesh, rows = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("rows",)), jax.sharding.PartitionSpec("rows")
    if not hasattr(jax, "shard_map"):
        pytest.skip("jax.shard_map is newer")
    twice = jax.shard_map(lambda x: 2 * x, mesh=mesh, in_specs=rows, out_specs=rows)
    np.testing.assert_array_equal(init_of(lambda key: twice(jnp.ones(4))), 2 * np.ones(4))


def test_references_to_memory():
    if not hasattr(jax, "new_ref"):
        pytest.skip("references are newer")

    def initial(key):
        memory = jax.new_ref(jnp.zeros(3))
        memory[0] = 2.0
        return jax.freeze(memory)

    np.testing.assert_array_equal(init_of(initial), [2.0, 0.0, 0.0])


def test_keys_as_they_are_asked_to_draw():
    expected, found = [], []
    for by_place in (True, False, True):
        with jax.threefry_partitionable(by_place):
            key = jax.random.key(3)
            expected.append(jax.random.normal(key, (4,)))
            with by_numpy():
                found.append(jax.random.normal(key, (4,)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_callback_is_called_each_time():
    count = []

    def look():
        count.append(1)
        return np.float32(len(count))

    for expected in (1.0, 2.0, 3.0):
        found = init_of(lambda key: jax.pure_callback(look, jax.ShapeDtypeStruct((), jnp.float32)))
        assert len(count) == found == expected


def test_a_number_that_is_none_is_found_where_it_comes_from():
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="log"):
        init_of(lambda key: jnp.log(jnp.asarray(-1.0)))


def test_what_a_program_holds_is_let_go():
    class Holder:
        scale = 2.0

    def begin():
        holder, table = Holder(), jnp.ones(50)
        function = jax.jit(lambda x: x * holder.scale + table.sum())
        branch = lambda x: jax.lax.cond(x > 0, lambda x: x + holder.scale, lambda x: x - table.sum(), x)  # noqa: E731
        read = lambda x: np.float32(x + holder.scale)  # noqa: E731
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        init_of(lambda key: function(branch(jax.pure_callback(read, shape, jnp.asarray(1.0)))))
        return weakref.ref(holder)

    held = begin()
    jax.clear_caches()
    gc.collect()
    assert held() is None
