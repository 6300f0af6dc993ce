"""Poles, ties, numbers that are none, pivots and steps of finite slope: jumps that no comparison with a number shows, and code
that looks like them and has none."""

from __future__ import annotations

import jax
from jax import lax

from tests.corpus.programs import ABSENT, CONTINUOUS, LOST, RULES, SMOOTH, of, pair, right, wrong
from tests.engines import dist, nn, ppl, xp

WEIGHTS = (1.0, 3.0)


def entries(f):
    """The objective E[f(first entry, second entry)] of a draw of two."""
    return lambda p, q: (lambda z: f(z[0], z[1]))(q.simulate()["z"])


def two():
    for name in ("z", "w"):
        ppl.sample(name, dist.Normal(ppl.param(f"loc of {name}", 0.3), 1.0))


def weights():
    return xp.array(WEIGHTS)


# Poles ----------------------------------------------------------------------------------------------------------------

SIDES = "it has other limits on the two sides of its pole"
wrong("relu over its argument", of(lambda z: nn.relu(z) / z), SIDES, "jump")
wrong("quotient of the magnitude", of(lambda z: abs(z) / z), SIDES, "jump")
wrong("quotient by the magnitude", of(lambda z: z / abs(z)), SIDES, "jump", verdict="suspect")
wrong("quotient by a square's root", of(lambda z: z / xp.sqrt(z * z)), SIDES, "jump", verdict="suspect")
wrong(
    "normalised single entry", of(lambda z: z[:1] / xp.linalg.norm(z[:1])), SIDES, "jump", guide=pair, verdict="suspect"
)
wrong("arc tangent of a reciprocal", of(lambda z: xp.arctan(1 / z)), SIDES, "jump")
wrong("tanh of a reciprocal", of(lambda z: xp.tanh(1 / z)), SIDES, "jump")
wrong("tanh of a power", of(lambda z: xp.tanh(z**-1)), SIDES, "jump")
wrong("zero to a power", of(lambda z: xp.pow(xp.zeros(()), nn.relu(z))), "0 ** 0 is 1, and 0 beside it", "jump")
wrong("arc tangent of a tangent", of(lambda z: xp.arctan(xp.tan(3 * z))), SIDES, "jump")
wrong("angle", entries(lambda z, w: xp.arctan2(z, w)), "an angle of pi is one of -pi", "jump", guide=pair)
wrong("angle of an angle", of(lambda z: xp.arctan2(xp.sin(3 * z), xp.cos(3 * z))), "as the angle", "jump")
wrong(
    "angle through the origin", of(lambda z: xp.arctan2(z * z, xp.sort(xp.stack([z, z]))[0])), "it goes from pi to 0 where both are 0",
    "jump", verdict="suspect",
)  # fmt: skip
wrong(
    "bounded logarithm of zero", of(lambda z: xp.maximum(z, xp.maximum(xp.log(z - z), -0.3))), "its derivative is 0 times infinity",
    "jump", verdict="suspect",
)  # fmt: skip
wrong(
    "power of what may be negative", of(lambda z: xp.exp(-((z ** (z / z)) ** 2))), "z ** 1 is z, and its derivative in the exponent NaN",
    "jump", verdict="suspect",
)  # fmt: skip
wrong("a mean's pole", of(lambda z: 1 / z), "it has no mean", "jump", verdict="suspect")
wrong(
    "sign of a determinant", of(lambda z: (lambda d: d / abs(d))(z[0] * z[1] - 1.0)), SIDES, "jump", guide=pair,
    verdict="suspect",
)  # fmt: skip
wrong(
    "tanh of a solution", of(lambda z: xp.tanh(xp.linalg.solve(xp.eye(2) * z, xp.ones((2, 1))))[0, 0]), SIDES, "jump",
    verdict="suspect",
)  # fmt: skip
wrong(
    "pole beside what is 1", of(lambda z: (lambda a: xp.sinh(xp.exp(xp.where(a > -0.3, a + 0.3, 0.0))))(xp.arctanh(z))),
    "it is infinite as the draw comes to 1, and 1 beyond", "jump", verdict="suspect",
)  # fmt: skip
right("arc tangent of what is positive", of(lambda z: xp.arctan(1 / nn.softplus(z))), "its divisor has no zero")
right("sinc by hand", of(lambda z: xp.sin(z) / z), "its pole is none: both sides have the limit 1")
right(
    "half an angle of two sites", lambda p, q: (lambda z: xp.arctan2(abs(z["z"]), z["w"]))(q.simulate()), "no draws meet the origin",
    guide=two,
)  # fmt: skip
right("hypotenuse", entries(lambda z, w: xp.hypot(z, w)), "its quotient is one by 1 where both are 0", guide=pair)
right("ceiling of a probability", of(lambda z: xp.ceil(nn.sigmoid(z)) * z), "it is 1")
right("logarithm of a sine", of(lambda z: xp.log(xp.sin(1 + nn.sigmoid(z)))), "a sine is positive between 1 and 2")
right("root of an area sine", of(lambda z: xp.sqrt(xp.arcsinh(xp.exp(z)))), "it is positive where its argument is")
right("double reciprocal", of(lambda z: 1 / (2 + 1 / (1 + z * z))), "no divisor is zero")
right("logarithm of one less a sigmoid", of(lambda z: xp.log(1 - nn.sigmoid(z))), "a sigmoid is below 1")
right("Jacobian of tanh", of(lambda z: xp.log(1 - xp.tanh(z) ** 2)), "tanh is within (-1, 1)")
right(
    "layer norm",
    of(lambda z: (z / xp.sqrt(xp.mean((z - xp.mean(z)) ** 2) + 1e-5))[0]),
    "its divisor is positive",
    guide=pair,
)
right("power of a positive number", of(lambda z: xp.exp(z) ** 0.3), SMOOTH)
right("safe root", of(lambda z: xp.where(z > 0, xp.sqrt(xp.where(z > 0, z, 1.0)), 0.0)), CONTINUOUS)
right(
    "safe norm",
    of(lambda z: xp.where(xp.sum(z * z) > 0, xp.sqrt(xp.where(xp.sum(z * z) > 0, xp.sum(z * z), 1.0)), 0.0)),
    "a sum of squares is zero on a null set", guide=pair,
)  # fmt: skip

