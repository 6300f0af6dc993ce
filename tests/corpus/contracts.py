"""Functions of libraries whose code goes by pieces, pivots and loops, and that are smooth or continuous: taken for what they compute.

Beside each that is right stands its neighbour: a matrix that may be singular, the place instead of the entry, a knot that stands
twice, a vector in the place of a value.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import torch
from jax import lax

import ppvi
from ppvi.strategies import Reinforce
from tests.corpus.programs import ABSENT, LOST, RULES, SMOOTH, of, pair, right, wrong
from tests.corpus.singular import ruled
from tests.engines import dist, nn, ppl, xp


def four():
    ppl.sample("z", dist.Normal(ppl.param("loc", xp.array([0.3, -0.4, 0.7, 0.2])), 1.0).to_event(1))


def either(of_jax, of_torch):
    """A function by what it is given."""
    return lambda z: (of_torch if isinstance(z, torch.Tensor) else of_jax)(z)


# Matrices -------------------------------------------------------------------------------------------------------------


def square(z):
    return z.reshape(2, 2)


def gram(z):
    return square(z) @ square(z).T + 0.5 * xp.eye(2)


def low_rank(z):
    return xp.diag(xp.exp(z[:2])) + xp.outer(z[2:], z[2:])


def kernel(z):
    x = xp.array([0.0, 1.0, 2.5])
    return xp.exp(-0.5 * (x[:, None] - x[None, :]) ** 2 / xp.exp(z[0])) + 0.1 * xp.eye(3)


def ones(n=2):
    return xp.ones((n, 1))


HAS_INVERSE = "A A^T + I / 2 is positive definite, and the inverse is smooth on such matrices"
for _name, _f in (
    ("solution", lambda z: xp.linalg.solve(gram(z), ones())[0, 0]),
    ("inverse", lambda z: xp.linalg.inv(gram(z))[0, 1]),
    ("sign of the determinant", lambda z: xp.linalg.slogdet(gram(z))[0]),
    ("log determinant", lambda z: xp.linalg.slogdet(gram(z))[1]),
    ("logarithm of the determinant", lambda z: xp.log(xp.linalg.det(gram(z)))),
    ("Cholesky factor", lambda z: xp.log(xp.diagonal(xp.linalg.cholesky(gram(z)))).sum()),
    ("pseudoinverse", lambda z: xp.linalg.pinv(gram(z))[0, 0]),
    ("tanh of an inverse", lambda z: xp.tanh(xp.linalg.inv(gram(z))[0, 0])),
):
    right(f"{_name} of a Gram matrix", of(_f), HAS_INVERSE, guide=four)
right("solution with low rank", of(lambda z: xp.linalg.solve(low_rank(z), ones())[0, 0]), "D + v v^T > 0", guide=four)
right("log determinant of low rank", of(lambda z: xp.linalg.slogdet(low_rank(z))[1]), "D + v v^T > 0", guide=four)
right(
    "Gaussian process", of(lambda z: xp.linalg.solve(kernel(z), ones(3)).sum()),
    "the kernel of squared distances is positive semidefinite at any scale", guide=four,
)  # fmt: skip
right(
    "solution by a factor of one's own",
    of(either(
        lambda z: jsp.linalg.solve_triangular(
            jnp.tril(square(z), -1) + jnp.diag(jnp.exp(z[:2])), jnp.ones((2, 1)), lower=True
        )[1, 0],
        lambda z: torch.linalg.solve_triangular(
            torch.tril(square(z), -1) + torch.diag(torch.exp(z[:2])), torch.ones(2, 1), upper=False
        )[1, 0],
    )),
    "no number on its diagonal is zero", guide=four,
)  # fmt: skip
right("determinant", of(lambda z: xp.linalg.det(square(z))), "a polynomial of the entries", guide=four)
right(
    "exponential of a matrix",
    of(either(lambda z: jsp.linalg.expm(square(z))[0, 1], lambda z: torch.linalg.matrix_exp(square(z))[0, 1])),
    "a power series that converges everywhere", guide=four,
)  # fmt: skip
right("nuclear norm", of(lambda z: xp.linalg.matrix_norm(square(z), ord="nuc")), "a norm is Lipschitz", guide=four)
right("spectral norm", of(lambda z: xp.linalg.matrix_norm(square(z), ord=2)), "a norm is Lipschitz", guide=four)

MAY_BE_SINGULAR = "as the matrix goes by one that is singular, the value goes from one infinity to the other"
for _name, _f in (
    ("tanh of a solution of any matrix", lambda z: xp.tanh(xp.linalg.solve(square(z), ones()))[0, 0]),
    ("tanh of an inverse of any matrix", lambda z: xp.tanh(xp.linalg.inv(square(z))[0, 0])),
    ("which determinants are positive", lambda z: xp.where(xp.linalg.det(gram(z) - xp.eye(2)) > 0, 1.0, 0.0)),
    ("sign of any determinant", lambda z: xp.linalg.slogdet(square(z))[0]),
    ("a square with a number added", lambda z: xp.tanh(xp.linalg.inv(square(z) @ square(z) + 0.5 * xp.eye(2))[0, 0])),
    ("a Gram matrix with a number taken away", lambda z: xp.tanh(xp.linalg.inv(gram(z) - xp.eye(2))[0, 0])),
    ("two factors", lambda z: xp.tanh(xp.linalg.inv(square(z) @ square(z[::1] * z).T + 0.5 * xp.eye(2))[0, 0])),
    ("tanh of a solution by a diagonal", lambda z: xp.tanh(xp.linalg.solve(xp.diag(z[:2]), ones()))[0, 0]),
):
    wrong(_name, of(_f), MAY_BE_SINGULAR, "jump", guide=four, verdict="suspect")

# Entries in order -----------------------------------------------------------------------------------------------------


def weights():
    return xp.array([0.0, 1.0, 2.0, 5.0])


IN_ORDER = "where two entries are equal, exchanging them changes nothing"
right("entries by argsort", of(lambda z: z[xp.argsort(z)] @ weights()), IN_ORDER, guide=four)
right("entries from the greatest on", of(lambda z: z[xp.argsort(-z)] @ weights()), IN_ORDER, guide=four)
right("a function of entries by argsort", of(lambda z: xp.tanh(2 * z)[xp.argsort(z)] @ weights()), IN_ORDER, guide=four)
TIES = "where two keys are equal, different values are exchanged"
for _name, _f in (
    ("places", lambda z: xp.argsort(z)[0] * 1.0),
    ("weights by argsort", lambda z: weights()[xp.argsort(z)][0]),
    ("entries by argsort of their magnitudes", lambda z: z[xp.argsort(abs(z))][0]),
    ("entries by argsort of multiples", lambda z: z[xp.argsort(z * weights())][0]),
    ("multiples by argsort of entries", lambda z: (z * weights())[xp.argsort(z)][0]),
    ("weight at the argmax", lambda z: weights()[xp.argmax(z)]),
):
    wrong(_name, of(_f), TIES, "jump", guide=four, verdict="suspect")
for _name in ("amax", "amin"):
    right(
        f"{_name} by index",
        of(either(
            lambda z, at=_name[1:]: getattr(jnp.zeros(3).at[jnp.array([0, 0, 1, 1])], at)(z)[0],
            lambda z, how=_name: torch.zeros(3).scatter_reduce(0, torch.tensor([0, 0, 1, 1]), z, how)[0],
        )),
        "the greatest of some entries, or the least", guide=four,
    )  # fmt: skip

# Tables ---------------------------------------------------------------------------------------------------------------


def interpolated(z, knots, left=1):
    """Between knots that are searched, and beyond the ends on the same lines."""
    x, y = xp.array(knots), xp.array([0.0, 1.0, -1.0, 2.0])
    i = xp.clip(xp.searchsorted(x, z), 1, 3)
    return y[i - 1] + (y[i - left] if left != 1 else y[i] - y[i - 1]) * (z - x[i - 1]) / (x[i] - x[i - 1])


MEET = "two pieces meet at every knot"
right("interpolation between knots", of(lambda z: interpolated(z, [0.0, 1.0, 2.0, 3.0])), MEET)
right("interpolation of a sigmoid", of(lambda z: interpolated(nn.sigmoid(z), [0.0, 0.2, 0.7, 1.0])), MEET)
wrong("a knot twice", of(lambda z: interpolated(z, [0.0, 1.0, 1.0, 3.0])), "it jumps there", "jump", verdict="suspect")
wrong(
    "the wrong slopes", of(lambda z: interpolated(z, [0.0, 1.0, 2.0, 3.0], left=0)), "pieces do not meet", "jump",
    verdict="suspect",
)  # fmt: skip
wrong(
    "the entry beside", of(lambda z: xp.array([0.0, 1.0, 5.0])[xp.clip(xp.searchsorted(xp.array([0.0, 1.0]), z), 0, 2)]),
    LOST, "jump", verdict="suspect",
)  # fmt: skip
wrong(
    "how many knots are below",
    of(lambda z: xp.searchsorted(xp.array([0.0, 1.0]), z) * 1.0),
    LOST,
    "jump",
    verdict="suspect",
)
right(
    "wrapped interpolation by floor",
    of(lambda z: (lambda i, y: y[i % 3] + (z - xp.floor(z)) * (y[(i + 1) % 3] - y[i % 3]))(
        xp.asarray(xp.floor(z), int), xp.array([0.0, 1.0, 5.0])
    )),
    MEET, verdict="suspect", on_pyro="proved",
)  # fmt: skip

KNOTS = jnp.array([0.0, 1.0, 2.0, 3.0])
TWICE = jnp.array([0.0, 1.0, 1.0, 3.0])
HEIGHTS = jnp.array([0.0, 1.0, -1.0, 2.0])
GRID = jnp.arange(16.0).reshape(4, 4) ** 1.5
right("interp", of(lambda z: jnp.interp(z, KNOTS, HEIGHTS)), MEET, not_on_pyro=ABSENT)
wrong(
    "interp at a knot twice",
    of(lambda z: jnp.interp(z, TWICE, HEIGHTS)),
    LOST,
    "jump",
    verdict="suspect",
    not_on_pyro=ABSENT,
)
wrong(
    "interp with another value outside", of(lambda z: jnp.interp(z, KNOTS, HEIGHTS, left=5.0)), LOST, "jump",
    verdict="suspect", not_on_pyro=ABSENT,
)  # fmt: skip


def sampled(order):
    """A grid between its entries, or at the nearest one."""
    mode = "bilinear" if order else "nearest"
    grid = torch.arange(16.0).reshape(1, 1, 4, 4) ** 1.5
    return either(
        lambda z: jsp.ndimage.map_coordinates(GRID, [z[:1], z[1:]], order=order, mode="nearest")[0],
        lambda z: torch.nn.functional.grid_sample(grid, z.reshape(1, 1, 1, 2), mode=mode, align_corners=True).sum(),
    )


right("grid between entries", of(sampled(1)), MEET, guide=pair)
wrong("nearest entry of a grid", of(sampled(0)), LOST, "jump", guide=pair, on_pyro="suspect")

# Special functions ----------------------------------------------------------------------------------------------------

right("length of two", of(lambda z: xp.hypot(z[0], z[1])), "a norm", guide=pair)
right("exponential integral", of(lambda z: jsp.special.expi(xp.exp(z))), "analytic above 0", not_on_pyro=ABSENT)
right(
    "exponential integral E1", of(lambda z: jsp.special.exp1(xp.exp(z) + 0.1)), "analytic above 0", not_on_pyro=ABSENT
)
wrong(
    "exponential integral at 0", of(lambda z: jsp.special.expi(z)), "its slope has no mean: there is a pole", "jump",
    verdict="suspect", not_on_pyro=ABSENT,
)  # fmt: skip
wrong(
    "exponential integral E1 at 0", of(lambda z: xp.nan_to_num(jsp.special.exp1(z))), "it has no value below 0", "jump",
    verdict="suspect", not_on_pyro=ABSENT,
)  # fmt: skip
right("log-sum-exp with weights", of(lambda z: xp.log(xp.sum(xp.exp(z) * (1.0 + xp.arange(4))))), SMOOTH, guide=four)


def concentrated():
    z = ppl.sample("z", dist.Normal(xp.zeros(4), 1.0).to_event(1))
    ppl.sample("w", dist.Dirichlet(nn.softmax(z)), obs=xp.array([0.1, 0.2, 0.3, 0.4]))


right("concentration by softmax", ppvi.objectives.elbo, "a softmax is positive", guide=four, model=concentrated)

# Complex numbers ------------------------------------------------------------------------------------------------------

right("power of a spectrum", of(lambda z: xp.sum(abs(xp.fft.fft(z)) ** 2)), "quadratic", guide=four)
right("filter", of(lambda z: xp.real(xp.fft.ifft(xp.fft.fft(z) * weights()))[1]), "linear", guide=four)
right("square of a complex number", of(lambda z: xp.imag((z[0] + 1j * z[1]) ** 2)), "2 z w", guide=pair)
wrong(
    "angle of a complex number", of(lambda z: xp.angle(z[0] + 1j * z[1])), LOST, "jump", guide=pair, verdict="suspect"
)
wrong(
    "root of a complex number",
    of(lambda z: xp.imag(xp.sqrt(z[0] + 1j * z[1]))),
    "a cut",
    "jump",
    guide=pair,
    verdict="suspect",
)

# Roots, and rules of one's own ----------------------------------------------------------------------------------------


def root(z):
    """Where x + tanh(x) = z, by Newton's method, with the derivative of the implicit function."""

    def newton(f, x):
        return lax.fori_loop(0, 30, lambda i, x: x - f(x) / (2 - jnp.tanh(x) ** 2), x)

    return lax.custom_root(
        lambda x: x + jnp.tanh(x) - z, jnp.zeros_like(z), newton, lambda g, y: y / g(jnp.ones_like(y))
    )


