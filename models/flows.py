"""Layers of normalizing flows, each of which takes points to points and says by how much it stretches space there.

    z_k = layer_k(z_{k-1})    log q(z_K) = log q(z_0) - sum_k log |det d z_k / d z_{k-1}|

A guide needs no inverse, since its density is asked for at draws alone; a prior that is made of inverse autoregressive layers
(`models.vlae`) needs it where it is drawn from. Weights of all layers are stacked along a leading axis; beyond it they have
the axes of plates, or none. Planar and radial layers are of Rezende and Mohamed, "Variational inference with normalizing
flows", ICML 2015, inverse autoregressive ones of Kingma et al., "Improved variational inference with inverse autoregressive
flow", NeurIPS 2016.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import sigmoid, softplus

TINY = 1e-6
"""Keeps logarithms and roots away from zero, which floats may round to."""


def planar(weights, z):
    """z + u tanh(w z + b), where u is moved along w until w u > -1, so that the layer is invertible (appendix A.1).

    The determinant 1 + (1 - tanh^2) w u is a mean of 1 and of 1 + w u, which is softplus of what w u was.
    """
    u, w, b = weights
    along = (w * u).sum(-1, keepdims=True)
    u = u + (softplus(along) - 1 - along) * w / ((w**2).sum(-1, keepdims=True) + TINY)
    bend = jnp.tanh((w * z).sum(-1, keepdims=True) + b)
    return z + u * bend, jnp.log(bend**2 + (1 - bend**2) * softplus(along) + TINY)[..., 0]


def radial(weights, z):
    """z + beta (z - c) / (alpha + |z - c|), where alpha + beta > 0 (appendix A.2).

    Distances r from c are multiplied by (alpha + beta + r) / (alpha + r), in all directions but the one away from c.
    """
    centre, log_alpha, raw = weights
    alpha, both = jnp.exp(log_alpha), softplus(raw)
    r = jnp.sqrt(((z - centre) ** 2).sum(-1, keepdims=True) + TINY**2)
    across = jnp.log(both + r) - jnp.log(alpha + r)
    away = jnp.log(r**2 + 2 * alpha * r + alpha * both) - 2 * jnp.log(alpha + r)
    moved = z + (both - alpha) / (alpha + r) * (z - centre)
    return moved, ((z.shape[-1] - 1) * across + away)[..., 0]


def gates(weights, z):
    """How much of each coordinate is kept, and what it is mixed with; both depend on the coordinates before it."""
    inner, bias, outer, shift = weights
    size, units = inner.shape[-2:]
    before = 1 + jnp.arange(units) % max(size - 1, 1)
    enters, leaves = before >= 1 + jnp.arange(size)[:, None], 1 + jnp.arange(size) > before[:, None]
    hidden = jnp.tanh(jnp.einsum("...i,...ij->...j", z, inner * enters) + bias)
    out = jnp.einsum("...i,...ij->...j", hidden, outer * jnp.tile(leaves, (1, 2))) + shift
    return sigmoid(out[..., size:] + 2.0), out[..., :size]


def inverse_autoregressive(weights, z):
    """s z + (1 - s) m, where s and m of a coordinate depend on those before it; then the coordinates in reverse order."""
    gate, moved = gates(weights, z)
    return (gate * z + (1 - gate) * moved)[..., ::-1], jnp.log(gate).sum(-1)


def autoregressive(weights, y):
    """What that layer takes to y: each pass over all coordinates finds one more of them."""

    def found(_, z):
        gate, moved = gates(weights, z)
        return (y[..., ::-1] - (1 - gate) * moved) / gate

    return jax.lax.fori_loop(0, y.shape[-1], found, y)


class Flow(dist.transforms.ParameterFreeTransform):
    """Layers of one kind, one after the other."""

    domain = codomain = dist.constraints.real_vector

    def __init__(self, layer, weights):
        self.layer, self.weights = layer, weights

    def __call__(self, x):
        return self.call_with_intermediates(x)[0]

    def call_with_intermediates(self, x):
        def step(before, weights):
            after, more = self.layer(weights, before[0])
            return (after, before[1] + more), None

        return jax.lax.scan(step, (x, jnp.zeros(x.shape[:-1])), self.weights)[0]

    def _inverse(self, y):
        if self.layer is not inverse_autoregressive:
            raise NotImplementedError("of these layers only the inverse autoregressive ones have an inverse")
        return jax.lax.scan(lambda y, weights: (autoregressive(weights, y), None), y, self.weights, reverse=True)[0]

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return self.call_with_intermediates(x)[1] if intermediates is None else intermediates


def first_weights(kind, layers, size, batch, units, key):
    """Layers that do little at first: what they start from, stacked, for every lane of `batch`."""
    draw = lambda key, *shape: 0.1 * jax.random.normal(key, (layers, *batch, *shape))  # noqa: E731
    a, b, c = jax.random.split(key, 3)
    if kind is planar:
        return draw(a, size), draw(b, size) * 10, draw(c, 1)
    if kind is radial:
        return draw(a, size) * 20, jnp.zeros((layers, *batch, 1)), draw(c, 1) + jnp.log(jnp.e - 1)
    return draw(a, size, units) * 5, draw(b, units), draw(c, units, 2 * size), jnp.zeros((layers, *batch, 2 * size))


def flow(kind, loc, scale, weights):
    """The distribution that layers of this kind make of a Gaussian; of no layers it is the Gaussian."""
    return dist.TransformedDistribution(dist.Normal(loc, scale).to_event(1), Flow(kind, weights))