# What hides a jump ----------------------------------------------------------------------------------------------------


def beside(f):
    """The objective of a vector whose first entry jumps in the draw, which is the second."""
    return of(lambda z: f(xp.stack([xp.sign(z), z])))


for _name, _f, _because in (
    ("norm", lambda a: xp.linalg.norm(a), "of what goes from -1 to 1 the magnitude is the same"),
    ("sum of squares", lambda a: a @ a, "of what goes from -1 to 1 the square is the same"),
    ("product", lambda a: xp.cumprod(a, 0)[1], "one factor is 0 where the other jumps"),
    ("product by hand", lambda a: a[0] * a[1], "one factor is 0 where the other jumps"),
    ("cosine", lambda a: xp.cos(a), "a cosine is even"),
    ("clipped entry", lambda a: xp.maximum(a[0], 1.0) + a[1], "it jumps below the bound"),
    ("other entry", lambda a: a[1] ** 2, "it is the draw"),
    ("case apart", lambda a: xp.where(a[1] > 1, a[0], 1.0) * a[1], "it jumps where the other case is taken"),
):
    right(f"{_name} of what jumps", beside(_f), _because, verdict="suspect")
for _name, _f in (
    ("linear function", lambda a: (2 * a - 1) @ weights()),
    ("exponential", lambda a: xp.exp(a)),
):
    wrong(f"{_name} of what jumps", beside(_f), LOST, "jump")
wrong("quotient of what jumps", of(lambda z: xp.stack([xp.sign(z), z]) / nn.softplus(z)), LOST, "jump")

# Ties -----------------------------------------------------------------------------------------------------------------

WHICH = "it says which entry is the greatest"
for _name, _f in (
    ("the greatest entry", lambda z: xp.where(z == xp.max(z), weights(), 0.0)),
    ("the least entry", lambda z: xp.where(z == xp.sort(z)[0], weights(), 0.0)),
    ("the entries below the greatest", lambda z: xp.where(z < xp.max(z), weights(), 0.0)),
):
    wrong(f"is it {_name}", of(_f), WHICH, "jump", guide=pair, verdict="suspect")
wrong(
    "gradient of a maximum",
    of(lambda z: jax.grad(xp.max)(z) @ weights()),
    WHICH,
    "jump",
    guide=pair,
    verdict="suspect",
    not_on_pyro=RULES,
)
wrong(
    "a product of which half is zero",
    entries(lambda z, w: xp.where(nn.relu(w) * z == 0, 3.0, 0.0)),
    LOST,
    "jump",
    guide=pair,
)
wrong("a test that is always true", of(lambda z: xp.where(z * 0 == 0, xp.sign(z), 0.0)), LOST, "jump")
right("equal to a number", of(lambda z: xp.where(z == 0.5, 3.0, z)), "on a null set")
right("equal entries", entries(lambda z, w: xp.where(z == w, 3.0, z)), "on a null set", guide=pair)

