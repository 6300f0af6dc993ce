"""An autoencoder whose latent space is a closed manifold: a torus, a sphere, or the rotations of space.

    z_i ~ Uniform(Z)    x_i ~ Normal(decode(z_i), 0.2)

Pictures of a thing that turns have no natural place on a line: turned once round it is the same picture again, and a flat
latent space must tear somewhere. Perez Rey, Menkovski and Portegies, "Diffusion variational autoencoders", IJCAI 2020.

A manifold is points of a Euclidean space, of `size` numbers, and the few functions of `Manifold`. Brownian motion has the
generator half the Laplacian, so that t is a variance; kernels are densities with respect to the volume.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp

from models.networks import glorot, perceptron

NOISE = 0.2


class Manifold(NamedTuple):
    """**Attributes**

    - `size`: numbers of a point; `raw`: numbers that `place` makes a point of; `noise`: normal numbers of a step.
    - `dimension`, `volume`, and `curvature`: the scalar curvature.
    - `step`: from points along tangent vectors `(..., noise)`; `log_kernel`: of points and times, short ones.
    """

    size: int
    raw: int
    noise: int
    dimension: int
    volume: float
    curvature: float
    place: Callable
    step: Callable
    distance: Callable
    log_kernel: Callable


def unit(x):
    return x / jnp.sqrt((x**2).sum(-1, keepdims=True) + 1e-12)


def length(x, axis=-1):
    return jnp.sqrt((x**2).sum(axis) + 1e-12)


def torus(copies):
    """Circles, each a point of the plane, side by side."""

    def pairs(x):
        return x.reshape(*x.shape[:-1], copies, 2)

    def angles(x, y):
        (a, b), (c, d) = (jnp.moveaxis(pairs(z), -1, 0) for z in (x, y))
        return jnp.arctan2(a * d - b * c, a * c + b * d)

    def place(raw):
        return unit(pairs(raw)).reshape(raw.shape)

    def step(x, v):
        (a, b), c, s = jnp.moveaxis(pairs(x), -1, 0), jnp.cos(v), jnp.sin(v)
        return jnp.stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)

    def log_kernel(x, y, t):
        turns, t = angles(x, y)[..., None] + 2 * jnp.pi * jnp.arange(-3, 4), t[..., None]
        return (logsumexp(-(turns**2) / (2 * t[..., None]), -1) - jnp.log(2 * jnp.pi * t) / 2).sum(-1)

    def distance(x, y):
        return length(angles(x, y))

    return Manifold(
        2 * copies, 2 * copies, copies, copies, (2 * math.pi) ** copies, 0.0, place, step, distance, log_kernel
    )


def sphere():
    """Unit vectors of space."""

    def step(x, v):
        v = v - (v * x).sum(-1, keepdims=True) * x
        r = length(v)[..., None]
        return jnp.cos(r) * x + jnp.sin(r) / r * v

    def distance(x, y):
        return 2 * jnp.arcsin(jnp.minimum(length(x - y) / 2, 1 - 1e-6))

    def log_kernel(x, y, t):
        """The first two terms of the expansion in t; the third is below a thousandth for t up to 1/4."""
        a = distance(x, y)
        second = 1 + t / 8 * (1 + (1 - a / jnp.tan(a)) / a**2)
        return -(a**2) / (2 * t) - jnp.log(2 * jnp.pi * t) + 0.5 * jnp.log(a / jnp.sin(a)) + jnp.log(second)

    return Manifold(3, 3, 3, 2, 4 * math.pi, 2.0, unit, step, distance, log_kernel)


def rotations():
    """Orthogonal matrices of space that keep its orientation, row by row; distances are angles."""

    def matrix(x):
        return x.reshape(*x.shape[:-1], 3, 3)

    def place(raw):
        """By Gram and Schmidt, of two vectors."""
        a = unit(raw[..., :3])
        b = unit(raw[..., 3:] - (raw[..., 3:] * a).sum(-1, keepdims=True) * a)
        return jnp.concatenate([a, b, jnp.cross(a, b)], -1)

    def step(x, v):
        """Times the rotation about v by its length, by Rodrigues' formula."""
        r, (i, j, k) = length(v)[..., None, None], jnp.moveaxis(v, -1, 0)
        o = jnp.zeros_like(i)
        skew = jnp.stack([o, -k, j, k, o, -i, -j, i, o], -1).reshape(*v.shape[:-1], 3, 3)
        turn = jnp.eye(3) + jnp.sin(r) / r * skew + (1 - jnp.cos(r)) / r**2 * (skew @ skew)
        return (matrix(x) @ turn).reshape(x.shape)

    def distance(x, y):
        """|x - y|^2 = 8 sin^2(angle / 2)."""
        return 2 * jnp.arcsin(jnp.minimum(length(x - y) / 8**0.5, 1 - 1e-6))

    def log_kernel(x, y, t):
        """Of the sum over the ways round, the two shortest."""
        a, half = distance(x, y), jnp.sin(distance(x, y) / 2)
        ways = jnp.stack([jnp.log(b / 2) - b**2 / (2 * t) for b in (a, 2 * jnp.pi - a)])
        return logsumexp(ways, 0) - jnp.log(half) + t / 8 - 1.5 * jnp.log(2 * jnp.pi * t)

    return Manifold(9, 6, 3, 3, 8 * math.pi**2, 1.5, place, step, distance, log_kernel)


class Uniform(dist.Distribution):
    """Of points of a manifold, with respect to its volume."""

    support = dist.constraints.real_vector
    pytree_aux_fields = ("manifold",)

    def __init__(self, manifold):
        self.manifold = manifold
        super().__init__(event_shape=(manifold.size,))

    def sample(self, key, sample_shape=()):
        raw = dist.Normal().sample(key, (*sample_shape, self.manifold.raw))
        return self.manifold.place(raw)

    def log_prob(self, value):
        return jnp.full(value.shape[:-1], -math.log(self.manifold.volume))


def model(x, batch=None, *, manifold, hidden=(100,)):
    """Of pictures `(n, pixels)`; a minibatch of so many of them stands for all. A number in place of the manifold is the flat
    space of so many dimensions, with a normal prior."""
    flat = isinstance(manifold, int)
    weights = numpyro.param(
        "decoder", lambda key: glorot(key, manifold if flat else manifold.size, *hidden, x.shape[1])
    )
    prior = dist.Normal(jnp.zeros(manifold), 1.0).to_event(1) if flat else Uniform(manifold)
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        z = numpyro.sample("z", prior)
        numpyro.sample("x", dist.Normal(perceptron(weights, z), NOISE).to_event(1), obs=x[rows])
