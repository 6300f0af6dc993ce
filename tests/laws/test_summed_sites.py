"""What is known of finite sites that are summed out: draws, probabilities and most probable values, given the other sites.

The oracle is the sum over all assignments of a chain in a plate, in NumPy.
"""

import itertools
import math

import numpy as np
import pytest

import ppvi
from ppvi.objectives import elbo, iwelbo
from tests.engines import ENGINES, PYRO, dist, on, ppl, xp

ROWS, STEPS, K = 2, 3, 3
START = np.array([0.5, 0.3, 0.2])
TRANSITION = np.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.6, 0.4, 0.0]])
Y = np.array([[0.3, 2.2, -0.4], [1.4, 0.2, 1.9]])
SHIFT = 0.4


def chain(y):
    shift = ppl.sample("shift", dist.Normal(0.0, 1.0))
    with ppl.plate("rows", ROWS, dim=-1):
        row = xp.array(np.broadcast_to(START, (ROWS, K)).copy())
        for t in range(STEPS):
            z = ppl.sample(f"z{t}", dist.Categorical(probs=row))
            ppl.sample(f"y{t}", dist.Normal(z + shift, 1.0), obs=y[:, t])
            row = xp.array(TRANSITION)[z]


def guide(y):
    ppl.sample("shift", dist.Delta(ppl.param("at", xp.array(SHIFT))))


def paths(row):
    """The probability of every path given the data of a row, and the log of their sum."""
    found = {}
    for path in itertools.product(range(K), repeat=STEPS):
        steps = zip((START, *TRANSITION[list(path[:-1])]), path, strict=True)
        probability = math.prod(p[z] for p, z in steps)
        error = Y[row] - np.array(path) - SHIFT
        found[path] = probability * np.exp(-0.5 * error @ error) / math.sqrt(2 * math.pi) ** STEPS
    total = sum(found.values())
    return {path: x / total for path, x in found.items()}, math.log(total)


PATHS = [paths(row) for row in range(ROWS)]
LOG_DENSITY = sum(log_total for _, log_total in PATHS) - 0.5 * SHIFT**2 - 0.5 * math.log(2 * math.pi)


def drawn(engine, **options):
    bound = engine.vi.objective(elbo, chain, guide)
    y = engine.array(Y)
    params = bound.init(engine.key(0), y)
    return engine.vi.posterior(bound, engine.key(1), params, y, **options).posterior