for _name, _f in (
    ("a logarithm where it is one", lambda z: xp.where(z > 0, xp.log(xp.where(z > 0, z, 1.0)), 0.0)),
    ("a logarithm above a number", lambda z: xp.where(z > 0.3, xp.log(xp.where(z > 0.3, z - 0.3, 1.0)), 0.0)),
    ("a logarithm or 0", lambda z: xp.nan_to_num(xp.log(z))),
):
    wrong(_name, of(_f), "beside its pole it has no limit that the other piece could meet", "jump", verdict="suspect")
right(
    "entropy where it is one", of(lambda z: xp.where(z > 0, z * xp.log(xp.where(z > 0, z, 1.0)), 0.0)),
    "z log z has the limit 0",
)  # fmt: skip
wrong("is a square's root itself", of(lambda z: xp.where(xp.sqrt(z * z) == z, 1.0, 0.0)), LOST, "jump")

# Bounds ---------------------------------------------------------------------------------------------------------------


def wide():
    ppl.sample("z", dist.Normal(ppl.param("loc", 0.3), 30.0))


def near_zero():
    ppl.sample("z", dist.Beta(ppl.param("a", 0.05, constraint=dist.constraints.positive), 1.0))


ABOVE = "what is above a negative number may be negative"
wrong("a test after another", of(lambda z: xp.where(xp.where(z > -5, z, 1.0) > 0, 1.0, 0.0)), ABOVE, "jump")
wrong("a test after two", of(lambda z: xp.where(xp.where((z > -3) & (z < 3), z, 1.0) > 0, 1.0, 0.0)), ABOVE, "jump")
wrong("sign after a test", of(lambda z: xp.sign(xp.where(z > -5, z, 1.0))), ABOVE, "jump")
SMALL = "what is above 0 may be as small as numbers are"
wrong(
    "a small sigmoid",
    of(lambda z: xp.where(nn.sigmoid(z) > 1e-18, 1.0, 0.0)),
    SMALL,
    "jump",
    guide=wide,
    verdict="suspect",
)
wrong("a small draw", of(lambda z: xp.where(z > 1e-20, 1.0, 0.0)), SMALL, "jump", guide=near_zero, verdict="suspect")

# Numbers that are none ------------------------------------------------------------------------------------------------

NONE = "whether it is NaN depends on the draw"
wrong("is a root NaN", of(lambda z: xp.where(xp.isnan(xp.sqrt(z)), 3.0, 0.0)), NONE, "jump")
wrong("is a logarithm itself", of(lambda z: (lambda x: xp.where(x != x, 3.0, 0.0))(xp.log(z))), NONE, "jump")
wrong("replaced logarithm", of(lambda z: xp.nan_to_num(xp.log(z), nan=5.0)), NONE, "jump")
wrong("replaced arc sine", of(lambda z: xp.nan_to_num(xp.arcsin(z), nan=5.0)), NONE, "jump")
wrong(
    "greatest but NaN", of(lambda z: xp.nanmax(-xp.sqrt(z))), NONE, "jump", guide=pair, not_on_pyro=ABSENT
)  # fmt: skip
wrong(
    "replaced NaN of a test", of(lambda z: xp.nan_to_num(xp.where(z > 0, xp.nan, z), nan=5.0)), NONE, "jump", verdict="suspect",
)  # fmt: skip
wrong(
    "replaced factor",
    of(lambda z: xp.nan_to_num(xp.linalg.cholesky(xp.eye(2) + z * (1 - xp.eye(2)))[1, 1], nan=5.0)),
    "the factor exists for some draws only", "jump", verdict="suspect", not_on_pyro="a factor that fails raises there",
)  # fmt: skip
right("is a draw NaN", of(lambda z: xp.where(xp.isnan(z), 3.0, z)), "no draw is NaN")
right("is a softplus finite", of(lambda z: xp.where(xp.isfinite(nn.softplus(z)), z, 0.0)), "a softplus is finite")

# Pivots, signs and rounding -------------------------------------------------------------------------------------------


def matrix(z):
    return xp.stack([xp.stack([z[0], z[1]]), xp.array([1.0, 2.0])])


def symmetric(z):
    return xp.stack([xp.stack([z[0], z[1]]), xp.stack([z[1], 1.0 - z[0]])])


