"""Buffers of modules: a gradient changes them once, as PyTorch's forward does, and nothing else does."""

import copy
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import ppvi
import ppvi.pyro as vi
from ppvi.objectives import elbo, iwelbo

X = torch.full((8, 1), 5.0)


def programs(norm, branching=False, latent="path"):
    """The layer is in the guide; what it is given is 5 everywhere."""

    def model(x):
        with pyro.plate("data", 8):
            z = pyro.sample("z", dist.Normal(0.0, 1.0) if latent == "path" else dist.Bernoulli(0.5))
            pyro.sample("y", dist.Normal(z, 1.0), obs=x[:, 0])

    def guide(x):
        pyro.module("norm", norm)
        h = norm(x)[:, 0] + pyro.param("shift", torch.tensor(0.1))
        if branching and h.sum() > 1e9:  # a number that is read out of a tensor, so the program is replayed
            return
        with pyro.plate("data", 8):
            pyro.sample("z", dist.Normal(h, 1.0) if latent == "path" else dist.Bernoulli(logits=h))

    return model, guide


def assert_updates(norm, n):
    """After n updates with momentum 0.1 the running mean is 5 (1 - 0.9^n), and the running variance 0.9^n."""
    assert int(norm.num_batches_tracked) == n
    assert math.isclose(float(norm.running_mean), 5 * (1 - 0.9**n), rel_tol=1e-5, abs_tol=1e-6)
    assert math.isclose(float(norm.running_var), 0.9**n, rel_tol=1e-5)


CASES = {
    "staged": (elbo, {}),
    "replayed": (elbo, {"branching": True}),
    "enumerated": (elbo, {"latent": "credit"}),
    "side by side": (iwelbo(3), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_gradient_updates_running_statistics_once(case):
    norm = nn.BatchNorm1d(1)
    program, options = CASES[case]
    bound = vi.objective(program, *programs(norm, **options))
    params = bound.init(0, X)
    assert_updates(norm, 0)
    for i in range(3):
        bound.value_and_grad(i, params, X)
        bound.estimate(i, params, X)
        bound.explain(params, X)
    assert_updates(norm, 3)
    leaves = {name: x.detach().requires_grad_() for name, x in params.items()}
    torch.autograd.grad(bound.surrogate(0, leaves, X), list(leaves.values()), allow_unused=True)
    assert_updates(norm, 4)
    vi.posterior(bound, 0, params, X, draws=3)
    assert_updates(norm, 4)
    if case != "replayed":
        bound.check(0, params, X, budget=ppvi.Budget(draws=64), progress=False)
    assert_updates(norm, 4)
    norm.eval()
    bound.value_and_grad(0, params, X)
    assert_updates(norm, 4)


@pytest.mark.parametrize("training", [False, True])
def test_a_norm_is_smooth(training):
    norm = nn.BatchNorm1d(1).train(training)
    bound = vi.objective(elbo, *programs(norm))
    assert bound.prove(bound.init(0, X), X).verdict == "proved"


def test_steps_of_a_fit_and_of_svi_update_once():
    norm = nn.BatchNorm1d(1)
    bound = vi.objective(elbo, *programs(norm))
    vi.fit(bound, 0, X, num_steps=5, progress=False)
    assert_updates(norm, 5)
    pyro.clear_param_store()
    norm.reset_running_stats()
    svi = pyro.infer.SVI(*programs(norm), pyro.optim.Adam({"lr": 0.01}), bound.as_loss())
    for _ in range(4):
        svi.step(X)
    assert_updates(norm, 4)
    pyro.clear_param_store()


def test_values_are_those_of_pyro():
    """In training and in evaluation, after the same updates, with gradients through the statistics of the batch."""
    torch.manual_seed(0)
    x = torch.randn(8, 2)
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    twin = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    twin.load_state_dict(net.state_dict())

    def model(x):
        pyro.module("net", net)
        pyro.sample("y", dist.Normal(net(x)[:, 0], 1.0).to_event(1), obs=x[:, 0])

    def guide(x):
        pass

    bound = vi.objective(lambda p, q: p.log_density(q.simulate()), model, guide)
    params = bound.init(0, x)
    for training in (True, True, False):
        net.train(training)
        twin.train(training)
        truth = dist.Normal(twin(x)[:, 0], 1.0).log_prob(x[:, 0]).sum()
        slopes = torch.autograd.grad(truth, list(twin.parameters()))
        value, grads = bound.value_and_grad(0, params, x)
        assert torch.allclose(value, truth)
        for (name, _), slope in zip(twin.named_parameters(), slopes, strict=True):
            assert torch.allclose(grads[f"net$$${name}"], slope, atol=1e-5), name
    for (name, buffer), (_, other) in zip(net.named_buffers(), twin.named_buffers(), strict=True):
        assert torch.allclose(buffer, other), name


class Average(nn.Module):
    """A layer that subtracts a mean that it keeps, in place or by another tensor."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x):
        if self.training and self.in_place:
            self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
        elif self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x - self.mean


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("case", ["staged", "replayed", "side by side"])
def test_layers_of_ones_own(in_place, case):
    layer = Average(in_place)
    program, options = CASES[case]
    bound = vi.objective(program, *programs(layer, **options))
    params = bound.init(0, X)
    for i in range(3):
        bound.value_and_grad(i, params, X)
        bound.estimate(i, params, X)
    assert type(layer.mean) is torch.Tensor
    assert math.isclose(float(layer.mean), 5 * (1 - 0.9**3), rel_tol=1e-5)
    layer.eval()
    before = float(bound.estimate(0, params, X))
    layer.mean.fill_(4.0)
    assert float(bound.estimate(0, params, X)) != before
    layer.mean = torch.full((1,), 5 * (1 - 0.9**3))
    assert math.isclose(float(bound.estimate(0, params, X)), before, rel_tol=1e-5)


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm], ids=["old", "new"])
@pytest.mark.parametrize("particles", [1, 3])
def test_a_spectral_norm_goes_on_by_one_iteration(norm, particles):
    """Side by side as one run of PyTorch's own."""
    torch.manual_seed(0)
    net = norm(nn.Linear(3, 2))
    twin = copy.deepcopy(net)

    def program():
        pyro.module("net", net)
        pyro.sample("z", dist.Normal(net(torch.ones(3)), 1.0).to_event(1))

    bound = vi.objective(iwelbo(particles), program, program)
    params = bound.init(0)
    bound.value_and_grad(0, params)
    twin(torch.ones(3))
    twin(torch.ones(3))
    assert all(torch.allclose(x, y, atol=1e-5) for x, y in zip(net.buffers(), twin.buffers(), strict=True))
    pyro.clear_param_store()