IMPLICIT = "its slope is that of the implicit function, and the other function is monotone"
right("root", of(root), IMPLICIT, not_on_pyro=RULES)
right("root with a score", of(root), "nothing has to be smooth", strategies={"z": Reinforce()}, not_on_pyro=RULES)
for _name, _rule, _why in (
    ("straight through", lambda z, g: g, "the derivative is not 1"),
    ("reversed", lambda z, g: -2 * z * g, "it has the wrong sign"),
    ("5% off", lambda z, g: 1.05 * 2 * z * g, "it is too large"),
    ("clipped cotangent", lambda z, g: 2 * z * xp.clip(g, -1.0, 1.0), "it is not linear in the cotangent"),
    ("none", lambda z, g: 0 * g, "the derivative is not 0"),
):
    wrong(f"own square, {_name}", of(ruled(lambda z: z**2, _rule)), _why, "derivative rule", not_on_pyro=RULES)
wrong(
    "own square, wrong between two numbers", of(ruled(lambda z: z**2, lambda z, g: jnp.where((z > 2) & (z < 2.2), 0.0, 2 * z) * g)),
    "a tenth of its draws have the slope 0", "derivative rule", verdict="suspect", not_on_pyro=RULES,
)  # fmt: skip
for _name, _f, _rule in (
    ("hyperbolic tangent", jnp.tanh, lambda z, g: (1 - jnp.tanh(z) ** 2) * g),
    ("softplus", lambda z: jnp.log1p(jnp.exp(z)), lambda z, g: jax.nn.sigmoid(z) * g),
    ("magnitude", jnp.abs, lambda z, g: jnp.sign(z) * g),
):
    right(f"own {_name}, right", of(ruled(_f, _rule)), "the rule is the derivative", not_on_pyro=RULES)
