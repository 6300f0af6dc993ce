"""Finite sites that are enumerated together have the value and the gradient that summing over their joint values has."""

import random
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pyro
import pytest

import ppvi
from ppvi import Enumerate, LeaveOneOut, MeasureValued, Reinforce
from ppvi.compiler import plan
from ppvi.engine.outcomes import EndlessError
from ppvi.objectives import analytic_elbo, elbo
from tests.engines import ENGINES, NUMPYRO, PYRO, dist, double, handlers, on, ppl, xp
from tests.laws.cases import nothing
from tests.laws.random_programs import SiteSpec, Spec, exact_of, guide_of, objective_of, params_of, strategies_of
from tests.laws.random_summed import numbers_of
from tests.laws.seeds import FIRST, each_shard, how_many, how_many_shards
from tests.laws.test_random import agree
from tests.laws.test_random_summed import direction_of, with_jax

SEQUENCES, SHARDS = how_many(60), how_many_shards(4)
LOCAL = ("square", "exp", "tanh", "step", "flip")
PAIRS = ("add", "mul", "min", "max2")


def drawn(seed):
    """Sites that follow one another, each given one or two of the last two, and terms of one or two that are near."""
    rng = random.Random(seed)
    bits, sites, other = 6, [], rng.choice([None, None, 0, 2])
    while bits and len(sites) < 6:
        lanes = bits > 1 and rng.random() < 0.4
        bits -= 2 if lanes else 1
        near = range(max(0, len(sites) - rng.choice([1, 1, 2])), len(sites))
        strategy = rng.choice([Reinforce(), LeaveOneOut(2)]) if len(sites) == other else Enumerate()
        # What is given a draw of one without lanes by one with them, or by another strategy, leaves it a nest of sums.
        able = [i for i in near if strategy == Enumerate() and (lanes or not sites[i].lanes or rng.random() < 0.1)]
        parents = tuple((i, rng.choice([-1.1, 0.6, 0.9])) for i in able)
        sites.append(SiteSpec(2, lanes, parents, strategy, rng.random() < 0.2))
    terms = []
    for i in range(len(sites)):
        j = max(0, i - rng.choice([0, 1, 1, 2]))
        terms.append((rng.choice(LOCAL), (rng.choice(PAIRS), ("site", i), ("site", j))))
        terms.append(("mul", ("phi", i % 3), (rng.choice(LOCAL), ("site", rng.randrange(len(sites))))))
    params = tuple(rng.choice([-0.8, -0.3, 0.0, 0.4, 0.7]) for _ in range(9))
    return Spec(tuple(sites), tuple(terms), rng.choice([0.0, -1.0]), 1, "mean", params)


def law(engine, spec):
    if any(site.strategy != Enumerate() for site in spec.sites):
        agree(engine, spec)
    with double(), on(engine):
        params = {name: engine.array(x) for name, x in params_of(spec).items()}
        bound = engine.vi.objective(objective_of(spec), nothing, guide_of(spec), strategies=strategies_of(spec))
        value, grads = bound.value_and_grad(engine.key(0), params)
        found = are_together(bound, params)
    if all(site.strategy == Enumerate() for site in spec.sites):
        with double(), on(NUMPYRO):
            exact, slopes = jax.value_and_grad(exact_of(spec))(
                {name: jnp.asarray(x) for name, x in params_of(spec).items()}
            )
        assert float(value) == pytest.approx(float(exact), rel=1e-9)
        for name, slope in slopes.items():
            np.testing.assert_allclose(
                np.asarray(grads[name].detach() if engine is PYRO else grads[name]), slope, rtol=1e-7, atol=1e-9
            )
    return found


def are_together(bound, params, *args):
    """How many sites are enumerated together with others."""
    return sum("together" in site.reason for site in bound.explain(params, *args).sites)


def tried(engine, seeds):
    met = 0
    for seed in seeds:
        try:
            met += law(engine, drawn(seed)) > 0
        except EndlessError:  # of sites that are not enumerated together
            continue
        except Exception as error:
            error.add_note(f"drawn({seed})")
            raise
    assert met >= len(seeds) / 5


@pytest.mark.slow
def test_some(engine):
    tried(engine, range(4))


