"""Guides made of effects, which run the model and put their own distributions in its latent sites' places."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import (
    AutoHierarchicalNormalMessenger,
    AutoNormal,
    AutoNormalMessenger,
    AutoRegressiveMessenger,
)
from pyro.infer.autoguide.initialization import init_to_value

import ppvi
import ppvi.pyro as vi
from ppvi.objectives import elbo

X = torch.tensor([3.0, 4.0, 5.0])


def hierarchy():
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = pyro.sample("tau", dist.LogNormal(0.0, 0.5))
    with pyro.plate("rows", 3):
        t = pyro.sample("t", dist.Normal(mu, tau))
        pyro.deterministic("twice", 2 * t)
        pyro.sample("x", dist.Normal(t, 1.0), obs=X)
    pyro.factor("f", -mu.abs())


class Custom(AutoNormalMessenger):
    """One site by another distribution, one by a point."""

    def get_posterior(self, name, prior):
        if name == "t":
            return dist.Normal(self.upstream_value("mu") + pyro.param("shift", torch.ones(3)), 0.3)
        if name == "tau":
            return pyro.param("tau0", torch.tensor(1.2), constraint=dist.constraints.positive)
        return super().get_posterior(name, prior)


def wrapped(model):
    return poutine.scale(AutoNormalMessenger(model), 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [AutoNormalMessenger, AutoHierarchicalNormalMessenger, AutoRegressiveMessenger, Custom, wrapped],
    ids=lambda make: make.__name__,
)
def test_the_bound_is_pyros(make):
    """At the same parameters, by means of draws; the data and the factor that the guide runs through are the model's alone."""
    guide = make(hierarchy)
    bound = vi.objective(ppvi.objectives.elbo, hierarchy, guide)
    params = bound.init(0)
    ours = torch.stack([bound.estimate(seed, params) for seed in range(200)])
    pyro.set_rng_seed(0)
    theirs = torch.tensor([-Trace_ELBO().loss(hierarchy, guide) for _ in range(200)])
    error = ((ours.var() + theirs.var()) / 200) ** 0.5
    assert abs(ours.mean() - theirs.mean()) < 5 * error
    assert ours.mean() < -20, "the likelihood counts"


def test_everything_else_takes_such_a_guide():
    """z ~ N(0, 1) and x_i ~ N(z, 1): the posterior is N(sum x / 4, 1/4), and the guide finds it."""

    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide = AutoNormalMessenger(model)
    bound = vi.objective(ppvi.objectives.iwelbo(3), model, guide)
    options = {"num_steps": 300, "progress": False, "optimizer": lambda leaves: torch.optim.Adam(leaves, lr=0.05)}
    fit = vi.fit(bound, 0, X, params=bound.init(0, X), **options)
    z = fit.posterior(1000).posterior["z"].values
    assert abs(z.mean() - 3.0) < 0.15
    assert abs(z.std() - 0.5) < 0.2
    evidence = -1.5 * math.log(2 * math.pi) - 0.5 * math.log(4) - float((X**2).sum() - X.sum() ** 2 / 4) / 2
    assert abs(float(torch.stack([bound.estimate(i, fit.params, X) for i in range(30)]).mean()) - evidence) < 0.1
    loss = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), bound.as_loss()).step(X)
    assert abs(loss + evidence) < 1.0


def test_what_an_ordinary_guide_observes_is_its_density():
    """As it is for Pyro's losses: a factor in a guide is how a density is corrected."""

    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide():
        z = pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.3)), 1.0))
        pyro.factor("f", -(z**2), has_rsample=True)

    bound = vi.objective(ppvi.objectives.elbo, model, guide)
    params = bound.init(0)
    values = torch.stack([bound.estimate(seed, params) for seed in range(300)])
    want = -(0.3**2) / 2 + (1 + 0.3**2)  # E log p - log q + z^2
    assert abs(values.mean() - want) < 5 * values.std() / 300**0.5


def test_parameters_that_a_handler_hides_are_constants():
    """A guide that has been trained, blocked, beside a model that is to be trained: as Pyro's SVI leaves it."""

    def model():
        z = pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(1.0)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.5))

    guide = AutoNormal(
        poutine.block(model, hide_types=["param"]),
        init_loc_fn=init_to_value(values={"z": torch.tensor(0.3)}),
        init_scale=1e-8,
    )
    bound = vi.objective(elbo, model, poutine.block(guide, hide_types=["param"]))
    params = bound.init(0)
    assert set(params) == {"a"}
    assert float(bound.value_and_grad(0, params)[1]["a"]) == pytest.approx(-0.7, abs=1e-6)
