"""Axis rules against an oracle: perturb one lane of a random input and see which outputs move.

Each row says where the operation must keep the operand's axes (None: joint), so a rule can be neither wrong nor
needlessly blunt. The oracle knows nothing of the rules: an axis claimed to be kept must show no movement outside the
perturbed lane, or outside the lanes that have it in their window.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppvi.compiler.dependence import propagate
from ppvi.ir import Along, Var, along
from ppvi.numpyro._stage import Reader

X = (4, 3, 5)
INF = math.inf
PAST, FUTURE = Along(0, -INF, 0), Along(0, 0, INF)
Y = jax.random.normal(jax.random.key(7), X)
W = jax.random.normal(jax.random.key(8), (5, 6))
IMAGES = (4, 2, 6, 6)
KERNEL = jax.random.normal(jax.random.key(9), (3, 2, 3, 3))
INDEX = jnp.array([2, 0, 1, 1, 3, 2])


@jax.custom_jvp
def cubed(x):
    return x**3


cubed.defjvp(lambda primals, tangents: (cubed(*primals), 3 * primals[0] ** 2 * tangents[0]))


@jax.custom_vjp
def scaled(x):
    return x / jnp.sum(jnp.abs(x), -1, keepdims=True)


scaled.defvjp(lambda x: (scaled(x), x), lambda x, g: (g,))


def conv(x):
    return lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME")


def as_kernel(x):
    return lax.conv_general_dilated(jnp.ones((2, 2, 8, 8)), x, (1, 1), "SAME")


def integers(x):
    return jnp.clip(jnp.round(3 * jnp.abs(x)), 0, 3).astype(jnp.int32)


ROWS = {
    "elementwise": (X, lambda x: jnp.exp(-x) * Y + jnp.where(x > 0, x, jnp.sin(x)) / (1 + x**2), (0, 1, 2)),
    "compare and select": (X, lambda x: jnp.where(x > Y, x, Y), (0, 1, 2)),
    "clamp": (X, lambda x: jnp.clip(x, -0.5, 0.5), (0, 1, 2)),
    "special functions": (X, lambda x: lax.lgamma(x) + lax.digamma(x) + lax.erf(x) + lax.erf_inv(0.1 * x), (0, 1, 2)),
    "cast": (X, lambda x: x.astype(jnp.int32).astype(jnp.float32), (0, 1, 2)),
    "stop_gradient": (X, lax.stop_gradient, (0, 1, 2)),
    "broadcast": (X, lambda x: jnp.broadcast_to(x, (7, *X)), (1, 2, 3)),
    "broadcast in the middle": (X, lambda x: x[:, None] + jnp.ones((4, 6, 3, 5)), (0, 2, 3)),
    "reshape, split": (X, lambda x: x.reshape(2, 2, 3, 5), (None, 2, 3)),
    "reshape, merge": (X, lambda x: x.reshape(12, 5), (None, None, 1)),
    "reshape, ones": (X, lambda x: x.reshape(1, 4, 1, 3, 5, 1), (1, 3, 4)),
    "transpose": (X, lambda x: jnp.transpose(x, (2, 0, 1)), (1, 2, 0)),
    "squeeze": ((4, 1, 5), lambda x: x[:, 0], (0, None, 1)),
    "expand": (X, lambda x: x[..., None, :], (0, 1, 3)),
    "sum": (X, lambda x: x.sum(1), (0, None, 1)),
    "max, min, prod": (X, lambda x: x.max(0) + x.min(0) * x.prod(0), (None, 0, 1)),
    "any, all": (X, lambda x: jnp.any(x > 0, 2) & jnp.all(x < 2, 2), (0, 1, None)),
    "argmax": (X, lambda x: jnp.argmax(x, 1) + jnp.argmin(x, 1), (0, None, 1)),
    "logsumexp": (X, lambda x: jax.scipy.special.logsumexp(x, 2), (0, 1, None)),
    "softmax": (X, lambda x: jax.nn.softmax(x, 1), (0, None, 2)),
    "var": (X, lambda x: x.var((0, 2)), (None, 0, None)),
    "cumsum": (X, lambda x: jnp.cumsum(x, 1) + jnp.cumprod(x, 1), (0, Along(1, -INF, 0), 2)),
    "cummax": (X, lambda x: lax.cummax(x, 2) + lax.cummin(x, 2), (0, 1, Along(2, -INF, 0))),
    "cumlogsumexp": (X, lambda x: lax.cumlogsumexp(x, 0), (PAST, 1, 2)),
    "cumsum, reverse": (X, lambda x: lax.cumsum(x, 0, reverse=True), (FUTURE, 1, 2)),
    "matmul, left": (X, lambda x: x @ W, (0, 1, None)),
    "matmul, right": (X, lambda x: jnp.ones((4, 2, 3)) @ x, (0, None, 2)),
    "matmul, batch": (X, lambda x: jnp.einsum("bij,bkj->bik", x, Y), (0, 1, None)),
    "einsum": (X, lambda x: jnp.einsum("bij,jk->ikb", x, W), (2, 0, None)),
    "outer": ((4,), lambda x: x[:, None] * x[None, :], (None,)),
    "outer with a constant": ((4,), lambda x: jnp.outer(Y[0, 0], x), (1,)),
    "convolution": (IMAGES, conv, (0, None, None, None)),
    "convolution, kernel": ((3, 2, 3, 3), as_kernel, (1, None, None, None)),
    "pooling": (IMAGES, lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"), (0, 1, None, None)),
    "gather by a constant": (X, lambda x: x[INDEX], (None, 1, 2)),
    "gather along an axis": (X, lambda x: jnp.take(x, INDEX % 3, axis=1), (0, None, 2)),
    "gather by the operand": (X, lambda x: W[0][integers(x)], (0, 1, 2)),
    "gather rows by the operand": (X, lambda x: W[integers(x)], (0, 1, 2)),
    "gather, batched": (X, lambda x: jax.vmap(lambda table, i: table[i])(Y, integers(x)[:, :, 0] % 3), (0, 1, None)),
    "gather, batched operand": (X, lambda x: jax.vmap(lambda table, i: table[i])(x, integers(Y)[:, :, 0] % 3), (0, None, 2)),
    "take_along_axis": (X, lambda x: jnp.take_along_axis(x, integers(Y) % 3, axis=1), (0, None, 2)),
    "scatter of the operand": (X, lambda x: jnp.zeros(X).at[:, jnp.array([2, 0, 1])].set(x), (0, None, 2)),
    "scatter into the operand": (X, lambda x: x.at[:, 1].set(0.0), (0, 1, 2)),
    "scatter-add": (X, lambda x: Y.at[jnp.array([0, 1, 2, 0])].add(x), (None, 1, 2)),
    "scatter, batched": (X, lambda x: jax.vmap(lambda y, u: y.at[jnp.array([2, 1, 0])].add(u))(Y, x), (0, None, 2)),
    "scatter by the operand": ((4, 3), lambda x: jax.vmap(lambda y, i: y.at[i].mul(2.0))(Y, integers(x) % 3), (0, None)),
    "slice": (X, lambda x: x[:, 1:3], (0, Along(1, 1, 1), 2)),
    "differences": (X, lambda x: x[1:] - x[:-1], (Along(0, 0, 1), 1, 2)),
    "strided slice": (X, lambda x: x[::2], (None, 1, 2)),
    "dynamic_slice": (X, lambda x: lax.dynamic_slice_in_dim(x, 1, 2, 1), (0, None, 2)),
    "dynamic_slice at the operand": ((), lambda x: lax.dynamic_slice_in_dim(Y, integers(x), 2, 0), ()),
    "dynamic_update_slice": (X, lambda x: lax.dynamic_update_slice_in_dim(jnp.zeros((4, 6, 5)), x, 1, 1), (0, None, 2)),
    "dynamic_update_slice into": (X, lambda x: lax.dynamic_update_slice_in_dim(x, jnp.zeros((4, 1, 5)), 1, 1), (0, 1, 2)),
    "concatenate": (X, lambda x: jnp.concatenate([x, Y], 1), (0, 1, 2)),
    "concatenate behind": (X, lambda x: jnp.concatenate([Y, x], 1), (0, Along(1, -3, -3), 2)),
    "stack": (X, lambda x: jnp.stack([x, Y], 1), (0, 2, 3)),
    "tile": (X, lambda x: jnp.tile(x, (1, 2, 1)), (0, None, 2)),
    "pad": (X, lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0))), (0, Along(1, -1, -1), 2)),
    "roll": (X, lambda x: jnp.roll(x, 1, 1), (0, Along(1, -1, 2), 2)),
    "sort": (X, lambda x: jnp.sort(x, 1), (0, None, 2)),
    "argsort": (X, lambda x: jnp.argsort(x, 2), (0, 1, None)),
    "top_k": (X, lambda x: lax.top_k(x, 2)[0], (0, 1, None)),
    "rev": (X, lambda x: jnp.flip(x, 2), (0, 1, None)),
    "split": (X, lambda x: jnp.split(x, [1], 1)[1], (0, None, 2)),
    "diagonal": ((4, 4), jnp.diagonal, (None, None)),
    "cholesky": (X, lambda x: jnp.linalg.cholesky(jnp.einsum("bij,bkj->bik", x, x) + 9 * jnp.eye(3)), (0, None, None)),
    "triangular solve": (X, lambda x: jax.scipy.linalg.solve_triangular(jnp.eye(3) + jnp.zeros((4, 3, 3)), x), (0, None, None)),
    "random_gamma, keys of their own": (X, lambda x: jax.vmap(lambda x, key: jax.random.gamma(key, 1 + jnp.abs(x)))(x, jax.random.split(jax.random.key(0), 4)), (0, 1, 2)),
    "random_gamma": (X, lambda x: jax.random.gamma(jax.random.key(0), 1 + jnp.abs(x)), (0, 1, 2)),
    "jit": (X, jax.jit(lambda x: jnp.tanh(x).sum(2)), (0, 1, None)),
    "nested jit": (X, jax.jit(lambda x: jax.jit(jnp.transpose)(x) * 2), (2, 1, 0)),
    "custom_jvp": (X, lambda x: cubed(x).sum(0), (None, 0, 1)),
    "custom_jvp in the library": (X, lambda x: jax.nn.softplus(x) + jax.nn.relu(x) + jax.nn.logsumexp(x, 1, keepdims=True), (0, None, 2)),
    "custom_vjp": (X, scaled, (0, 1, None)),
    "remat": (X, jax.checkpoint(lambda x: jnp.sin(x).mean(1)), (0, None, 1)),
    "optimization barrier": (X, lambda x: lax.optimization_barrier((x.sum(), x * 2))[1], (0, 1, 2)),
    "scan, row by row": (X, lambda x: lax.scan(lambda c, row: (c, row * 2), 0.0, x)[1], (0, 1, 2)),
    "scan, causal": (X, lambda x: lax.scan(lambda c, row: (c + row, c * row), jnp.ones((3, 5)), x)[1], (PAST, 1, 2)),
    "scan, reverse": (X, lambda x: lax.scan(lambda c, row: (c + row, c), jnp.ones((3, 5)), x, reverse=True)[1], (Along(0, 1, INF), 1, 2)),
    "scan, first order": (X, lambda x: lax.scan(lambda c, row: (jnp.sin(row), c * row), jnp.ones((3, 5)), x)[1], (Along(0, -1, 0), 1, 2)),
    "scan, second order": (X, lambda x: lax.scan(lambda c, row: ((row, c[0]), c[1]), (Y[0], Y[0]), x)[1], (Along(0, -2, -2), 1, 2)),
    "scan, mixing the carry": (X, lambda x: lax.scan(lambda c, row: (c.sum(0) + row, c), jnp.ones((3, 5)), x)[1], (Along(0, -INF, -1), None, 2)),
    "scan, transposing the carry": ((4, 3, 3), lambda x: lax.scan(lambda c, row: (c.T + row, c), jnp.ones((3, 3)), x)[1], (Along(0, -INF, -1), None, None)),
    "scan, the last carry": (X, lambda x: lax.scan(lambda c, row: (c + row, None), jnp.ones((3, 5)), x)[0], (None, 0, 1)),
    "scan, a constant": (X, lambda x: lax.scan(lambda c, i: (c + 1, x[:, :, 0] * i), 0.0, jnp.arange(2.0))[1], (1, 2, None)),
    "scan from it": (X, lambda x: lax.scan(lambda c, i: (c * i, c), x, jnp.arange(2.0))[1], (1, 2, 3)),
    "scan in a scan": ((4, 3), lambda x: lax.scan(lambda c, row: lax.scan(lambda d, z: (d + z, d * z), c, row), 1.0, x)[1], (PAST, None)),
    "map": (X, lambda x: lax.map(lambda row: row.sum(0) + row, x), (0, None, 2)),
    "cond": (X, lambda x: lax.cond(Y[0, 0, 0] > 0, lambda x: jnp.cumsum(x, 0), lambda x: x * 2, x), (PAST, 1, 2)),
    "cond at the operand": ((), lambda x: lax.cond(x > 0, lambda: Y, lambda: 2 * Y), ()),
    "while has no rule": (X, lambda x: lax.fori_loop(0, jnp.int32(x.sum() > 0) + 1, lambda i, y: y * 2, x), (None, None, None)),
    "fft has no rule": (X, lambda x: jnp.abs(jnp.fft.fft(x)), (None, None, None)),
    "vmap": (X, jax.vmap(lambda row: row @ W), (0, 1, None)),
    "two paths that agree": (X, lambda x: x + jnp.flip(x, 1), (0, None, 2)),
    "two axes meet": ((3, 3), lambda x: x + x.T, (None, None)),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_axis_rule(name):
    shape, function, expected = ROWS[name]
    lanes, outputs = lanes_of(function, shape)
    assert lanes == tuple(map(along, expected))
    x = jax.random.normal(jax.random.key(1), shape)
    before = np.asarray(function(x))
    assert before.shape == outputs
    for axis, place in enumerate(lanes):
        for lane in range(shape[axis]):
            entry = (slice(None),) * axis + (lane,)
            noise = 1.7 * jax.random.normal(jax.random.key(lane), shape)
            moved = np.asarray(function(x.at[entry].add(noise[entry]))) != before
            if place is None:
                continue
            reached = [i for i in range(moved.shape[place.axis]) if i + place.first <= lane <= i + place.last]
            others = np.delete(moved, reached, axis=place.axis)
            assert not others.any(), (
                f"lane {lane} of axis {axis} moved entries that do not have it in their window of {place}"
            )


def lanes_of(function, shape):
    """Where the analysis says that each axis of the input goes."""
    closed = jax.make_jaxpr(function)(jnp.zeros(shape))
    reader = Reader()
    (x,) = [reader.variable(v) for v in closed.jaxpr.invars]
    for var in closed.jaxpr.constvars:
        reader.variable(var)
    reader.read(closed.jaxpr)
    out = reader.atom(closed.jaxpr.outvars[0])
    assert isinstance(out, Var)
    dependence = propagate(reader.equations, {x: {"x": tuple(map(Along, range(len(shape))))}}, lambda equation: {})
    return dependence[out]["x"], out.shape
