"""Plates that are loops of Python's: staged, where their rounds are known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppvi
import ppvi.pyro as vi

DATA = torch.arange(6.0).reshape(2, 3)
DIVERGENCE = 0.3 * math.log(0.3 / 0.5) + 0.7 * math.log(0.7 / 0.5)
"""Of Bernoulli(0.3) from Bernoulli(0.5)."""


def nested(prob):
    for i in pyro.plate("a", 2):
        for j in pyro.plate(f"b_{i}", 3):
            pyro.sample(f"x_{i}_{j}", dist.Bernoulli(prob))


def inner_plate_of_one_name(prob):
    inner = pyro.plate("b", 3)
    for i in pyro.plate("a", 2):
        for j in inner:
            pyro.sample(f"x_{i}_{j}", dist.Bernoulli(prob))


def inside_a_vectorised_plate(prob):
    with pyro.plate("v", 3):
        for i in pyro.plate("a", 2):
            pyro.sample(f"x_{i}", dist.Bernoulli(prob))


def around_a_vectorised_plate(prob):
    rows = pyro.plate("v", 3)
    for i in pyro.plate("a", 2):
        with rows as index:
            assert [int(row) for row in index] == [0, 1, 2]
            pyro.sample(f"x_{i}", dist.Bernoulli(prob))


def markov(prob):
    for t in pyro.markov(range(6)):
        pyro.sample(f"x_{t}", dist.Bernoulli(prob))


@pytest.mark.parametrize(
    "program",
    [nested, inner_plate_of_one_name, inside_a_vectorised_plate, around_a_vectorised_plate, markov],
    ids=lambda program: program.__name__,
)
def test_rounds_are_sites_of_a_staged_program(program):
    """Enumerated exactly: the bound is six divergences, and its derivative in the probability is theirs."""

    def guide():
        program(pyro.param("q", torch.tensor(0.3), constraint=dist.constraints.unit_interval))

    bound = vi.objective(ppvi.objectives.elbo, lambda: program(0.5), guide)
    params = bound.init(0)
    value, grads = bound.value_and_grad(0, params)
    assert abs(float(value) + 6 * DIVERGENCE) < 1e-5
    assert abs(float(grads["q"]) + 6 * math.log(0.3 / 0.7)) < 1e-4
    explanation = bound.explain(params)
    assert "replay" not in explanation.engine
    assert all(site.strategy == "Enumerate()" for site in explanation.sites)


def test_rounds_of_several_particles():
    """With a guide that is the prior, every importance weight is 1."""

    def guide():
        nested(pyro.param("q", torch.tensor(0.5)))

    bound = vi.objective(ppvi.objectives.iwelbo(2), lambda: nested(0.5), guide)
    assert abs(float(bound.estimate(0, bound.init(0)))) < 1e-6


@pytest.mark.parametrize("size", [None, 3, 2, 1])
def test_minibatches_of_rounds(size):
    """One minibatch for the model and the guide, of two nested plates; its costs are scaled to all rows."""

    def program(mean, data):
        for i in pyro.plate("a", 2, subsample_size=size and 1):
            for j in pyro.plate(f"b_{i}", 3, subsample_size=size):
                z = pyro.sample(f"z_{i}_{j}", dist.Normal(mean, 1.0))
                if data is not None:
                    pyro.sample(f"x_{i}_{j}", dist.Normal(z, 1.0), obs=data[i, j])

    def guide(data):
        program(pyro.param("m", torch.tensor(0.3)), None)

    bound = vi.objective(ppvi.objectives.elbo, lambda data: program(0.0, data), guide)
    params = bound.init(0, DATA)
    draws = [bound.value_and_grad(seed, params, DATA) for seed in range(100)]
    want = -6 * 0.3**2 / 2 - sum(0.5 * math.log(2 * math.pi) + (1 + (float(x) - 0.3) ** 2) / 2 for x in DATA.flatten())
    slope = -6 * 0.3 + float((DATA - 0.3).sum())
    for found, exact in ((torch.stack([v for v, _ in draws]), want), (torch.stack([g["m"] for _, g in draws]), slope)):
        assert abs(found.mean() - exact) < 5 * found.std() / 10
    assert ("replay" in bound.explain(params, DATA).engine) == (size is not None)


def both_looped(loc):
    inner = pyro.plate("b", 3)
    for i in pyro.plate("a", 2):
        for j in inner:
            pyro.sample(f"x_{i}_{j}", dist.Normal(loc, 1.0), obs=DATA[i, j])


def outer_looped(loc):
    for i in pyro.plate("a", 2):
        with pyro.plate("b", 3):
            pyro.sample(f"x_{i}", dist.Normal(loc, 1.0), obs=DATA[i])


def inner_looped(loc):
    with pyro.plate("a", 2):
        for j in pyro.plate("b", 3):
            pyro.sample(f"x_{j}", dist.Normal(loc, 1.0), obs=DATA[:, j])


@pytest.mark.parametrize("per", ["a", "b", ("a", "b"), ("b", "a")], ids=str)
@pytest.mark.parametrize("program", [both_looped, outer_looped, inner_looped], ids=lambda program: program.__name__)
def test_densities_per_plate_of_rounds_are_those_of_its_rows(program, per):
    """As if all were vectorised, in the order of the plates that are asked for; side by side too."""

    def objective(p, q):
        runs = ppvi.replicate(2, p.simulate)
        return (p.simulate().per(per) ** 2).sum() + (runs.per(per) ** 3).sum()

    bound = vi.objective(objective, lambda: program(pyro.param("loc", torch.tensor(0.3))), lambda: None)
    dense = dist.Normal(0.3, 1.0).log_prob(DATA)
    rows = {"a": dense.sum(1), "b": dense.sum(0), ("a", "b"): dense, ("b", "a"): dense.T}[per]
    assert float(bound.estimate(0, bound.init(0))) == pytest.approx(float((rows**2 + 2 * rows**3).sum()), rel=1e-4)


@pytest.mark.parametrize("size", [None, 2])
def test_a_bound_per_round_of_a_minibatch(size):
    """With the posterior for a guide, the importance-weighted bound of every row is its evidence."""

    def model():
        for i in pyro.plate("n", 3, subsample_size=size):
            z = pyro.sample(f"z_{i}", dist.Normal(0.0, 1.0))
            pyro.sample(f"x_{i}", dist.Normal(z, 1.0), obs=DATA[1, i])

    def guide():
        slope = pyro.param("slope", torch.tensor(0.5))
        for i in pyro.plate("n", 3, subsample_size=size):
            pyro.sample(f"z_{i}", dist.Normal(slope * DATA[1, i], 0.5**0.5))

    bound = vi.objective(ppvi.objectives.iwelbo(2, per="n"), model, guide)
    evidence = dist.Normal(0.0, 2**0.5).log_prob(DATA[1])
    values = torch.stack([bound.estimate(seed, bound.init(0)) for seed in range(30 if size else 1)])
    possible = evidence.sum() if size is None else 1.5 * (evidence.sum() - evidence)
    assert all((value - possible).abs().min() < 1e-3 for value in values)


def test_a_round_that_the_guide_skips_is_there():
    def model():
        for i in pyro.plate("n", 3):
            pyro.sample(
                f"x_{i}",
                dist.Normal(pyro.sample(f"z_{i}", dist.Normal(0.0, 1.0)) if i < 2 else 0.0, 1.0),
                obs=DATA[0, i],
            )

    def guide():
        for i in pyro.plate("n", 3):
            if i < 2:
                pyro.sample(f"z_{i}", dist.Normal(pyro.param("slope", torch.tensor(0.5)) * DATA[0, i], 0.5**0.5))

    bound = vi.objective(ppvi.objectives.iwelbo(2, per="n"), model, guide)
    evidence = dist.Normal(0.0, torch.tensor([2.0, 2.0, 1.0]) ** 0.5).log_prob(DATA[0]).sum()
    assert float(bound.estimate(0, bound.init(0))) == pytest.approx(float(evidence), abs=1e-4)


def test_a_site_beside_the_rounds_is_refused():
    def model():
        pyro.sample("y", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0), obs=torch.tensor(0.0))
        outer_looped(0.3)

    bound = vi.objective(lambda p, q: p.log_density({}, per="a").sum(), model, lambda: None)
    with pytest.raises(ppvi.ProgramError, match="plate 'a': site 'y' lies outside that plate"):
        bound.init(0)
