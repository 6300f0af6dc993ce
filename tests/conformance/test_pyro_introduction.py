"""Twins of Pyro's introduction to stochastic variational inference."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints

from tests.conformance.twins import Twin, on_pyro


def coin():
    """SVI Part I, with one site for each datum."""
    data = torch.cat([torch.ones(6), torch.zeros(4)])

    def model(data):
        f = pyro.sample("latent_fairness", dist.Beta(torch.tensor(10.0), torch.tensor(10.0)))
        for i in range(len(data)):
            pyro.sample(f"obs_{i}", dist.Bernoulli(f), obs=data[i])

    def guide(data):
        alpha = pyro.param("alpha_q", torch.tensor(15.0), constraint=constraints.positive)
        beta = pyro.param("beta_q", torch.tensor(15.0), constraint=constraints.positive)
        pyro.sample("latent_fairness", dist.Beta(alpha, beta))

    return model, guide, (data,)


TWINS = [Twin("SVI Part I: An Introduction to Stochastic Variational Inference in Pyro", coin)]


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.make.__name__)
def test_a_twin_has_the_means_of_the_library(twin):
    assert on_pyro(twin) == []