PIVOT = "rows are swapped, or signs chosen, as the draw has it"
for _name, _f in (
    ("LU", lambda z: lax.linalg.lu(matrix(z))[0][0, 0]),
    ("QR", lambda z: xp.linalg.qr(matrix(z))[0][0, 0]),
    ("eigenvector", lambda z: xp.linalg.eigh(symmetric(z))[1][0, 0]),
    ("singular vector", lambda z: xp.linalg.svd(matrix(z))[0][0, 0]),
):
    absent = ABSENT if _name == "LU" else ""
    wrong(_name, of(_f), PIVOT, "jump", guide=pair, verdict="suspect", not_on_pyro=absent)
right("eigenvalues", of(lambda z: xp.linalg.eigvalsh(symmetric(z))[0]), "in order they are continuous", guide=pair)
right("singular values", of(lambda z: xp.linalg.svd(matrix(z))[1][0]), "in order they are continuous", guide=pair)
right(
    "solution for what is drawn", of(lambda z: xp.linalg.solve(xp.eye(2) * 3 + xp.ones((2, 2)), z[:, None])[0, 0]),
    "linear in it", guide=pair,
)  # fmt: skip
wrong(
    "function of a place", of(lambda z: xp.stack([z, z]).at[0].apply(xp.sign)), LOST, "jump", verdict="suspect", not_on_pyro=ABSENT
)  # fmt: skip
wrong("few digits", of(lambda z: lax.reduce_precision(z, 8, 2)), LOST, "jump", verdict="suspect", not_on_pyro=ABSENT)
for _name in ("float16", "bfloat16"):
    wrong(
        f"rounded to {_name}", of(lambda z, _name=_name: xp.asarray(xp.asarray(z, getattr(xp, _name)), float)), LOST, "jump",
        verdict="suspect",
    )  # fmt: skip
wrong(
    "small step, summed and scaled",
    of(lambda z: 1e5 * xp.sum(1e-5 * z + xp.where(z > 0, 4e-6, 0.0))),
    LOST,
    "jump",
    guide=pair,
)
right(
    "spectrum",
    of(lambda z: abs(xp.fft.fft(z)[1])),
    "a norm of linear functions",
    guide=pair,
)
right(
    "greatest by index",
    of(lambda z: xp.zeros(2).at[xp.array([0, 0])].max(z)[0]),
    CONTINUOUS,
    guide=pair,
    not_on_pyro=ABSENT,
)

# Steps of finite slope ------------------------------------------------------------------------------------------------

STEEP = "hardly a draw meets its slope"
for _name, _f in (
    ("sigmoid", lambda z: nn.sigmoid(1e8 * z)),
    ("tanh", lambda z: xp.tanh(z / 1e-7)),
    ("clip", lambda z: xp.clip(1e8 * z, 0.0, 1.0)),
    ("softened sign", lambda z: z / (abs(z) + 1e-8)),
    ("square's root", lambda z: z / xp.sqrt(z * z + 1e-20)),
    ("bump", lambda z: xp.exp(-1e16 * (z - 0.37) ** 2)),
):
    wrong(f"steep {_name}", of(_f), STEEP, "jump", verdict="suspect")
wrong("steep softmax", of(lambda z: nn.softmax(1e8 * z) @ weights()), STEEP, "jump", guide=pair, verdict="suspect")
right("logarithm with a small number added", of(lambda z: xp.log(nn.sigmoid(z) + 1e-8)), "its slope is at most 1")
right("large multiple", of(lambda z: 1e7 * nn.softplus(z)), "as steep as it is large")

# Derivative rules -----------------------------------------------------------------------------------------------------


def ruled(function, rule):
    """A function with a backward rule of (argument, cotangent)."""
    out = jax.custom_vjp(function)
    out.defvjp(lambda z: (function(z), z), lambda z, cotangent: (rule(z, cotangent),))
    return out


NEARLY = "the rule is nearly the derivative"
for _name, _rule, _verdict in (
    ("3% off", lambda z, g: 1.03 * 3 * z**2 * g, "biased"),
    ("clipped", lambda z, g: xp.clip(3 * z**2 * g, -1.0, 1.0), "biased"),
    ("far out", lambda z, g: xp.where(abs(z) < 6, 3 * z**2, 0.0) * g, "suspect"),
):
    wrong(
        f"own rule, {_name}",
        of(ruled(lambda z: z**3, _rule)),
        NEARLY,
        "derivative rule",
        verdict=_verdict,
        not_on_pyro=RULES,
    )


@jax.custom_gradient
def _halved(z):
    return z**2, lambda cotangent: cotangent * z


wrong("own gradient", of(_halved), "half of the derivative", "derivative rule", not_on_pyro=RULES)
