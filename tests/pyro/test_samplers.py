"""Distributions whose class has a sampler of its own: drawn by that, or refused, and never by another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.score_parts import ScoreParts
from pyro.distributions.testing.rejection_gamma import RejectionGamma, ShapeAugmentedBeta, ShapeAugmentedGamma
from pyro.ops.tensor_utils import safe_cholesky

import ppvi
import ppvi.pyro as vi
from ppvi.objective import estimator_of

A = torch.tensor([2.5, 1.7])


@pytest.fixture(autouse=True)
def _axes_of_no_plate() -> Any:
    with pyro.validation_enabled(False):
        yield


class ByScore(dist.Gamma):
    """A sampler whose draws have no path at all, as those of a rejection sampler have only part of one."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> ByScore:
        return ByScore(self.concentration.expand(batch_shape), self.rate.expand(batch_shape))

    def rsample(self, sample_shape: Any = ()) -> torch.Tensor:
        return super().rsample(sample_shape).detach()

    def score_parts(self, x: torch.Tensor) -> Any:
        log_prob = self.log_prob(x)
        return ScoreParts(log_prob, log_prob, log_prob)


class Shifted(dist.TransformedDistribution):
    """A sampler that goes on with what the transforms give."""

    def rsample(self, sample_shape: Any = ()) -> torch.Tensor:
        return super().rsample(sample_shape) + 10.0


class Unsaid(dist.Normal):
    """A class that does not say what its support is."""

    @property
    def support(self) -> Any:  # type: ignore[override]
        raise NotImplementedError


def total(make: Any, strategies: Any = None, replayed: bool = False) -> Any:
    """E sum v."""

    def program() -> None:
        v = pyro.sample("v", make(pyro.param("a", A)))
        if replayed:
            v.sum().item()

    return vi.objective(lambda p, q: q.simulate()["v"].sum(), program, program, strategies=strategies)


def gradients(bound: Any, n: int) -> np.ndarray:
    params = bound.init(0)
    return np.stack([bound.value_and_grad(seed, params)[1]["a"].numpy() for seed in range(n)])


REFUSED = {
    "one-hot": (lambda a: dist.RelaxedOneHotCategoricalStraightThrough(torch.tensor(0.5), logits=a), "StraightThrough()"),
    "coin": (lambda a: dist.RelaxedBernoulliStraightThrough(torch.tensor(0.5), logits=a).to_event(1), "StraightThrough()"),
    "rejector": (lambda a: dist.Rejector(dist.Exponential(a).rsample, torch.zeros_like, 0 * a, batch_shape=(2,), event_shape=()), "Gamma"),
    "Gamma": (lambda a: RejectionGamma(a, torch.ones(2)), "Gamma"),
    "augmented": (lambda a: ShapeAugmentedGamma(a, torch.ones(2)), "Gamma"),
    "inside another": (lambda a: ShapeAugmentedBeta(a[0], a[1]), "Gamma"),
}  # fmt: skip


