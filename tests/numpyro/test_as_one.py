"""Operations that are alike are computed as one, and nothing else changes."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ppvi
import ppvi.numpyro as vi
from ppvi.numpyro import _as_one, _compat
from ppvi.objectives import elbo, iwelbo

SITES = 9


def chain(distribution):
    def model():
        x = 0.0
        for i in range(SITES):
            x = numpyro.sample(f"x{i}", distribution(0.5 * x))

    return model


def normal(loc):
    return dist.Normal(loc, 1.0)


def of_one_array(distribution=normal):
    def guide():
        locs = numpyro.param("locs", jnp.linspace(-0.1, 0.1, SITES))
        for i in range(SITES):
            numpyro.sample(f"x{i}", distribution(locs[i]))

    return guide


def backwards():
    """Takes every entry but in another order, of rows of a matrix."""
    locs = numpyro.param("locs", jnp.linspace(-1.0, 1.0, 3 * SITES).reshape(3, SITES))
    for i in range(SITES):
        numpyro.sample(f"x{i}", normal(jnp.sin(locs[:, -i - 1]).sum()))


def of_its_own():
    for i in range(SITES):
        scale = numpyro.param(f"scale{i}", 0.3, constraint=dist.constraints.positive)
        numpyro.sample(f"x{i}", dist.Normal(numpyro.param(f"loc{i}", 0.1 * i), scale))


def one_after_the_other():
    x, slope = 0.0, numpyro.param("slope", 0.4)
    for i in range(SITES):
        x = numpyro.sample(f"x{i}", dist.Normal(slope * x, jnp.exp(numpyro.param("log_scale", -1.0))))


def coin(logits):
    return dist.Bernoulli(logits=logits)


def data():
    """One site of many numbers among those of one."""
    for i in range(SITES):
        numpyro.sample(f"x{i}", dist.Normal(0.0, 1.0).expand([1 + 600 * (i == 0)]).to_event(1))


def of_data():
    for i in range(SITES):
        loc = numpyro.param(f"loc{i}", jnp.zeros(1 + 600 * (i == 0)))
        numpyro.sample(f"x{i}", dist.Normal(loc, 1.0).to_event(1))


def each(strategy):
    return {f"x{i}": strategy for i in range(SITES)}


@pytest.fixture(autouse=True)
def for_few_sites(monkeypatch):
    """These have fewer than gain by it."""
    monkeypatch.setattr(_as_one, "GAIN", 32)


CASES = {
    "one array": (elbo, chain(normal), of_one_array(), None),
    "rows backwards": (elbo, chain(normal), backwards, None),
    "a parameter each": (elbo, chain(normal), of_its_own, None),
    "a chain in the guide": (elbo, chain(normal), one_after_the_other, None),
    "score functions": (elbo, chain(normal), of_its_own, each(ppvi.Reinforce())),
    "leave one out": (elbo, chain(coin), of_one_array(coin), each(ppvi.LeaveOneOut())),
    "coins": (elbo, chain(coin), of_one_array(coin), each(ppvi.Enumerate())),
    "particles": (iwelbo(5), chain(normal), of_its_own, None),
    "large arrays": (elbo, data, of_data, None),
}


def counts(jaxpr):
    found = Counter(eqn.primitive.name for eqn in jaxpr.eqns)
    for eqn in jaxpr.eqns:
        found += sum((counts(body) for body in _compat.bodies_in(eqn.params)), start=Counter())
    return found


def both(case, run, monkeypatch, impl=None):
    """What a run of an objective gives as it is and with operations as one, and the operations of each gradient."""
    program, model, guide, strategies = CASES[case]
    found, key = [], jax.random.key(3, impl=impl)
    for gain in (10**9, _as_one.GAIN):
        monkeypatch.setattr(_as_one, "GAIN", gain)
        bound = vi.objective(lambda p, q: program(p, q), model, guide, strategies=strategies)
        params = bound.init(key)
        traced = jax.make_jaxpr(bound.value_and_grad)(key, params)
        found.append((run(bound, key, params), counts(traced.jaxpr)))
    return found


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_the_same(case, monkeypatch):
    (plain, one_by_one), (packed, as_one) = both(case, lambda bound, *at: bound.value_and_grad(*at), monkeypatch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), plain, packed)
    assert as_one.total() < one_by_one.total()


@pytest.mark.parametrize("case", ["a parameter each", "coins", "particles"])
def test_estimates_and_many_keys_are_the_same(case, monkeypatch):
    def run(bound, key, params):
        return bound.estimate(key, params), jax.vmap(bound.value_and_grad, (0, None))(jax.random.split(key, 7), params)

    (plain, _), (packed, _) = both(case, run, monkeypatch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), plain, packed)


@pytest.mark.parametrize("case", ["one array", "rows backwards", "a parameter each", "a chain in the guide"])
def test_draws_are_the_same_numbers_and_one_call(case, monkeypatch):
    """What a path is drawn by is the whole of the estimate of a guide's entropy, which is summed in either order."""
    (plain, one_by_one), (packed, as_one) = both(case, lambda bound, *at: bound.estimate(*at), monkeypatch)
    np.testing.assert_allclose(plain, packed, rtol=1e-6, atol=4e-6)
    names = ("random_bits", "random_fold_in", "erf_inv")
    assert [one_by_one[name] for name in names] == [SITES] * 3
    assert [as_one[name] for name in names] == [1] * 3


def test_the_program_does_not_grow_with_its_sites(monkeypatch):
    """But by the sums over sites, and by what takes an array apart and puts its gradient together."""
    sizes = []
    for n in (SITES, 2 * SITES):
        monkeypatch.setattr(f"{__name__}.SITES", n)
        traced = both("one array", lambda *at: None, monkeypatch)
        sizes.append([found.total() for _, found in traced])
    (plain, packed), (twice_plain, twice_packed) = sizes
    assert twice_packed - packed < (twice_plain - plain) / 4


def test_other_keys_draw_what_they_drew(monkeypatch):
    """JAX promises the same bits side by side of one kind of key alone."""
    found = both("a parameter each", lambda bound, *at: bound.estimate(*at), monkeypatch, "rbg")
    (plain, one_by_one), (packed, as_one) = found
    np.testing.assert_allclose(plain, packed, rtol=1e-6)
    assert as_one["random_bits"] == one_by_one["random_bits"] == SITES


def test_large_arrays_stay_apart(monkeypatch):
    (_, one_by_one), (_, as_one) = both("large arrays", lambda *at: None, monkeypatch)
    assert one_by_one["random_bits"] == SITES
    assert as_one["random_bits"] == 2


def test_a_small_program_is_as_it_was(monkeypatch):
    monkeypatch.setattr(f"{__name__}.SITES", 2)
    (plain, one_by_one), (packed, as_one) = both("a parameter each", lambda b, *at: b.value_and_grad(*at), monkeypatch)
    assert one_by_one == as_one
    jax.tree.map(np.testing.assert_array_equal, plain, packed)


def test_what_is_printed_comes_in_order(capfd):
    def function(x):
        for i in range(12):
            jax.debug.print("{}", x[i % 4] + i, ordered=True)
        return x.sum()

    jax.block_until_ready(jax.jit(_as_one.as_one(function))(jnp.zeros(4)))
    jax.effects_barrier()
    assert [float(line) for line in capfd.readouterr().out.split()] == list(range(12))
