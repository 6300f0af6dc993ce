"""Distributions that the tests' programs need and the libraries do not have; for Pyro see `tests.distributions_pyro`."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist


class OneHot(dist.Distribution):
    """A finite site whose values are one-hot vectors."""

    arg_constraints = {"logits": dist.constraints.real_vector}  # noqa: RUF012
    support = dist.constraints.real_vector
    has_enumerate_support = True

    def __init__(self, logits, *, validate_args=None):
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        index = jax.random.categorical(key, self.logits, shape=(*sample_shape, *self.batch_shape))
        return jax.nn.one_hot(index, self.logits.shape[-1])

    def log_prob(self, value):
        return jnp.sum(jax.nn.log_softmax(self.logits) * value, -1)

    def enumerate_support(self, expand=True):
        k = self.logits.shape[-1]
        return jnp.broadcast_to(jnp.eye(k).reshape(k, *[1] * len(self.batch_shape), k), (k, *self.logits.shape))


class Rotation(dist.Distribution):
    """A measurement after a rotation: 1 with probability (1 - visibility cos(angle)) / 2."""

    arg_constraints = {"angle": dist.constraints.real, "visibility": dist.constraints.unit_interval}  # noqa: RUF012
    support = dist.constraints.boolean
    has_enumerate_support = True

    def __init__(self, angle, visibility, *, validate_args=None):
        self.angle, self.visibility = jnp.broadcast_arrays(angle, visibility)
        super().__init__(self.angle.shape, (), validate_args=validate_args)

    @property
    def probs(self):
        return (1 - self.visibility * jnp.cos(self.angle)) / 2

    def sample(self, key, sample_shape=()):
        return jax.random.bernoulli(key, self.probs, (*sample_shape, *self.batch_shape)).astype(int)

    def log_prob(self, value):
        return jnp.log(jnp.where(value == 1, self.probs, 1 - self.probs))

    def enumerate_support(self, expand=True):
        values = jnp.arange(2).reshape(2, *[1] * len(self.batch_shape))
        return jnp.broadcast_to(values, (2, *self.batch_shape)) if expand else values


class Step(dist.Normal):
    """Its sampler is no continuous function of its mean, whatever it says."""

    def sample(self, key, sample_shape=()):
        loc = jnp.where(self.loc > 0.25, self.loc + 1.0, self.loc)
        return loc + self.scale * jax.random.normal(key, (*sample_shape, *self.batch_shape))


NUMPYRO = {"OneHot": OneHot, "Rotation": Rotation, "Step": Step}
