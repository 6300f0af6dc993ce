"""Several draws of one site, as `config_enumerate(num_samples=n)` asks for them."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate

import ppvi.pyro as vi
from ppvi import StrategyError
from ppvi.objectives import elbo
from ppvi.strategies import Enumerate, LeaveOneOut, Strategy, Stratified

X = torch.tensor([0.5, 2.0, 3.5])


def model() -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(loc + 3 * z, 1.0), obs=X)


def guide() -> None:
    pyro.sample("loc", dist.Normal(pyro.param("mean", torch.tensor(0.2)), 0.7))
    with pyro.plate("data", 3):
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", torch.zeros(3))))


def strategies(guide: Any) -> dict[str, Strategy | str]:
    bound = vi.objective(elbo, model, guide)
    return {site.name: site.strategy for site in bound.explain(bound.init(0)).sites}


def test_by_their_paths_and_by_their_scores():
    asked = config_enumerate(guide, default="parallel", num_samples=3, expand=False)
    assert strategies(asked) == {"loc": str(Stratified(3)), "z": str(LeaveOneOut(3))}
    ours = vi.objective(elbo, model, guide, strategies={"loc": Stratified(3), "z": LeaveOneOut(3)})
    theirs = vi.objective(elbo, model, asked)
    params = ours.init(0)
    (value, grads), (other, slopes) = (bound.value_and_grad(7, params) for bound in (ours, theirs))
    assert float(value) == float(other)
    assert all(torch.equal(grads[name], slopes[name]) for name in grads)


def test_more_of_them_than_a_nest_of_sums_may_have():
    """The number is the user's: the limit is on what multiplies it."""
    bound = vi.objective(elbo, model, guide, strategies={"loc": Stratified(5000), "z": Enumerate()})
    with pytest.raises(StrategyError, match="nests in other enumerated sites"):
        bound.explain(bound.init(0))
    alone = vi.objective(elbo, model, guide, strategies={"loc": Stratified(5000), "z": LeaveOneOut()})
    assert float(alone.estimate(0, alone.init(0))) < 0


def test_one_is_none():
    assert strategies(config_enumerate(guide, default="parallel", num_samples=1)) == strategies(guide)


def gamma() -> None:
    pyro.sample("rate", dist.Gamma(pyro.param("a", torch.tensor(2.0)), 1.0))


@pytest.mark.parametrize(
    ("infer", "said"),
    [
        ({"enumerate": "parallel", "num_samples": 4}, "ppvi.replicate"),
        ({"enumerate": "parallel", "num_samples": 0}, "num_samples"),
        ({"enumerate": "parallell"}, "'parallel' or 'sequential'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(infer: Any, said: str):
    def asked() -> None:
        pyro.sample("rate", dist.Gamma(pyro.param("a", torch.tensor(2.0)), 1.0), infer=infer)

    with pytest.raises(StrategyError, match=said) as error:
        vi.objective(elbo, gamma, asked).init(0)
    assert "'rate'" in str(error.value)