def as_paths(posterior):
    """`(draw, row, step)`"""
    return np.stack([np.asarray(posterior[f"z{t}"])[0] for t in range(STEPS)], -1)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_draws_are_those_of_the_exact_conditional(engine):
    with on(engine):
        posterior = drawn(engine, draws=4000, probs=True)
    found, n = as_paths(posterior).astype(int), 4000
    for row, (probabilities, _) in enumerate(PATHS):
        seen = dict.fromkeys(probabilities, 0)
        for path in map(tuple, found[:, row]):
            seen[path] += 1
        for path, p in probabilities.items():
            assert abs(seen[path] / n - p) <= 5.5 * math.sqrt(p * (1 - p) / n) + 1e-12
        for t, value in itertools.product(range(STEPS), range(K)):
            share = sum(p for path, p in probabilities.items() if path[t] == value)
            assert np.asarray(posterior[f"z{t}_probs"])[0, :, row, value] == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_at_temperature_zero_all_values_are_the_most_probable_together(engine):
    with on(engine):
        found = as_paths(drawn(engine, draws=2, temperature=0)).astype(int)
    for row, (probabilities, _) in enumerate(PATHS):
        assert {tuple(path) for path in found[:, row]} == {max(probabilities, key=probabilities.get)}


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_sums_nest_in_programs_of_programs_and_in_objectives(engine):
    def evidence(p, q):
        return ppvi.normalize(p, q, 2).log_evidence()

    def by_marginal(p, q):
        return ppvi.marginal(ppvi.summed(p), [], lambda kept, y: guide(y), 3).log_density({})

    def simulated(p, q):
        return ppvi.summed(p, ["z0", "z1", "z2"]).log_density(q.simulate())

    # The guide is a point, whose density cancels in no weight but is 1.
    with on(engine):
        y = engine.array(Y)
        for objective in (elbo, iwelbo(2), evidence, by_marginal, simulated):
            bound = engine.vi.objective(objective, chain, guide)
            params = bound.init(engine.key(0), y)
            assert float(bound.estimate(engine.key(1), params, y)) == pytest.approx(LOG_DENSITY, abs=1e-4)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_explain_says_what_is_summed_out(engine):
    with on(engine):
        bound = engine.vi.objective(elbo, chain, guide)
        y = engine.array(Y)
        [how] = bound.explain(bound.init(engine.key(0), y), y).summed
    assert set(how.order) == {"z0", "z1", "z2"}
    assert how.largest == ROWS * K**2


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_a_guides_site_that_is_marked_is_enumerated(engine):
    def marked(y):
        guide(y)
        with ppl.plate("rows", ROWS, dim=-1):
            probs = xp.array(np.full((ROWS, K), 1 / K))
            ppl.sample("z1", dist.Categorical(probs=probs), infer={"enumerate": "sequential"})

    with on(engine):
        bound = engine.vi.objective(elbo, chain, marked)
        y = engine.array(Y)
        params = bound.init(engine.key(0), y)
        explained = bound.explain(params, y)
        assert {site.name: site.strategy for site in explained.sites}["z1"] == "Enumerate(sequential=True)"
        assert set(explained.summed[0].order) == {"z0", "z2"}
        found = float(bound.estimate(engine.key(1), params, y))
    expected = LOG_DENSITY
    for probabilities, _ in PATHS:
        shares = np.array([sum(p for path, p in probabilities.items() if path[1] == value) for value in range(K)])
        expected += np.log(shares * K).mean()
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_two_densities_of_one_model_are_two_sums(engine):
    def twice(p, q):
        z = q.simulate()
        return p.log_density(z) + 2.0 * p.log_density({"shift": z["shift"] * 0.0 + SHIFT})

    with on(engine):
        y = engine.array(Y)
        bound = engine.vi.objective(twice, chain, guide)
        params = bound.init(engine.key(0), y)
        assert float(bound.estimate(engine.key(1), params, y)) == pytest.approx(3 * LOG_DENSITY, abs=1e-4)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_sites_of_a_minibatch_are_drawn_for_all_rows(engine):
    def model(y):
        mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
        with ppl.plate("rows", 6, subsample_size=2, dim=-1) as rows:
            z = ppl.sample("z", dist.Bernoulli(probs=xp.array(0.3)))
            ppl.sample("y", dist.Normal(mean + 2.0 * z, 1.0), obs=y[rows])

    def of_mean(y):
        ppl.sample("mean", dist.Delta(ppl.param("at", xp.array(0.1))))

    data = np.linspace(-1.0, 3.0, 6)
    with on(engine):
        y = engine.array(data)
        bound = engine.vi.objective(elbo, model, of_mean)
        posterior = engine.vi.posterior(
            bound, engine.key(1), bound.init(engine.key(0), y), y, draws=2, probs=True
        ).posterior
    odds = 0.3 / 0.7 * np.exp(-0.5 * (data - 2.1) ** 2 + 0.5 * (data - 0.1) ** 2)
    assert np.asarray(posterior["z_probs"])[0, 0, :, 1] == pytest.approx(odds / (1 + odds), abs=1e-5)


@pytest.mark.parametrize("read", ["if", "item", "list"])
def test_a_program_that_reads_what_stands_for_a_site_is_refused(read):
    def model(y):
        mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
        z = ppl.sample("z", dist.Bernoulli(probs=xp.array(0.3)))
        at = {
            "if": lambda: mean if z == 1 else -mean,
            "item": lambda: mean * (2 * z.item() - 1),
            "list": lambda: [-mean, mean][int(z)],
        }[read]()
        ppl.sample("y", dist.Normal(at, 1.0), obs=y)

    def of_mean(y):
        ppl.sample("mean", dist.Normal(ppl.param("at", xp.array(0.1)), 1.0))

    with on(PYRO):
        y = PYRO.array(np.array(1.3))
        bound = PYRO.vi.objective(elbo, model, of_mean)
        with pytest.raises(ppvi.EngineError, match="summed out of programs that can be staged"):
            bound.value_and_grad(PYRO.key(0), bound.init(PYRO.key(0), y), y)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_what_depends_on_one_row_counts_for_that_row_alone(engine):
    heads = np.array([0.2, 0.6, 0.9])

    def model():
        shift = ppl.sample("shift", dist.Normal(0.0, 1.0))
        with ppl.plate("rows", 3, dim=-1):
            z = ppl.sample("z", dist.Bernoulli(probs=xp.array(heads)))
        ppl.sample("first", dist.Normal(z[0:1] + shift, 1.0), obs=xp.array(np.array([0.7])))
        ppl.sample("last", dist.Normal(2.0 * z[2:3] + shift, 1.0), obs=xp.array(np.array([1.1])))

    def normal(error):
        return np.exp(-0.5 * error**2) / math.sqrt(2 * math.pi)

    of_first = (1 - heads[0]) * normal(0.7 - SHIFT) + heads[0] * normal(0.7 - 1 - SHIFT)
    of_last = (1 - heads[2]) * normal(1.1 - SHIFT) + heads[2] * normal(1.1 - 2 - SHIFT)
    with on(engine):
        bound = engine.vi.objective(elbo, model, lambda: guide(None))
        params = bound.init(engine.key(0))
        found = float(bound.estimate(engine.key(1), params))
    assert found == pytest.approx(np.log(of_first * of_last * normal(SHIFT)), abs=1e-5)
