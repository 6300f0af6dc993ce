"""What `as_loss` gives has the verbs of Pyro's own losses, and their values."""

from __future__ import annotations

import copy
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule

import ppvi
import ppvi.pyro as vi
from ppvi.objectives import elbo
from ppvi.strategies import Reinforce, RunningMean

Y = torch.tensor([1.2, 0.4, 2.1, 1.7])


def model(y: torch.Tensor) -> None:
    x = pyro.sample("x", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x, 1.0), obs=y)


def guide(y: torch.Tensor) -> None:
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), scale))


def gradients(loss: Any, verb: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A loss and its gradients at one seed, by a verb of Pyro's losses."""
    pyro.clear_param_store()
    getattr(loss, verb)(model, guide, Y)
    leaves = dict(pyro.get_param_store().named_parameters())
    for x in leaves.values():
        x.grad = None
    pyro.set_rng_seed(3)
    value = getattr(loss, verb)(model, guide, Y)
    if verb == "differentiable_loss":
        assert isinstance(value, torch.Tensor)
        value.backward()
    else:
        assert isinstance(value, float)
    return torch.as_tensor(value).detach(), {n: x.grad for n, x in leaves.items() if x.grad is not None}


@pytest.mark.parametrize("verb", ["loss", "loss_and_grads", "differentiable_loss"])
def test_verbs_of_pyros_losses(verb):
    (mine, grads), (theirs, others) = (
        gradients(loss, verb) for loss in (vi.objective(elbo, model, guide).as_loss(), Trace_ELBO())
    )
    torch.testing.assert_close(mine, theirs)
    assert grads.keys() == others.keys() == (set() if verb == "loss" else {"loc", "scale"})
    for name, x in others.items():
        torch.testing.assert_close(grads[name], x)


class Network(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = PyroModule[torch.nn.Linear](1, 1)

    def forward(self, y: torch.Tensor) -> None:
        x = pyro.sample("x", dist.Normal(0.0, 2.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(self.net(x[None])[0], 1.0), obs=y)


def test_a_module_for_the_optimisers_of_pytorch():
    """As Pyro documents it: made of the loss, called with the data, moved by torch.optim."""

    def fitted(make: Any, module: Network) -> tuple[list[float], list[torch.Tensor]]:
        pyro.clear_param_store()
        guide = AutoNormal(module)
        loss = make(guide)(module, guide)
        loss(Y)
        optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
        pyro.set_rng_seed(1)
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            value = loss(Y)
            value.backward()
            optimizer.step()
            losses.append(float(value.detach()))
        return losses, [x.detach().clone() for x in loss.parameters()]

    first = Network()
    other = copy.deepcopy(first)
    mine, params = fitted(lambda guide: vi.objective(elbo, first, guide).as_loss(), first)
    theirs, expected = fitted(lambda guide: Trace_ELBO(), other)
    torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), rtol=1e-3, atol=1e-3)
    assert len(params) == len(expected) == 4
    for x, y in zip(params, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-2, atol=1e-2)


class Tied(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = PyroModule[torch.nn.Linear](1, 1), PyroModule[torch.nn.Linear](1, 1)
        self.second.weight = self.first.weight

    def forward(self, y: torch.Tensor) -> None:
        x = pyro.sample("x", dist.Normal(0.0, 2.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(self.second(self.first(x[None]))[0], 1.0), obs=y)


@pytest.mark.parametrize("how", ["as_loss", "fit"])
def test_a_tied_parameter_has_both_of_its_names_in_pyros_store(how):
    names = []
    for mine in (False, True):
        pyro.clear_param_store()
        model = Tied()
        bound = vi.objective(elbo, model, guide)
        if mine and how == "fit":
            vi.fit(bound, 0, Y, num_steps=2, progress=False)
        else:
            svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), bound.as_loss() if mine else Trace_ELBO())
            before = model.first.weight.detach().clone()
            svi.step(Y)
            torch.testing.assert_close(abs(model.first.weight - before), torch.tensor([[0.01]]))  # Adam's, and once
            svi.step(Y)
        names.append(set(pyro.get_param_store().keys()))
        assert pyro.param("second.weight") is model.first.weight
    assert names[0] == names[1] >= {"first.weight", "second.weight"}


def test_a_module_of_programs_without_arguments():
    def at_rest() -> None:
        pyro.sample("x", dist.Normal(0.0, 1.0))

    def moved() -> None:
        pyro.sample("x", dist.Normal(pyro.param("m", torch.tensor(2.0)), 1.0))

    loss = vi.objective(ppvi.objectives.analytic_elbo, at_rest, moved).as_loss()
    assert float(loss(at_rest, moved)().detach()) == pytest.approx(2.0)  # KL of N(2, 1) from N(0, 1)
    assert SVI(at_rest, moved, pyro.optim.Adam({"lr": 0.0}), loss).step() == pytest.approx(2.0)


BASELINES: dict[str, Any] = {
    "a network": {"nn_baseline": torch.nn.Linear(1, 4), "nn_baseline_input": torch.ones(1)},
    "a decaying average": {"use_decaying_avg_baseline": True},
}


@pytest.mark.parametrize("name", [*BASELINES, "a strategy"])
def test_what_learns_is_refused_and_not_left_as_it_begins(name):
    """Pyro's own loss trains the network; this one would hold a copy of it still."""
    infer = {"strategy": Reinforce(RunningMean())} if name == "a strategy" else {"baseline": BASELINES[name]}

    def counts(y: torch.Tensor) -> None:
        with pyro.plate("rows", 4):
            z = pyro.sample("z", dist.Poisson(1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def of_counts(y: torch.Tensor) -> None:
        if name == "a network":
            pyro.module("baseline", BASELINES[name]["nn_baseline"])
        rate = pyro.param("rate", torch.ones(4), constraint=dist.constraints.positive)
        with pyro.plate("rows", 4):
            pyro.sample("z", dist.Poisson(rate), infer=infer)

    if name != "a strategy":
        SVI(counts, of_counts, pyro.optim.Adam({"lr": 0.01}), TraceGraph_ELBO()).step(Y)
        pyro.clear_param_store()
    svi = SVI(counts, of_counts, pyro.optim.Adam({"lr": 0.01}), vi.objective(elbo, counts, of_counts).as_loss())
    with pytest.raises(ppvi.StrategyError, match=r"as_loss: Reinforce\(.*\) of site 'z' learns .* Use `fit`"):
        svi.step(Y)


class Unmoved(pyro.optim.PyroOptim):
    def __init__(self) -> None:
        super().__init__(torch.optim.SGD, {"lr": 0.0})

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


@pytest.mark.parametrize("replayed", [False, True])
def test_a_loss_that_is_not_finite_is_said(replayed):
    def flat() -> None:
        x = pyro.sample("x", dist.Normal(0.0, pyro.param("s", torch.tensor(0.0))))
        if replayed:
            float(x.detach())

    def normal() -> None:
        pyro.sample("x", dist.Normal(0.0, 1.0))

    svi = SVI(normal, flat, Unmoved(), vi.objective(elbo, normal, flat).as_loss())
    said = r"as_loss: the objective is nan: site 'x' of the guide has log_prob nan, for its scale is outside"
    with pytest.warns(UserWarning, match=said) as told:
        values = [svi.step(), svi.evaluate_loss()]
    assert all(value != value for value in values)
    [warning] = [warning for warning in told if "as_loss" in str(warning.message)]
    assert warning.filename.endswith("test_losses.py")
