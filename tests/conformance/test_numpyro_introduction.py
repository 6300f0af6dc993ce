"""Twins of NumPyro's introduction to stochastic variational inference."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from ppvi.objectives import elbo
from tests.conformance.twins import Twin, on_numpyro


def coin():
    """Stochastic Variational Inference, the Beta guide of a coin's bias."""

    def model(data):
        f = numpyro.sample("latent_fairness", dist.Beta(10, 10))
        with numpyro.plate("N", len(data)):
            numpyro.sample("obs", dist.Bernoulli(f), obs=data)

    def guide(data):
        alpha = numpyro.param("alpha_q", 15.0, constraint=constraints.positive)
        beta = numpyro.param("beta_q", lambda key: 15.0 + jnp.zeros(()), constraint=constraints.positive)
        numpyro.sample("latent_fairness", dist.Beta(alpha, beta))

    return model, guide, (jnp.array([1.0] * 6 + [0.0] * 4),)


TWINS = [Twin("Stochastic Variational Inference", coin)]


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.make.__name__)
def test_a_twin_has_the_means_of_the_library(twin):
    assert on_numpyro(twin) == []


def test_another_objective_is_seen():
    def more(p, q):
        return 1.1 * elbo(p, q)

    assert on_numpyro(Twin("", coin, objective=more)) != []
