"""Flows as guides of programs that are replayed: as in Pyro's own loss where nothing that is drawn is read."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import (
    affine_autoregressive,
    affine_coupling,
    batchnorm,
    planar,
    radial,
    spline_coupling,
)
from pyro.infer import SVI, Trace_ELBO

import ppvi
import ppvi.pyro as vi
from ppvi.objectives import elbo

Y = torch.tensor([0.3, -1.0, 2.1])
FLOWS = {
    "autoregressive": lambda: [affine_autoregressive(2)],
    "autoregressive with batch statistics": lambda: [affine_autoregressive(2), batchnorm(2)],
    "coupling": lambda: [affine_coupling(2)],
    "splines": lambda: [spline_coupling(2, count_bins=4)],
    "planar": lambda: [planar(2)],
    "two without an inverse": lambda: [planar(2), radial(2)],
    "one of two without an inverse": lambda: [planar(2), affine_coupling(2)],
    "composed": lambda: [dist.transforms.ComposeTransformModule([planar(2), affine_coupling(2), planar(2)])],
}


def guided(flow: Any) -> Any:
    def guide(y: torch.Tensor) -> None:
        for i, transform in enumerate(flow):
            pyro.module(f"flow_{i}", transform)
        base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
        pyro.sample("z", dist.TransformedDistribution(base, flow))

    return guide


def given(y: torch.Tensor, z: torch.Tensor) -> None:
    with pyro.plate("rows", 3):
        pyro.sample("y", dist.Normal(z.sum(), 1.0), obs=y)


def reads_data(y: torch.Tensor) -> None:
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    given(y, z * torch.tensor(y.tolist()).abs().max() if float(y.sum()) > 0.0 else z)


def reads_a_draw(y: torch.Tensor) -> None:
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    given(y, 2.0 * z if float(z.detach()[0]) > 0.0 else z)


def gradient(loss: Any, guide: Any, model: Any = reads_data) -> dict[str, np.ndarray]:
    """Two gradients of a loss by Pyro's SVI, and the losses."""
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.0}), loss)
    pyro.set_rng_seed(1)
    svi.step(Y)  # the draws of which move batch statistics
    pyro.set_rng_seed(1)
    values = [float(torch.as_tensor(svi.loss_and_grads(model, guide, Y)).detach()) for _ in range(2)]
    leaves = pyro.get_param_store().named_parameters()
    found = {name: x.grad.numpy().copy() for name, x in leaves if x.grad is not None}
    return {"the loss": np.array(values), **found}


@pytest.mark.parametrize("strategy", [None, ppvi.Reparam()], ids=["by default", "Reparam()"])
@pytest.mark.parametrize("name", FLOWS)
def test_a_replayed_flow_has_the_gradient_that_pyro_gives_it(name, strategy):
    pyro.set_rng_seed(0)
    flow, chosen = FLOWS[name](), {} if strategy is None else {"z": strategy}
    guide, other = guided(flow), guided(copy.deepcopy(flow))
    mine = gradient(vi.objective(elbo, reads_data, guide, strategies=chosen).as_loss(), guide)
    pyro.clear_param_store()
    theirs = gradient(Trace_ELBO(), other)
    assert mine.keys() == theirs.keys()
    for leaf, grad in theirs.items():
        np.testing.assert_allclose(mine[leaf], grad, rtol=1e-3, atol=1e-4, err_msg=leaf)


@pytest.mark.parametrize("name", ["autoregressive", "planar"])
def test_a_named_path_sees_no_read_as_in_pyro(name):
    pyro.set_rng_seed(0)
    guide = guided(FLOWS[name]())
    bound = vi.objective(elbo, reads_a_draw, guide, strategies={"z": ppvi.Reparam()})
    mine = gradient(bound.as_loss(), guide, reads_a_draw)
    pyro.clear_param_store()
    theirs = gradient(Trace_ELBO(), guide, reads_a_draw)
    for leaf, grad in theirs.items():
        np.testing.assert_allclose(mine[leaf], grad, rtol=1e-3, atol=1e-4, err_msg=leaf)


@pytest.mark.parametrize(
    ("strategies", "why"),
    [({}, r"it is read, compared or rounded at .*test_flows.py:\d+"), ({"z": ppvi.Reinforce()}, r"by Reinforce\(\)")],
)
@pytest.mark.parametrize("name", ["planar", "one of two without an inverse"])
def test_what_is_weighed_by_its_density_needs_an_inverse(name, strategies, why):
    guide = guided(FLOWS[name]())

    def model(y: torch.Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        given(y, 2.0 * z if z[0] > 0.0 else z)

    bound = vi.objective(elbo, model, guide, strategies=strategies)
    said = rf"'z' ~ TransformedDistribution at .*test_flows.py:\d+: {why}.* no inverse .*Reparam\(\)"
    with pytest.raises(ppvi.StrategyError, match=said):
        SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), bound.as_loss()).step(Y)


def test_a_density_that_a_later_rerun_asks_for():
    """Of a draw that another site's strategy runs the program again with: what may stand there is said."""
    flow = planar(2)

    def model(y: torch.Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        b = pyro.sample("b", dist.Bernoulli(0.5))
        given(y, 2.0 * z if b else z)

    def guide(y: torch.Tensor) -> None:
        guided([flow])(y)
        pyro.sample("b", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.2))))

    def bound(strategy: Any) -> Any:
        return vi.objective(elbo, model, guide, strategies={"b": strategy})

    with pytest.raises(ppvi.ProgramError, match=r"strategies of one run, such as Reparam\(\) and Reinforce\(\)"):
        bound(ppvi.Enumerate()).value_and_grad(0, bound(ppvi.Enumerate()).init(0, Y), Y)
    value, _ = bound(ppvi.Reinforce()).value_and_grad(0, bound(ppvi.Reinforce()).init(0, Y), Y)
    assert np.isfinite(float(value))


def test_two_losses_before_one_backward_pass():
    """Masks of an autoregressive network are buffers, which a loss leaves as they are."""
    pyro.set_rng_seed(0)
    guide = guided(FLOWS["autoregressive"]())
    loss = vi.objective(elbo, reads_data, guide).as_loss()
    loss.differentiable_loss(reads_data, guide, Y)
    leaves = list(dict(pyro.get_param_store().named_parameters()).values())
    pyro.set_rng_seed(1)
    both = torch.autograd.grad(
        loss.differentiable_loss(reads_data, guide, Y) + loss.differentiable_loss(reads_data, guide, Y), leaves
    )
    pyro.set_rng_seed(1)
    one, other = (torch.autograd.grad(loss.differentiable_loss(reads_data, guide, Y), leaves) for _ in range(2))
    for total, x, y in zip(both, one, other, strict=True):
        torch.testing.assert_close(total, x + y)
