"""Every random model with finite sites that its guide lacks has the value, gradient and Hessian that summing over all joint values has."""

import functools
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import ppvi
from tests.engines import PYRO, dist, double, nn, on, ppl, xp
from tests.laws.random_summed import exact_of, guide, model_of, numbers_of, objective_of, summed_model
from tests.laws.seeds import FIRST, each_shard, how_many, how_many_shards

PROGRAMS, SHARDS = how_many(150), how_many_shards(10)


def direction_of(params):
    return {name: np.cos(1.0 + np.arange(x.size)).reshape(x.shape) for name, x in params.items()}


def law(engine, summed):
    direction = direction_of(summed.params)
    exact = numbers_of(exact_of(summed), summed, direction)
    with double(), on(engine):
        strategies = {} if summed.objective == "density" else {"b": ppvi.Enumerate()}
        bound = engine.vi.objective(objective_of(summed), model_of(engine, summed), guide, strategies=strategies)
        key, params = engine.key(0), {name: engine.array(x) for name, x in summed.params.items()}
        if engine is PYRO:
            found = numbers_of(lambda params: bound.surrogate(key, params), summed, direction)
        else:
            found = with_jax(bound, key, params, {name: engine.array(x) for name, x in direction.items()})
    assert_same("value", found[0], exact[0])
    for what, mine, truth in (("gradient", found[1], exact[1]), ("Hessian", found[2], exact[2])):
        for name in summed.params:
            assert_same(f"{what} in {name}", mine[name], truth[name])


@functools.partial(jax.jit, static_argnums=0)
def with_jax(bound, key, params, direction):
    """Value, gradient, and the product of the Hessian and a direction."""
    gradient, second = jax.jvp(jax.grad(lambda p: bound.surrogate(key, p)), (params,), (direction,))
    return bound.surrogate(key, params), gradient, second


def assert_same(what, found, truth):
    np.testing.assert_allclose(np.asarray(found), truth, rtol=1e-7, atol=1e-8, err_msg=what)


def tried(engine, seeds):
    for seed in seeds:
        try:
            law(engine, summed_model(seed, engine))
        except Exception as error:
            error.add_note(f"random_summed.summed_model({seed}, {engine.name.upper()})")
            raise


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))])
def test_some(engine, seed):
    tried(engine, [seed])


@each_shard(SHARDS)
def test_random_models(engine, shard):
    first = FIRST + shard * (PROGRAMS // SHARDS)
    tried(engine, range(first, first + PROGRAMS // SHARDS))


def test_the_static_check_knows_that_a_log_of_a_sum_is_smooth(engine):
    def model():
        mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
        with ppl.plate("rows", 2):
            z = ppl.sample("z", dist.Categorical(nn.softmax(ppl.param("w"), -1)))
            ppl.sample("x", dist.Normal(mean * xp.array([1.0, -1.0, 2.0])[z], 1.0), obs=xp.array([0.1, -1.0]))

    with on(engine):
        normal = lambda: ppl.sample("mean", dist.Normal(ppl.param("m"), 0.4))  # noqa: E731
        bound = engine.vi.objective(ppvi.objectives.elbo, model, normal)
        params = {"w": engine.array(np.array([0.1, 0.2, -0.3])), "m": engine.array(np.array(0.3))}
        assert bound.prove(params).verdict == "proved"


def test_a_value_that_is_barred_whatever_else_is_might_as_well_not_be_there(engine):
    def model_of_so_many(values):
        def model():
            a = ppl.param("a")
            first = ppl.sample("first", dist.Categorical(logits=a * xp.array([1.0, 0.3, -0.6])))
            logits = (a + first)[..., None] * xp.array([0.0, 1.0, -0.6])[:values]
            barred = xp.where(xp.arange(values) == 2, -math.inf, logits)
            z = ppl.sample("z", dist.Categorical(logits=barred))
            ppl.sample("x", dist.Normal(a * z, 1.0), obs=xp.array(0.3))

        return model

    found = []
    with double():
        for values in (2, 3):
            with on(engine):
                bound = engine.vi.objective(lambda p, q: p.log_density({}), model_of_so_many(values), lambda: None)
                key, at = engine.key(0), {"a": np.array(0.4)}
                if engine is PYRO:
                    found.append(numbers_of(functools.partial(bound.surrogate, key), SimpleNamespace(params=at), at))
                else:
                    found.append(with_jax(bound, key, {"a": xp.array(0.4)}, {"a": xp.array(0.4)}))
    for fewer, more in zip(jax.tree.leaves(found[0]), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_allclose(more, fewer, rtol=1e-9)
