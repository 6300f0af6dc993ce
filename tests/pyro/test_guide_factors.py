"""`pyro.factor` in a guide: a term of its density, or that of a draw which is no site and has a score (`has_rsample=False`)."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppvi.pyro as vi
from ppvi import ProgramError
from ppvi.objectives import elbo
from ppvi.strategies import Enumerate, LeaveOneOut

UNIT = dist.constraints.unit_interval


def model():
    z = pyro.sample("z", dist.Bernoulli(0.4))
    pyro.sample("y", dist.Normal(1.5 * z - 0.5, 1.0), obs=torch.tensor(1.5))


def guide():
    p, m = pyro.param("p", torch.tensor(0.3), constraint=UNIT), pyro.param("m", torch.tensor(0.7))
    x = torch.bernoulli(p.detach())
    pyro.factor("x", x * p.log() + (1 - x) * (-p).log1p(), has_rsample=False)
    pyro.sample("z", dist.Bernoulli(logits=m * (2 * x - 1)))


def exact(p: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """The sum over x and z."""
    x, z = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0, 1.0]])
    log_q = dist.Bernoulli(p).log_prob(x) + dist.Bernoulli(logits=m * (2 * x - 1)).log_prob(z)
    log_p = dist.Bernoulli(0.4).log_prob(z) + dist.Normal(1.5 * z - 0.5, 1.0).log_prob(torch.tensor(1.5))
    return (log_q.exp() * (log_p - log_q)).sum()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [LeaveOneOut(), Enumerate()], ids=str)
def test_score_of_a_draw_that_is_no_site(strategy):
    """Runs that follow for other values of z have the x that z depends on."""
    bound = vi.objective(elbo, model, guide, strategies={"z": strategy})
    params = bound.init(0)
    given = [x.detach().clone().requires_grad_() for x in (params["p"], params["m"])]
    value = exact(*given)
    true = np.array([float(x.detach()) for x in (value, *torch.autograd.grad(value, given))])
    estimates = (bound.value_and_grad(seed, params) for seed in range(400))
    found = np.array([(float(value), *(float(grads[name]) for name in ("p", "m"))) for value, grads in estimates])
    assert (abs(found.mean(0) - true) < 5 * found.std(0) / math.sqrt(len(found))).all()


def test_term_of_a_density_without_a_draw_of_its_own():
    """What no draw decides has no score: the gradient is that of the loss."""

    def guide():
        z = pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.3)), 1.0))
        pyro.factor("penalty", pyro.param("a", torch.tensor(0.5)) * torch.ones(()), has_rsample=False)
        return z

    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    bound = vi.objective(elbo, model, guide)
    _, grads = bound.value_and_grad(0, bound.init(0))
    assert float(grads["a"]) == -1.0


def test_must_say_which_of_both_it_is():
    def guide():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("penalty", -(z**2))

    with pytest.raises(ProgramError, match=r"'penalty' of the guide at .*has_rsample="):
        vi.objective(elbo, model, guide).init(0)
