"""Draws of distributions with axes of their own, in a plate and side by side with other runs, have the moments that are known.

False alarms: below 1e-6 for all of them at six standard errors, of which the largest is a fiftieth of the scale.
"""

from __future__ import annotations

import enum
import logging
from typing import Any

import numpy
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch.distributions.transforms import AffineTransform

import ppvi
import ppvi.pyro as vi
from ppvi.objective import estimator_of

LOC = torch.tensor([0.3, -0.2, 1.0])
TRIL = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.8, 0.0], [-0.3, 0.2, 0.6]])
COV = TRIL @ TRIL.T
LOCS, TRILS = torch.stack([LOC * i for i in range(4)]), torch.stack([TRIL * (1 + i) for i in range(4)])
FACTOR, DIAGONAL = torch.tensor([[1.0], [0.5], [-0.4]]), torch.tensor([0.5, 0.3, 0.2])
ALPHA = torch.tensor([1.0, 2.0, 3.0])
PROBS = torch.tensor([0.3, 0.7])


class Rotated(dist.TorchDistribution):
    """A distribution that knows nothing of batches, and leaves `expand` to Pyro."""

    arg_constraints = {"tril": constraints.lower_cholesky}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, tril: torch.Tensor):
        self.tril = tril
        super().__init__((), tril.shape[:1], validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> torch.Tensor:
        return torch.randn(*sample_shape, 3) @ self.tril.T

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return dist.MultivariateNormal(torch.zeros(3), scale_tril=self.tril).log_prob(value)


class Side(enum.Enum):
    LEFT = enum.auto()


class Owned(Rotated):
    """One that knows its owner, who knows it, and other things that are none of its tensors."""

    def __init__(self, tril: torch.Tensor):
        super().__init__(tril)
        self.owner = Owner(self)
        self.things = {"log": logging.getLogger("tests"), "side": Side.LEFT, "library": numpy, "itself": self}

    def rsample(self, sample_shape: Any = ()) -> torch.Tensor:
        assert self.owner.owned.things["side"] is Side.LEFT
        assert self.owner.owned is self
        return super().rsample(sample_shape)


class Owner:
    def __init__(self, owned: Owned):
        self.owned = owned


def normal(loc: torch.Tensor = LOC, **scale: torch.Tensor) -> Any:
    return dist.MultivariateNormal(loc, **(scale or {"scale_tril": TRIL}))


def mixture(components: Any) -> Any:
    return dist.MixtureSameFamily(dist.Categorical(PROBS), components)


TWO = torch.stack([LOC, LOC + 2])
MIXED_MEAN = PROBS @ TWO
BETWEEN = (PROBS[:, None] * (TWO - MIXED_MEAN)).T @ (TWO - MIXED_MEAN)
DIRICHLET_MEAN = ALPHA / ALPHA.sum()
DIRICHLET_COV = (DIRICHLET_MEAN.diag() - DIRICHLET_MEAN[:, None] * DIRICHLET_MEAN) / (ALPHA.sum() + 1)
WHICH = torch.tensor([True, False, True, True])

CASES = {
    "scale_tril": (normal, LOC, COV),
    "covariance": (lambda: normal(covariance_matrix=COV), LOC, COV),
    "precision": (lambda: normal(precision_matrix=COV.inverse()), LOC, COV),
    "many means, one scale": (lambda: normal(LOCS), LOCS, COV),
    "one mean, many scales": (lambda: normal(scale_tril=TRILS), LOC, TRILS @ TRILS.mT),
    "expanded": (lambda: normal().expand([4]), LOC, COV),
    "a batch of one": (lambda: normal(LOC[None], scale_tril=TRIL[None]), LOC, COV),
    "masked": (lambda: normal().mask(WHICH), LOC, COV),
    "low rank": (
        lambda: dist.LowRankMultivariateNormal(LOC, FACTOR, DIAGONAL),
        LOC,
        FACTOR @ FACTOR.T + DIAGONAL.diag(),
    ),
    "Student": (lambda: dist.MultivariateStudentT(torch.tensor(12.0), LOC, TRIL), LOC, COV * 12 / 10),
    "Dirichlet": (lambda: dist.Dirichlet(ALPHA), DIRICHLET_MEAN, DIRICHLET_COV),
    "transformed": (
        lambda: dist.TransformedDistribution(normal(), [AffineTransform(1.0, 2.0)]),
        1 + 2 * LOC,
        4 * COV,
    ),
    "mixture": (lambda: mixture(normal(TWO)), MIXED_MEAN, COV + BETWEEN),
    "mixture of independents": (
        lambda: mixture(dist.Normal(TWO, DIAGONAL).to_event(1)),
        MIXED_MEAN,
        (DIAGONAL**2).diag() + BETWEEN,
    ),
    "masked mixture": (
        lambda: dist.MaskedMixture(WHICH, normal(LOC.expand(4, 3)), normal(LOC.expand(4, 3) + 2)),
        LOC + 2 * WHICH[:, None],
        COV,
    ),
    "of no library": (lambda: Rotated(TRIL), torch.zeros(3), COV),
    "in a circle": (lambda: Owned(TRIL), torch.zeros(3), COV),
}


def close(draws: np.ndarray, wanted: torch.Tensor) -> bool:
    """Whether the mean of draws is as wanted, up to six standard errors."""
    error = draws.std(0) / len(draws) ** 0.5
    return bool((np.abs(draws.mean(0) - wanted.numpy()) < 6 * error + 1e-6).all())


@pytest.mark.parametrize("case", CASES)
def test_moments_of_draws_in_plates_and_runs(case):
    make, mean, covariance = CASES[case]

    def program() -> None:
        pyro.param("unused", torch.tensor(0.0))
        with pyro.plate("plate", 4):
            pyro.sample("v", make())

    bound = vi.objective(lambda p, q: q.simulate().log_density, program, program)
    draws = estimator_of(bound).many(0, bound.init(0), (), {}, 3000, lambda p, q: q.simulate()["v"])
    assert draws.shape == (3000, 4, 3)
    assert close(draws, mean.expand(4, 3))
    apart = draws - mean.numpy()
    assert close(apart[..., None, :] * apart[..., None], covariance.expand(4, 3, 3))
    others = np.roll(apart, 1, 0), np.roll(apart, 1, 1)
    assert all(close((apart * other).sum(-1), torch.zeros(4)) for other in others)


PATHS = {
    "scale_tril": (lambda loc, tril: normal(loc, scale_tril=tril), 4),
    "covariance": (lambda loc, tril: normal(loc, covariance_matrix=tril @ tril.T), 4),
    "in an event": (lambda loc, tril: normal(loc, scale_tril=tril).expand([2]).to_event(1), 8),
}
"""Distributions of a mean and a scale, and how many vectors a plate of four has of them."""


TRANSPORTED = {
    "OMT": lambda loc, tril: dist.OMTMultivariateNormal(loc, tril),
    "AVF": lambda loc, tril: dist.AVFMultivariateNormal(loc, tril, pyro.param("control", torch.full((2, 1, 3), 0.1))),
}


@pytest.mark.parametrize("case", TRANSPORTED)
def test_samplers_with_a_derivative_of_their_own_side_by_side(case):
    """E |v|^2 = |loc|^2 + |tril|^2, whatever lessens the variance of an estimate of its gradient."""

    def program() -> None:
        pyro.sample("v", TRANSPORTED[case](pyro.param("loc", LOC), pyro.param("tril", TRIL)))

    bound = vi.objective(
        lambda p, q: ppvi.replicate(2, lambda: (q.simulate()["v"] ** 2).sum()).mean(), program, program
    )
    params = bound.init(0)
    pyro.clear_param_store()
    grads = [bound.value_and_grad(seed, params)[1] for seed in range(400)]
    assert close(np.stack([g["loc"].numpy() for g in grads]), 2 * LOC)
    assert close(np.stack([g["tril"].tril().numpy() for g in grads]), 2 * TRIL)
    assert all(not g["control"].any() for g in grads if "control" in g)


@pytest.mark.parametrize("case", PATHS)
def test_gradient_by_the_path_side_by_side(case):
    """E |v|^2 = n (|loc|^2 + |tril|^2)."""
    make, n = PATHS[case]

    def program() -> None:
        loc, tril = pyro.param("loc", LOC), pyro.param("tril", TRIL)
        with pyro.plate("plate", 4):
            pyro.sample("v", make(loc, tril))

    bound = vi.objective(
        lambda p, q: ppvi.replicate(2, lambda: (q.simulate()["v"] ** 2).sum()).mean(), program, program
    )
    params = {"loc": LOC, "tril": TRIL}
    grads = [bound.value_and_grad(seed, params)[1] for seed in range(400)]
    assert close(np.stack([g["loc"].numpy() for g in grads]), 2 * n * LOC)
    assert close(np.stack([g["tril"].tril().numpy() for g in grads]), 2 * n * TRIL)


def test_rows_that_are_computed_in_the_same_long_way_are_the_same():
    """A number that is doubled sixty times depends on itself in 2^60 ways."""

    def rows() -> torch.Tensor:
        found = torch.arange(2)
        for _ in range(60):
            found = found + found
        return found % 4

    def program() -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        for name in ("x", "y"):
            with pyro.plate("plate", 4, subsample=rows()):
                pyro.sample(name, dist.Normal(loc, 1.0))

    bound = vi.objective(lambda p, q: q.simulate().log_density, program, program)
    assert bound.value_and_grad(0, bound.init(0))[1]["loc"] == 0