@pytest.mark.parametrize("replayed", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_samplers_that_would_be_wrong_are_refused(case, replayed):
    make, remedy = REFUSED[case]
    with pytest.raises(ppvi.StrategyError, match=r"site 'v' ~ \w+ at .*test_samplers") as refusal:
        total(make, replayed=replayed).estimate(0, {"a": A})
    assert remedy in str(refusal.value)


def test_straight_through_of_this_library_gives_what_those_do():
    """Values are one-hot; the derivative of E w.z, z ~ softmax(a), is that of the mean, since w.z is linear."""
    w = torch.tensor([1.0, 3.0])

    def program() -> None:
        pyro.sample("v", dist.OneHotCategorical(logits=pyro.param("a", A)))

    bound = vi.objective(
        lambda p, q: (w * q.simulate()["v"]).sum(),
        program,
        program,
        strategies={"v": ppvi.strategies.StraightThrough()},
    )
    mean = torch.softmax(A, 0)
    assert np.allclose(gradients(bound, 3), mean * (w - (w * mean).sum()), atol=1e-6)
    assert {round(float(bound.estimate(seed, bound.init(0))), 5) for seed in range(20)} == {1.0, 3.0}


def test_a_sampler_that_needs_its_score_is_not_followed_by_the_path():
    """E sum v = sum a. False alarms: below 1e-8 at six standard errors, of about 0.3."""
    bound = total(lambda a: ByScore(a, torch.ones(2)))
    grads = gradients(bound, 200)
    assert (abs(grads.mean(0) - 1) < 6 * grads.std(0) / 200**0.5).all()
    assert grads.std(0).min() > 0.1
    with pytest.raises(ppvi.StrategyError, match=r"ByScore has no reparameterised sampler; Reinforce\(\) or"):
        total(lambda a: ByScore(a, torch.ones(2)), {"v": ppvi.strategies.Reparam()}).init(0)


@pytest.mark.parametrize("strategy", [ppvi.strategies.Reparam(), ppvi.strategies.Reinforce()])
def test_what_a_class_does_to_its_draws_is_done(strategy):
    """A Beta of small concentrations rounds to its ends, where AffineBeta puts no draw."""
    bound = total(lambda a: dist.AffineBeta(a[:1] / 1000, a[1:] / 1000, torch.tensor(2.0), torch.tensor(3.0)))
    draws = estimator_of(bound).many(0, bound.init(0), (), {}, 200, lambda p, q: q.simulate()["v"])
    assert 2 < draws.min() < 2.001
    assert 4.999 < draws.max() < 5


def test_draws_of_a_class_that_goes_on_with_its_transforms():
    """v = exp(a / 10 + e) + 10 at the e that it had; dv/da = (v - 10) / 10."""
    bound = total(lambda a: Shifted(dist.Normal(a / 10, 1.0), [dist.transforms.ExpTransform()]))
    params = bound.init(0)
    value, grads = bound.value_and_grad(0, params)
    assert value > 20
    assert np.isclose(grads["a"].sum() * 10, value - 20, rtol=1e-5)


def test_a_class_that_does_not_say_its_support():
    bound = total(lambda a: Unsaid(a, 1.0))
    assert np.allclose(gradients(bound, 2), 1)
    elbo = vi.objective(
        ppvi.objectives.elbo, lambda: pyro.sample("v", Unsaid(0.0, 1.0)), lambda: pyro.sample("v", Unsaid(0.0, 1.0))
    )
    assert abs(float(elbo.estimate(0, {}))) < 1e-6


@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_tensors_in_factors_of_a_distribution(n):
    """x_t = a x_t-1 + e, z_t = x_t + e', for n independent coordinates: E |z|^2 = n sum_t (1 + var x_t), var x_t = a^2 var x_t-1 + 1.

    False alarms: below 1e-8 at six standard errors, of about a tenth.
    """
    eye, noise = torch.eye(n), dist.MultivariateNormal(torch.zeros(n), torch.eye(n))

    def program() -> None:
        pyro.sample(
            "v", dist.GaussianHMM(noise, pyro.param("a", torch.tensor(0.5)) * eye, noise, eye, noise, duration=2)
        )

    bound = vi.objective(
        lambda p, q: ppvi.replicate(2, lambda: (q.simulate()["v"] ** 2).sum()).mean(), program, program
    )
    params = bound.init(0)
    found = [bound.value_and_grad(seed, params) for seed in range(300)]
    values, grads = (np.array([float(x) for x in xs]) for xs in ([v for v, _ in found], [g["a"] for _, g in found]))
    a = 0.5
    variance, slope = 2 + a**2 + a**2 * (1 + a**2) + 2, 4 * a + 4 * a**3
    assert abs(values.mean() - n * variance) < 6 * values.std() / 300**0.5
    assert abs(grads.mean() - n * slope) < 6 * grads.std() / 300**0.5


def written(a: torch.Tensor) -> torch.Tensor:
    """The square of a + 1, of which autograd does not see the 1 being added."""
    x = a.clone()
    x.data.add_(1.0)
    return x**2


PAST_AUTOGRAD = {
    "read": (lambda a: a.data * a, lambda a: a),
    "written": (written, lambda a: 2 * (a + 1)),
    "Cholesky factor": (lambda a: safe_cholesky(a.exp() * torch.eye(2)).sum(), lambda a: torch.exp(a / 2)),
}
"""Functions that read or write `.data`, and the derivatives that autograd has for them."""


@pytest.mark.parametrize("particles", [None, 2])
@pytest.mark.parametrize("case", PAST_AUTOGRAD)
def test_what_a_program_does_past_autograd(case, particles):
    function, derivative = PAST_AUTOGRAD[case]

    def program() -> None:
        pyro.sample("v", dist.Delta(pyro.param("a", torch.tensor(0.3))))

    def mean(p: Any, q: Any) -> Any:
        run = lambda: function(q.simulate()["v"])  # noqa: E731
        return run() if particles is None else ppvi.replicate(particles, run).mean()

    bound = vi.objective(mean, program, program)
    value, grads = bound.value_and_grad(0, bound.init(0))
    assert np.isclose(value, function(torch.tensor(0.3)), rtol=1e-5)
    assert np.isclose(grads["a"], derivative(torch.tensor(0.3)), rtol=1e-5)
