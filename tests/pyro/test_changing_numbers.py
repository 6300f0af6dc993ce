"""Floats among the arguments that change at every step, as the weight of an annealing does."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import ppvi.pyro as vi
from ppvi.objectives import elbo
from ppvi.pyro import _engine

X = torch.tensor([0.3, -1.2, 0.7])


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that a program is staged."""
    times: list[int] = []
    native = _engine.stage

    def stage(*args: Any, **kwargs: Any) -> Any:
        times.append(1)
        return native(*args, **kwargs)

    monkeypatch.setattr(_engine, "stage", stage)
    return times


def guide(x: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.4)), 0.5))


def annealed(x: torch.Tensor, weight: float) -> None:
    with poutine.scale(scale=weight):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def tempered(x: torch.Tensor, config: dict[str, float]) -> None:
    """Of two floats the one that is read in Python does not change."""
    z = pyro.sample("z", dist.Normal(0.0, math.sqrt(config["sd"])))
    pyro.factor("cold", -(z**2) * config["cold"] ** 0.5)


def steep(x: torch.Tensor, weight: float) -> None:
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.factor("tilt", 3 * z if weight > 0.5 else -z * weight)


def values(model: Any, calls: list[Any], staged: list[int]) -> tuple[list[tuple[float, float]], list[int]]:
    """Values and gradients at these arguments, and the number of stagings after each."""
    bound = vi.objective(elbo, model, guide)
    params = bound.init(0, X, calls[0])
    found, counts = [], []
    for argument in calls:
        value, grads = bound.value_and_grad(5, params, X, argument)
        found.append((float(value), float(grads["loc"])))
        counts.append(len(staged))
    return found, counts


def alone(model: Any, calls: list[Any], staged: list[int]) -> list[tuple[float, float]]:
    """The same by an objective of its own for each call, whose floats never change."""
    return [values(model, [argument], staged)[0][0] for argument in calls]


WEIGHTS = [0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize(
    ("model", "calls"),
    [
        (annealed, WEIGHTS),
        (tempered, [{"sd": 1.0, "cold": weight} for weight in WEIGHTS]),
    ],
)
def test_are_staged_once_more_and_no_more(model: Any, calls: list[Any], staged: list[int]):
    found, counts = values(model, calls, staged)
    torch.testing.assert_close(found, alone(model, calls, staged), rtol=2e-6, atol=2e-6)
    assert counts[:2] == [1, 2]
    assert set(counts[2:]) == {2}


def test_a_float_that_is_branched_on_is_a_constant(staged: list[int]):
    calls = [0.2, 0.9, 0.4, 0.8, 0.2]
    found, counts = values(steep, calls, staged)
    torch.testing.assert_close(found, alone(steep, calls, staged), rtol=1e-6, atol=1e-6)
    assert counts[-1] == counts[-2]  # the number of the first call, which is still known


def test_in_other_precisions_it_is_a_constant(staged: list[int]):
    """A tensor of float32 would lose digits of a float that multiplies one of float64."""
    bound = vi.objective(elbo, annealed, guide)
    x = X.double()
    params = bound.init(0, x, 0.1)
    found = [float(bound.estimate(5, params, x, weight)) for weight in (0.1, 0.3)]
    own = [float(vi.objective(elbo, annealed, guide).estimate(5, params, x, weight)) for weight in (0.1, 0.3)]
    assert found == own


def test_in_a_fit(staged: list[int]):
    """The schedule of a deep Markov model's example: a weight that grows with the step."""
    batches = ((X, min(1.0, 0.01 + step / 20)) for step in range(40))
    bound = vi.objective(elbo, annealed, guide)
    vi.fit(bound, 0, batches=batches, num_steps=40, optimizer=0.05, progress=False)
    assert len(staged) <= 3


def test_the_gradient_is_that_of_each_weight():
    """By hand: z = loc + e / 2, and the mean of d/dloc is -weight loc + sum(x - loc), with a variance of (3 + weight)^2 / 4."""
    weights = [0.25, 0.5, 0.75, 1.0]
    bound = vi.objective(elbo, annealed, guide)
    params = bound.init(0, X, weights[0])
    for weight in weights:
        grads = [float(bound.value_and_grad(seed, params, X, weight)[1]["loc"]) for seed in range(400)]
        exact = -weight * 0.4 + float((X - 0.4).sum())
        assert abs(sum(grads) / 400 - exact) < 5 * (3 + weight) / 2 / 20