@each_shard(SHARDS)
def test_random_sequences(engine, shard):
    first = FIRST + shard * (SEQUENCES // SHARDS)
    tried(engine, range(first, first + SEQUENCES // SHARDS))


# Programs as people write them ------------------------------------------------------------------------------------------------


def forward(initial, transition, local):
    """E[sum_t f_t(z_t)] of a Markov chain, by the forward recursion; `local` is `(T, K)`."""
    marginal, total = initial, 0.0
    for t, values in enumerate(local):
        marginal = marginal if t == 0 else marginal @ transition
        total += marginal @ values
    return total


ROWS = np.array([[0.7, 0.2, 0.1], [0.0, 0.6, 0.4], [0.3, 0.3, 0.4]])


@pytest.mark.parametrize("length", [1, 5, pytest.param(30, marks=[pytest.mark.slow])])
def test_a_chain_in_a_loop_is_enumerated_by_default(engine, length):
    y = np.sin(np.arange(length))

    def steps():
        return pyro.markov(range(length)) if engine is PYRO else range(length)

    def chain(rows, observe):
        z = 0
        for t in steps():
            z = ppl.sample(f"z_{t}", dist.Categorical(probs=rows[z]))
            if observe:
                ppl.sample(f"y_{t}", dist.Normal(xp.array([-1.0, 0.5, 2.0])[z], 0.7), obs=xp.array(y[t]))

    def model():
        chain(xp.array(0.8 * ROWS + 0.2 / 3), observe=True)

    def guide():
        chain(ppl.param("rows", xp.array(ROWS)), observe=False)

    def exact(rows):
        log_prior = jnp.log(0.8 * ROWS + 0.2 / 3)
        at = jnp.where(rows > 0, rows, 1.0)
        step = jnp.sum(rows * (log_prior - jnp.log(at)), 1)
        likelihood = (
            -0.5 * ((y[:, None] - np.array([-1.0, 0.5, 2.0])) / 0.7) ** 2 - 0.5 * np.log(2 * np.pi) - np.log(0.7)
        )
        local = jnp.concatenate([likelihood[:-1] + step, likelihood[-1:]])
        return forward(rows[0], rows, local) + rows[0] @ (log_prior[0] - jnp.log(at[0]))

    with double(), on(engine):
        bound = engine.vi.objective(elbo, model, guide)
        params = {"rows": engine.array(ROWS)}
        values = [bound.value_and_grad(engine.key(i), params) for i in range(2)]
        assert are_together(bound, params) == (length if length > 2 else 0)
    with double():
        value, slope = jax.value_and_grad(exact)(jnp.asarray(ROWS))
    for found, grads in values:
        assert float(found) == pytest.approx(float(value), rel=1e-9)
        mine = np.asarray(grads["rows"].detach() if engine is PYRO else grads["rows"])
        there = ROWS > 0
        # A row of probabilities has the gradient that is orthogonal to its sum.
        np.testing.assert_allclose((mine - mine[:, [2]])[there], np.asarray(slope - slope[:, [2]])[there], rtol=1e-6)


def chain(name, length, rows, start=0, shape=()):
    """Finite sites that follow one another."""
    values, z = [], xp.full(shape, start)
    for t in range(length):
        z = ppl.sample(f"{name}_{t}", dist.Categorical(logits=rows[z]))
        values.append(z)
    return values


def observed(name, mean, value):
    ppl.sample(name, dist.Normal(mean, 0.8), obs=xp.array(value))


def rows(name, n=3):
    return ppl.param(name, xp.array(np.cos(np.arange(9.0)).reshape(3, 3)[:n, :n]))


LOC = np.array([-1.0, 0.4, 1.5])


def in_a_plate():
    def program(own):
        with ppl.plate("rows", 3):
            return chain("z", 3, own, shape=(3,))

    def model():
        for t, z in enumerate(program(xp.array(np.eye(3)))):
            with ppl.plate("seen", 3):
                observed(f"y_{t}", xp.array(LOC)[z], [0.1, t - 1.0, 2.0])

    return model, lambda: program(rows("w"))


def nested_plates():
    def program(own):
        top = ppl.sample("top", dist.Categorical(logits=own[0]))
        with ppl.plate("rows", 2, dim=-1):
            a = ppl.sample("a", dist.Categorical(logits=own[top] * xp.ones((2, 1))))
            with ppl.plate("columns", 3, dim=-2):
                return top, a, ppl.sample("b", dist.Categorical(logits=own[a] * xp.ones((3, 2, 1))))

    def model():
        _, a, b = program(xp.array(np.eye(3)))
        with ppl.plate("rows 2", 2, dim=-1), ppl.plate("columns 2", 3, dim=-2):
            observed("y", xp.array(LOC)[b] * xp.array(LOC)[a], np.sin(np.arange(6.0)).reshape(3, 2))

    return model, lambda: program(rows("w"))


def a_tree():
    def program(own):
        values = {}
        for child, parent in (("a", None), ("b", "a"), ("c", "a"), ("d", "b"), ("e", "c")):
            values[child] = ppl.sample(child, dist.Categorical(logits=own[0 if parent is None else values[parent]]))
        return values

    def model():
        z = program(xp.array(np.eye(3)))
        observed("y", xp.array(LOC)[z["d"]] * xp.array(LOC)[z["e"]], 0.3)

    return model, lambda: program(rows("w"))


def two_chains():
    def program(one, other):
        return chain("a", 2, one), chain("b", 2, other)

    def model():
        for t, (a, b) in enumerate(zip(*program(xp.array(np.eye(3)), xp.array(np.ones((3, 3)))), strict=True)):
            observed(f"y_{t}", xp.array(LOC)[a] + 0.5 * xp.array(LOC)[b], t - 1.0)

    return model, lambda: program(rows("w"), rows("v"))


def of_order_two():
    def program(own):
        x = y = xp.array(0)
        values = []
        for t in range(4):
            x, y = y, ppl.sample(f"z_{t}", dist.Bernoulli(logits=own[xp.array(x, int), xp.array(y, int)]))
            values.append(y)
        return values

    def model():
        for t, z in enumerate(program(xp.array([[0.1, 0.5], [-0.3, 1.0]]))):
            observed(f"y_{t}", z * 1.5, t - 1.0)

    return model, lambda: program(rows("w", 2))


def with_a_reparameterised_site():
    def model():
        *_, z = chain("z", 3, xp.array(np.eye(3)))
        observed("y", ppl.sample("x", dist.Normal(0.0, 1.0)) + z, 0.4)

    def guide():
        _, z, _ = chain("z", 3, rows("w"))
        ppl.sample("x", dist.Normal(ppl.param("m", xp.array(LOC))[z], 1e-12))

    return model, guide


def one_hot_and_masked():
    def family(logits):
        return dist.OneHot(logits) if hasattr(dist, "OneHot") else dist.OneHotCategorical(logits=logits)

    def program(own):
        z, values = xp.array([1.0, 0.0, 0.0]), []
        for t in range(3):
            with handlers.mask(mask=xp.array(t != 1)):
                z = ppl.sample(f"z_{t}", family(z @ own))
            values.append(z)
        return values

    def model():
        for t, z in enumerate(program(xp.array(np.eye(3)))):
            observed(f"y_{t}", z @ xp.array(LOC), t - 1.0)

    return model, lambda: program(rows("w"))


def of_probabilities_that_are_zero():
    def program(p):
        z, values = 0.0, []
        for t in range(3):
            z = ppl.sample(f"z_{t}", dist.Bernoulli(probs=p[t] * (1 - 0.3 * z)))
            values.append(z)
        return values

    def model():
        for t, z in enumerate(program(xp.array([0.4, 0.5, 0.6]))):
            observed(f"y_{t}", z * 1.5, t - 1.0)

    return model, lambda: program(ppl.param("p", xp.array([0.3, 0.0, 0.8])))


def energy(p, q):
    return p.log_density(q.simulate())


def of_two_particles(p, q):
    def run():
        z = q.simulate()
        return p.log_density(z) - z.log_density

    return xp.mean(ppvi.replicate(2, run))


PROGRAMS = {
    "in a plate": (in_a_plate, 3), "nested plates": (nested_plates, 3), "a tree": (a_tree, 5), "two chains": (two_chains, 4),
    "of order two": (of_order_two, 4), "a reparameterised site": (with_a_reparameterised_site, 3),
    "one-hot and masked": (one_hot_and_masked, 3), "probabilities of zero": (of_probabilities_that_are_zero, 3),
}  # fmt: skip
NO_ENTROPY = ("a reparameterised site", "probabilities of zero")
"""Where the derivative of the guide's entropy is that of noise, or infinite."""

FIRST_ONLY = ("one-hot and masked", "probabilities of zero")
"""Where Pyro's sampler allows no second derivative, and where that of weights which are logarithms is lost in rounding."""


def each_program():
    """The first at once, the others where there is time."""
    for i, name in enumerate(PROGRAMS):
        objective = energy if name in NO_ENTROPY else elbo
        yield pytest.param(name, objective, marks=[pytest.mark.slow] if i else [])
    yield pytest.param("in a plate", of_two_particles, marks=[pytest.mark.slow])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "objective"), each_program())
def test_a_nest_of_sums_has_the_same_derivatives(engine, name, objective, monkeypatch):
    program, count = PROGRAMS[name]
    with double(), on(engine):
        model, guide = program()
        bound = engine.vi.objective(objective, model, guide)
        params = bound.init(engine.key(0))
        names = [site.name for site in bound.explain(params).sites if site.name != "x"]
        assert len(names) == count
        found = []
        for strategies in ({}, dict.fromkeys(names, Enumerate())):
            bound = engine.vi.objective(objective, model, guide, strategies=strategies)
            assert are_together(bound, params) == (0 if strategies else count)
            if name in FIRST_ONLY:
                found.append(bound.value_and_grad(engine.key(0), params))
            else:
                found.append(derivatives(engine, bound, params))
            monkeypatch.setattr(plan, "joints", lambda *args: [])
    for mine, truth in zip(jax.tree.leaves(found[0]), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(truth), rtol=1e-7, atol=1e-8)


def derivatives(engine, bound, params):
    """The value, gradient, and the product of the Hessian and a direction."""
    at = {name: np.asarray(x.detach() if engine is PYRO else x) for name, x in params.items()}
    direction, key = direction_of(at), engine.key(0)
    if engine is PYRO:
        return numbers_of(lambda params: bound.surrogate(key, params), SimpleNamespace(params=at), direction)
    return with_jax(bound, key, params, {name: jnp.asarray(x) for name, x in direction.items()})


def energy_of_pairs(p, q):
    z = q.simulate()
    return sum((z["x"] + 1.0) * xp.sin(xp.array(LOC)[z[f"z_{t}"]] + 3 * z[f"z_{t + 1}"]) for t in range(2))


@pytest.mark.parametrize(
    ("strategy", "first"),
    [
        (LeaveOneOut(2), True),
        (MeasureValued(), False),
        pytest.param(LeaveOneOut(2), False, marks=pytest.mark.slow),
        pytest.param(MeasureValued(), True, marks=pytest.mark.slow),
    ],
)
def test_plain_evaluations_have_no_noise_of_them(engine, strategy, first):
    """What another site's strategy takes away is the mean over the sites that are enumerated together, too."""

    def guide():
        logits = ppl.param("v", xp.array(0.4))
        if first:
            ppl.sample("x", dist.Bernoulli(logits=logits))
        chain("z", 3, rows("w"))
        if not first:
            ppl.sample("x", dist.Bernoulli(logits=logits))

    with double(), on(engine):
        bound = engine.vi.objective(energy_of_pairs, nothing, guide, strategies={"x": strategy})
        params = bound.init(engine.key(0))
        assert are_together(bound, params) == 3
        alone = engine.vi.objective(energy_of_pairs, nothing, guide, strategies={"x": Enumerate()})
        exact = float(alone.value_and_grad(engine.key(0), params)[1]["v"])
        found = [float(bound.value_and_grad(engine.key(i), params)[1]["v"]) for i in range(12)]
    assert len({round(x, 9) for x in found}) <= 3  # one for each draw and what is taken away from it
    assert min(found) - 1e-9 <= exact <= max(found) + 1e-9


def crossing_rows(p, q):
    z = q.simulate()
    a, b = (xp.array(LOC)[z[name]] for name in ("a_1", "b_1"))
    return xp.sum(xp.sin(a + 2 * b)) + xp.sum(a[:, None] * b[None] ** 2) + xp.sum(xp.array(LOC)[z["a_0"]])


def test_rows_that_meet_other_rows_are_a_nest(engine):
    def guide():
        with ppl.plate("rows", 2):
            chain("a", 2, rows("w"), shape=(2,))
            chain("b", 2, rows("v"), shape=(2,))

    with double(), on(engine):
        names = ("a_0", "a_1", "b_0", "b_1")
        bound = engine.vi.objective(crossing_rows, nothing, guide, strategies=dict.fromkeys(names, Enumerate()))
        params = bound.init(engine.key(0))
        assert are_together(bound, params) == 0
        value = float(bound.value_and_grad(engine.key(0), params)[0])
    p = np.exp(np.cos(np.arange(9.0)).reshape(3, 3))
    p /= p.sum(1, keepdims=True)
    one = p[0] @ p
    exact = 2 * sum(one[i] * one[j] * np.sin(LOC[i] + 2 * LOC[j]) for i in range(3) for j in range(3))
    exact += 4 * (one @ LOC) * (one @ LOC**2) + 2 * p[0] @ LOC
    assert value == pytest.approx(exact, rel=1e-9)


def test_a_site_beside_a_chain_in_one_operation_keeps_its_credit():
    """A loop returns what depends on the chain, and what the next site is drawn from, which does not."""

    def guide():
        v = ppl.param("v", xp.array(0.4))
        z = chain("z", 3, rows("w"))[-1]
        _, logits = jax.lax.fori_loop(0, 3, lambda i, carry: (carry[0] * 0.5, carry[1] * 0.9), (z * 1.0, v))
        ppl.sample("x", dist.Bernoulli(logits=logits))

    with double(), on(NUMPYRO):
        bound = NUMPYRO.vi.objective(energy_of_pairs, nothing, guide, strategies={"x": Reinforce()})
        params = bound.init(NUMPYRO.key(0))
        slopes = jax.vmap(lambda key: bound.value_and_grad(key, params)[1]["v"])(jax.random.split(NUMPYRO.key(0), 2000))
        exact = NUMPYRO.vi.objective(energy_of_pairs, nothing, guide, strategies={"x": Enumerate()})
        truth = float(exact.value_and_grad(NUMPYRO.key(0), params)[1]["v"])
    assert float(slopes.std()) > 1e-4
    assert float(slopes.mean()) == pytest.approx(truth, abs=5 * float(slopes.std()) / 2000**0.5)


@pytest.mark.parametrize(
    "engine", [pytest.param(x, id=x.name, marks=pytest.mark.slow if x is NUMPYRO else ()) for x in ENGINES]
)
def test_a_chain_beside_a_plate_that_it_ties_together_is_a_nest(engine):
    def guide():
        own, a, b = rows("w", 2), 0, xp.zeros(2, dtype=xp.array([0], int).dtype)
        for t in range(12):
            a = ppl.sample(f"a_{t}", dist.Categorical(logits=own[a]))
            with ppl.plate("rows", 2):
                b = ppl.sample(f"b_{t}", dist.Categorical(logits=own[b] * (a + 1.0)[..., None]))

    def program(p, q):
        z = q.simulate()
        return sum(xp.sum(xp.sin(z[f"b_{t}"] + 2.0 * z[f"a_{t}"])) for t in range(12))

    with double(), on(engine):
        bound = engine.vi.objective(program, nothing, guide)
        params = bound.init(engine.key(0))
        assert are_together(bound, params) == 0
        assert np.isfinite(float(bound.estimate(engine.key(0), params)))


@pytest.mark.parametrize("values", [16, 17])
def test_large_supports_are_enumerated_where_they_are_named(engine, values):
    def guide():
        z = 0
        for t in range(3):
            z = ppl.sample(f"z_{t}", dist.Categorical(logits=ppl.param("w", xp.array(np.eye(values)))[z]))

    def program(p, q):
        z = q.simulate()
        return sum(xp.sin(z[f"z_{t}"] + 2.0 * z[f"z_{t + 1}"]) for t in range(2))

    with double(), on(engine):
        default = engine.vi.objective(program, nothing, guide)
        named = engine.vi.objective(program, nothing, guide, strategies={f"z_{t}": Enumerate() for t in range(3)})
        params = default.init(engine.key(0))
        assert are_together(default, params) == (3 if values == 16 else 0)
        assert are_together(named, params) == 3


def test_what_is_no_number_stays_none():
    def guide():
        chain("z", 3, ppl.param("w", xp.array(np.zeros((3, 3)))))

    def program(p, q):
        z = q.simulate()
        return 5.0 + sum(xp.sin(z[f"z_{t}"] + 2.0 * z[f"z_{t + 1}"]) for t in range(2))

    with double(), on(NUMPYRO):  # PyTorch draws from no such probabilities
        bound = NUMPYRO.vi.objective(program, nothing, guide)
        lost = {"w": xp.array(np.array([[0.0] * 3, [np.nan] * 3, [0.0] * 3]))}
        assert np.isnan(float(bound.estimate(NUMPYRO.key(0), lost)))


def test_divergences_of_sites_that_follow_one_another(engine):
    """In closed form, given what is drawn before: the bound is the same."""

    def model():
        z = ppl.sample("z", dist.Categorical(logits=xp.array([0.1, 0.4, -0.2])))
        w = ppl.sample("w", dist.Bernoulli(logits=0.4 * z - 0.1))
        with ppl.plate("rows", 2):
            ppl.sample("v", dist.Categorical(logits=xp.array(np.eye(3))[z] * xp.ones((2, 1))))
        observed("y", w + 0.3 * z, 0.4)

    def guide():
        own = rows("w_")
        z = ppl.sample("z", dist.Categorical(logits=own[0]))
        ppl.sample("w", dist.Bernoulli(logits=own[z, 0]))
        with ppl.plate("rows", 2):
            ppl.sample("v", dist.Categorical(logits=own[z] * xp.ones((2, 1))))

    with double(), on(engine):
        found = []
        for objective in (elbo, analytic_elbo):
            bound = engine.vi.objective(objective, model, guide)
            value, grads = bound.value_and_grad(engine.key(0), bound.init(engine.key(0)))
            found.append((float(value), np.asarray(grads["w_"])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-8)
