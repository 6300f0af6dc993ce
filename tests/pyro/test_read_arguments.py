"""Whole numbers in argument tensors that a program reads: it is staged for each of their values, while these are few."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDelta

import ppvi.pyro as vi
from ppvi.objectives import elbo, iwelbo
from ppvi.pyro._changing import VALUES

X = (torch.arange(24).reshape(3, 4, 2) % 5 > 1).float()
LENGTHS = torch.tensor([2, 4, 3])


def is_staged(bound, *args) -> bool:
    return "staged as one" in str(bound.explain(bound.init(0, *args), *args))


@config_enumerate
def sequences(x, lengths):
    """Hidden Markov models of several lengths, as in the first of Pyro's examples."""
    assert lengths.max() <= x.shape[1]
    rows = pyro.sample("rows", dist.Dirichlet(0.9 * torch.eye(3) + 0.1).to_event(1))
    probs = pyro.sample("probs", dist.Beta(0.1, 0.9).expand([3, 2]).to_event(2))
    tones = pyro.plate("tones", 2, dim=-1)
    for i in pyro.plate("sequences", len(x)):
        z = 0
        for t in pyro.markov(range(lengths[i])):
            z = pyro.sample(f"z_{i}_{t}", dist.Categorical(rows[z]))
            with tones:
                pyro.sample(f"x_{i}_{t}", dist.Bernoulli(probs[z.squeeze(-1)]), obs=x[i, t])


def test_finite_sites_are_summed_out_of_loops_of_lengths_that_are_given():
    guide = AutoDelta(poutine.block(sequences, expose=["rows", "probs"]))
    bound = vi.objective(elbo, sequences, guide)
    params = bound.init(0, X, LENGTHS)
    assert is_staged(bound, X, LENGTHS)
    for lengths in (LENGTHS, torch.tensor([1, 1, 2]), LENGTHS):
        theirs = -TraceEnum_ELBO(max_plate_nesting=1).loss(sequences, guide, X, lengths)
        assert float(bound.estimate(0, params, X, lengths)) == pytest.approx(theirs, rel=1e-5)


def ragged(x, counts, noise):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    for i in range(len(x)):
        pyro.sample(f"x{i}", dist.Normal(z, 1.0).expand([int(counts[i])]).to_event(1), obs=x[i, : counts[i], 0])
    pyro.sample("n", dist.Poisson(z.exp()).expand([3]).to_event(1), obs=noise)


def normal(x, counts, noise):
    pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.3)), 0.5))


@pytest.mark.parametrize("program", [elbo, iwelbo(3)], ids=["elbo", "iwelbo"])
def test_only_what_is_read_is_a_constant(program):
    """Counts that are data change from call to call, and nothing is staged again for them."""
    bound = vi.objective(program, ragged, normal)
    params = bound.init(0, X, LENGTHS, LENGTHS)
    assert is_staged(bound, X, LENGTHS, torch.arange(5, 8))
    estimator = vi.objective(elbo, poutine.condition(ragged, data={"z": torch.tensor(0.4)}), lambda *args: None)
    for lengths in (LENGTHS, torch.tensor([4, 1, 1])):
        for counts in (torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])):
            trace = poutine.trace(poutine.condition(ragged, {"z": torch.tensor(0.4)})).get_trace(X, lengths, counts)
            known = float(trace.log_prob_sum())
            assert float(estimator.estimate(0, {}, X, lengths, counts)) == pytest.approx(known, rel=1e-5)
            assert torch.isfinite(bound.value_and_grad(0, params, X, lengths, counts)[1]["m"])


def test_of_many_values_it_is_run_as_it_is():
    def model(n):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        for i in range(int(n)):
            pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    def guide(n):
        pyro.sample("z", dist.Delta(pyro.param("m", torch.tensor(0.0))))

    bound = vi.objective(elbo, model, guide)
    params = bound.init(0, torch.tensor(1))
    for n in range(1, VALUES + 4):
        _, grads = bound.value_and_grad(0, params, torch.tensor(n))
        assert float(grads["m"]) == pytest.approx(n)
    assert not is_staged(bound, torch.tensor(n))
