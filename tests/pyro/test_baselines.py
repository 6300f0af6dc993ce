"""Baselines as Pyro names them at a site are those strategies of ppvi, or are refused by name."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppvi.pyro as vi
from ppvi import StrategyError
from ppvi.objectives import elbo
from ppvi.strategies import NeuralBaseline, Reinforce, RunningMean

X = torch.tensor([0.5, 2.0, 3.5])
INPUT = X[:, None]


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1), torch.nn.Flatten(0))


def model() -> None:
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(3 * z, 1.0), obs=X)


def guide_with(infer: Any) -> Any:
    def guide() -> None:
        logits = pyro.param("logits", torch.zeros(3))
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Bernoulli(logits=logits), infer=infer)

    return guide


def losses(infer: dict[str, Any], **strategies: Any) -> torch.Tensor:
    bound = vi.objective(elbo, model, guide_with(infer), strategies=strategies)
    return torch.as_tensor(vi.fit(bound, 3, optimizer=0.1, num_steps=30, progress=False).losses)


def test_a_decaying_average():
    given = {"baseline": {"use_decaying_avg_baseline": True, "baseline_beta": 0.8}}
    assert torch.equal(losses(given), losses({}, z=Reinforce(RunningMean(0.8))))
    by_default = {"baseline": {"use_decaying_avg_baseline": True}}
    assert torch.equal(losses(by_default), losses({}, z=Reinforce(RunningMean(0.9))))


def test_a_network():
    given = {"baseline": {"nn_baseline": network(), "nn_baseline_input": INPUT}}
    same = network()
    ours = NeuralBaseline(
        lambda: {name: x.detach().clone() for name, x in same.named_parameters()},
        lambda weights, x: torch.func.functional_call(same, weights, (x,)),
    )
    assert torch.equal(losses(given), losses({"baseline_input": INPUT}, z=Reinforce(ours)))


def test_with_a_network_that_the_guide_has_as_a_module():
    baseline = network()
    first = [x.detach().clone() for x in baseline.parameters()]

    def guide() -> None:
        pyro.module("baseline", baseline)
        guide_with({"baseline": {"nn_baseline": baseline, "nn_baseline_input": INPUT}})()

    fit = vi.fit(vi.objective(elbo, model, guide), 0, optimizer=0.1, num_steps=300, progress=False)
    exact = torch.tensor(0.3).logit() + dist.Normal(3.0, 1.0).log_prob(X) - dist.Normal(0.0, 1.0).log_prob(X)
    # Three standard deviations of an Adam of this step size about its limit, seen over seeds.
    torch.testing.assert_close(fit.params["logits"].sigmoid(), exact.sigmoid(), atol=0.1, rtol=0)
    assert all(torch.equal(x, before) for x, before in zip(baseline.parameters(), first, strict=True))


def test_none_where_there_is_no_score():
    infer: Any = {"baseline": {"use_decaying_avg_baseline": True}}

    def guide() -> None:
        loc = pyro.param("loc", torch.tensor(0.5))
        pyro.sample("z", dist.Normal(loc, 1.0), infer=infer)

    def normal() -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))

    bound = vi.objective(elbo, normal, guide)
    _, grads = bound.value_and_grad(0, bound.init(0))
    assert float(grads["loc"]) != 0


@pytest.mark.parametrize(
    ("infer", "said"),
    [
        ({"baseline": {"use_decaying_avg": True}}, "Did you mean 'use_decaying_avg_baseline'"),
        ({"baseline": {"baseline_value": torch.zeros(3)}}, "one of both"),
        ({"baseline": {"use_decaying_avg_baseline": True, "nn_baseline": network()}}, "one of both"),
        ({"baseline": {"nn_baseline": network()}}, "needs its nn_baseline_input"),
        ({"baseline": {"use_decaying_avg_baseline": True}, "enumerate": "parallel"}, "beside 'enumerate'"),
        ({"baseline": {"use_decaying_avg_baseline": True}, "strategy": Reinforce()}, "beside 'strategy'"),
        ({"baseline": RunningMean()}, "it is a dict of"),
    ],
)
def test_what_is_none_is_refused_by_name(infer: dict[str, Any], said: str):
    with pytest.raises(StrategyError, match=said) as error:
        vi.objective(elbo, model, guide_with(infer)).init(0)
    assert "site 'z'" in str(error.value)
    assert "test_baselines.py" in str(error.value)
