"""Distributions of `tests.distributions` on Pyro."""

import pyro.distributions
import torch
from torch.distributions import constraints


class PyroRotation(pyro.distributions.TorchDistribution):
    """`Rotation` on Pyro."""

    arg_constraints = {"angle": constraints.real, "visibility": constraints.unit_interval}  # noqa: RUF012
    support = constraints.boolean
    has_enumerate_support = True

    def __init__(self, angle, visibility, *, validate_args=None):
        self.angle, self.visibility = torch.broadcast_tensors(angle, visibility)
        super().__init__(self.angle.shape, (), validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        return PyroRotation(self.angle.expand(batch_shape), self.visibility.expand(batch_shape))

    @property
    def probs(self):
        return (1 - self.visibility * torch.cos(self.angle)) / 2

    def sample(self, sample_shape=()):
        return torch.bernoulli(self.probs.expand(*sample_shape, *self.batch_shape))

    def log_prob(self, value):
        return torch.log(torch.where(value == 1, self.probs, 1 - self.probs))

    def enumerate_support(self, expand=True):
        values = torch.arange(2.0).reshape(2, *[1] * len(self.batch_shape))
        return values.expand(2, *self.batch_shape) if expand else values


class PyroStep(pyro.distributions.Normal):
    """`Step` on Pyro."""

    def rsample(self, sample_shape=()):
        loc = torch.where(self.loc > 0.25, self.loc + 1.0, self.loc)
        return loc + self.scale * torch.randn((*sample_shape, *self.batch_shape))


PYRO = {
    "OneHot": lambda logits: pyro.distributions.OneHotCategorical(logits=logits),
    "Rotation": PyroRotation,
    "Step": PyroStep,
}
