"""The static and the statistical check on Pyro."""

from unittest import mock

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import ppvi
import ppvi.pyro as vi
from ppvi import objectives
from ppvi.objective import estimator_of


def normal():
    loc, scale = pyro.param("loc", torch.tensor(0.3)), pyro.param("scale", torch.tensor(1.2), dist.constraints.positive)
    pyro.sample("z", dist.Normal(loc, scale))


def pair():
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor([0.3, -0.4])), 1.0).to_event(1))


def bit():
    pyro.sample("b", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.2))))


def gamma():
    pyro.sample("z", dist.Gamma(pyro.param("a", torch.tensor(1.5), dist.constraints.positive), 1.0))


def nothing():
    pass


def conjugate():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.StudentT(4.0, z, 1.0), obs=torch.tensor(0.7))


def of(guide, function):
    """An objective that is a function of the guide's draw."""
    site = "b" if guide is bit else "z"
    return (lambda p, q: function(q.simulate()[site]), nothing, guide)


def loc():
    return pyro.param("loc", torch.tensor(0.3))


def loc2():
    return pyro.param("loc", torch.tensor([0.3, -0.4]))


TABLE = torch.tensor([0.3, 1.4])
NET = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))


def networked():
    pyro.module("net", NET)
    z = pyro.sample("z", dist.Normal(NET(torch.ones(1, 2))[0, 0], 1.0))
    return NET(z * torch.ones(1, 2)).sum()


CORPUS = {
    # name: (program, model, guide), strategies, truth, verdict, by the mathematics
    "implicit gamma": (of(gamma, lambda z: torch.log1p(z) ** 2), {}, "unbiased", "proved"),
    "network with kinks": ((lambda p, q: q.simulate().returned, nothing, networked), {}, "unbiased", "proved"),
    "held mean": (of(pair, lambda z: (z - z.mean().detach()).sum() + loc2().sum()), {}, "biased", "biased"),
    "layers": (of(pair, lambda z: nn.functional.elu(nn.functional.layer_norm(z, (2,))).sum()), {}, "unbiased", "proved"),
    "pieces that meet": (of(normal, lambda z: torch.where(z > 1.0, 2.0 * z - 1.0, z)), {}, "unbiased", "proved"),
    "a table by score": (of(bit, lambda b: TABLE[b.long()]), {"b": ppvi.LeaveOneOut(2)}, "unbiased", "proved"),
    "division with rounding": (of(normal, lambda z: torch.div(z, 0.7, rounding_mode="floor")), {}, "biased", "biased"),
    "detached": (of(normal, lambda z: z.detach() * 2.0 + loc()), {}, "biased", "biased"),
    "logarithm of an estimate": (
        (lambda p, q: torch.log(ppvi.minibatch(lambda x: x.sum(), torch.arange(1.0, 9.0), 3) * q.simulate()["z"].exp()), nothing, normal),
        {}, "biased", "biased",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CORPUS)
def test_verdicts(name):
    program, strategies, _, verdict = CORPUS[name]
    bound = vi.objective(*program, strategies=strategies)
    assert bound.prove(bound.init(0)).verdict == verdict, str(bound.prove(bound.init(0)))


def test_no_bias_is_proved_and_no_trap_called_biased():
    for name, (_, _, truth, verdict) in CORPUS.items():
        assert (verdict.startswith("biased")) == (truth == "biased"), name


# What is measured ---------------------------------------------------------------------------------------------------------


def chain():
    z = pyro.sample("z", dist.Bernoulli(logits=pyro.param("a", torch.tensor(0.4))))
    pyro.sample("w", dist.Bernoulli(logits=pyro.param("b", torch.tensor(-0.3)) + z))


def score(p, q):
    z = q.simulate()
    return (1.0 + z["z"] + 2.0 * z["w"]) ** 2 / 10


def test_a_right_gradient_passes():
    """Against paths, and against the enumerated gradient for every outcome."""
    strategies = {"z": ppvi.LeaveOneOut(4), "w": ppvi.Enumerate()}
    bound = vi.objective(score, nothing, chain, strategies=strategies)
    report = bound.check(0, bound.init(0), delta=0.5, budget=ppvi.Budget(60, 5000), progress=False)
    assert report.verdict == "unbiased within delta", str(report)
    assert {m.point for m in report.measurements} >= {"given", "far", "given, every outcome"}


@pytest.mark.parametrize("against", ["path", "exact"])
def test_a_planted_bug_is_found(against):
    """The score of the second site, twice."""
    wrong = ppvi.Reinforce.estimate

    def twice(self, site, k):
        return wrong(self, site, k).scale(site.log_prob - site.ops.stop_gradient(site.log_prob))

    bound = vi.objective(score, nothing, chain, strategies={"z": ppvi.Enumerate(), "w": ppvi.Reinforce()})
    params = bound.init(0)
    with mock.patch.object(ppvi.Reinforce, "estimate", twice):
        report = bound.check(0, params, delta=0.1, against=against, progress=False)
    assert report.verdict == "biased", str(report)
    with pytest.raises(ppvi.BiasError):
        report.raise_if_biased()


def test_constraints_are_respected():
    bound = vi.objective(objectives.elbo, conjugate, normal)
    report = bound.check(0, bound.init(0), delta=0.3, budget=ppvi.Budget(60, 5000), progress=False)
    assert report.verdict == "unbiased within delta", str(report)


def test_frozen_randomness_is_found():
    bound = vi.objective(objectives.elbo, conjugate, normal)
    params = bound.init(0)
    frozen = bound.value_and_grad(0, params)
    with mock.patch.object(estimator_of(bound), "value_and_grad", return_value=frozen):
        assert "frozen" in str(bound.check(0, params, progress=False))


def test_check_asks_for_what_there_is():
    bound = vi.objective(objectives.elbo, conjugate, normal)
    with pytest.raises(ppvi.ProgramError, match="each of against must be"):
        bound.check(0, bound.init(0), against="paths")
