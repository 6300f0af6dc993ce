"""Random functions of a draw: compositions of the operations that users write, with jumps, kinks, poles and ends of domains.

A function is a tree, which is plain data. It is read twice: as code on NumPyro or Pyro, and in many digits, by what each of
its operations is in mathematics, with the state of every switch, so that `sections` finds where it jumps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np
import scipy.special
import torch
from mpmath import isinf, isnan, mp, mpf, nan, sign

from tests.engines import dist, nn, xp


@dataclass(frozen=True)
class Tree:
    name: str
    numbers: tuple[float, ...] = ()
    operands: tuple[Tree, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, (*self.operands, *self.numbers)))})" if self.operands else self.name


Z = Tree("z")


@dataclass(frozen=True)
class Random:
    """A random function of a draw of a family."""

    family: str
    tree: Tree

    def __str__(self) -> str:
        return f"{self.tree}, z {self.family}"


class UnknownError(Exception):
    """A value that depends on the sign of zero, or on what a machine does with NaN."""


@dataclass(frozen=True)
class Operation:
    code: Callable[..., Any]
    """Of arrays, after the numbers."""
    exact: Callable[..., Any]
    """Of numbers in many digits, none of which is NaN unless it `sees_nan`."""
    switch: Callable[..., Hashable] | None = None
    """The state that changes where the operation jumps or has a pole."""
    numbers: tuple[tuple[float, ...], ...] = ()
    """What its constants may be."""
    operands: int = 1
    sees_nan: bool = False


# What the operations are in mathematics -----------------------------------------------------------------------------------


def side(*ends: float) -> Callable[..., Hashable]:
    """On which side of each end the last operand is."""
    return lambda *xs: tuple(int(sign(xs[-1] - end)) for end in ends)


def within(low: float, high: float, function: Callable[[Any], Any]) -> Callable[..., Any]:
    """NaN outside of a domain."""
    return lambda x: function(x) if low <= x <= high else nan


def log(x):
    return nan if x < 0 else -mp.inf if x == 0 else mp.log(x)


def over(x, y):
    if y == 0 or isinf(y):
        if y == 0:
            raise UnknownError
        return nan if isinf(x) else mpf(0)
    return x / y


def root(x):
    return nan if x < 0 else mp.sqrt(x)


def exp(x):
    return mp.inf if x > 1e4 else mpf(0) if x < -1e4 else mp.exp(x)


def erf(x):
    return sign(x) if abs(x) > 30 else mp.erf(x)


def erfinv(x):
    """By Newton's method, from its limit near the ends."""
    if abs(x) >= 1:
        return nan if abs(x) > 1 else sign(x) * mp.inf
    near_end = 1 - abs(x) < 1e-12
    y = sign(x) * mp.sqrt(-mp.log(1 - abs(x))) if near_end else mpf(float(scipy.special.erfinv(float(x))))
    for _ in range(12 if near_end else 3):
        y -= (mp.erf(y) - x) * mp.sqrt(mp.pi) / 2 * mp.exp(y * y)
    return y


def power(x, y):
    if y == 0 or x == 1:
        return mpf(1)
    if isinf(x) or isinf(y) or (x == 0 and y < 0):
        raise UnknownError
    if x == 0:
        return mpf(0)
    if x < 0 and y != mp.floor(y):
        return nan
    if abs(y * mp.log(abs(x))) > 1e4:
        raise UnknownError
    return mp.power(x, y).real


def softplus(x):
    return x if x > 200 else mp.log1p(exp(x))


def logistic(x):
    return 1 / (1 + exp(-x))


def gamma_log(x):
    if x <= 0 and x == mp.floor(x):
        return mp.inf
    return mp.inf if isinf(x) else mp.log(abs(mp.gamma(x))) if abs(x) < 200 else mp.loggamma(x).real


def digamma(x):
    if isinf(x):
        return x if x > 0 else nan
    return nan if x <= 0 and x == mp.floor(x) else mp.digamma(x)


def floor(x):
    return x if isinf(x) else mp.floor(x)


def trunc(x):
    return x if isinf(x) else sign(x) * mp.floor(abs(x))


def nearest(x):
    """To even where two are as near."""
    return x if isinf(x) else mp.nint(x)


def rest(whole):
    def exact(x, y):
        if isinf(x) or isinf(y) or y == 0:
            raise UnknownError
        return x - y * whole(x / y)

    return exact


def angle(y, x):
    if y == 0 and x <= 0:
        raise UnknownError
    return mp.atan2(y, x)


def sine(function):
    return lambda x: nan if isinf(x) else function(x)


def to_bfloat16(x):
    if x == 0 or isinf(x):
        return x
    step = mpf(2) ** (mp.floor(mp.log(abs(x), 2)) - 7)
    return mp.nint(x / step) * step


def hyperbolic(x):
    return sign(x) if abs(x) > 1e3 else mp.tanh(x)


def add_logs(x, y):
    top, low = max(x, y), min(x, y)
    return top if isinf(top) else top + softplus(low - top)


def bounded(x, function):
    """Of what is so large that it would fill the memory, infinity."""
    return sign(x) * mp.inf if abs(x) > 1e4 else function(x)


def known(x):
    if isnan(x):
        raise UnknownError
    return x


def on_line(x, xs, ys):
    if x <= xs[0] or x >= xs[-1]:
        return mpf(ys[0] if x <= xs[0] else ys[-1])
    i = max(i for i, left in enumerate(xs) if left <= x)
    return ys[i] + (x - xs[i]) * (mpf(ys[i + 1]) - ys[i]) / (mpf(xs[i + 1]) - xs[i])


def product(x, y):
    return nan if (x == 0 and isinf(y)) or (y == 0 and isinf(x)) else x * y


# What they are as code ----------------------------------------------------------------------------------------------------

EDGES, TABLE = (-0.7, 0.4, 1.3), (0.2, -1.0, 1.5, 0.6)
XS, YS = (-1.0, 0.5, 2.0), (0.3, 1.5, -0.5)


def on(numpyro: Callable[..., Any], pyro: Callable[..., Any]) -> Callable[..., Any]:
    """Where the engines write an operation in different ways."""
    return lambda *args: (pyro if isinstance(args[-1], torch.Tensor) else numpyro)(*args)


def pair(x, y):
    return xp.stack([x, y], -1)


def picked(values, places):
    return on(lambda p, v: jnp.take_along_axis(v, p, -1), lambda p, v: torch.gather(v, -1, p))(
        places[..., None], values
    )[..., 0]


def interpolated(x):
    xs, ys = torch.tensor(XS), torch.tensor(YS)
    i = torch.clamp(torch.searchsorted(xs, x) - 1, 0, 1)
    t = torch.clamp((x - xs[i]) / (xs[i + 1] - xs[i]), 0.0, 1.0)
    return ys[i] + t * (ys[i + 1] - ys[i])


def special(name, pyro=None):
    return on(getattr(jax.scipy.special, name), getattr(torch.special, pyro or name))


ANY = (-2.0, -1.0, -0.5, 0.3, 0.7, 1.5, 2.5)
SOME = (-0.8, -0.3, 0.4, 0.9, 1.6)
POSITIVE = (0.3, 0.5, 1.2, 2.0)
zero, unit = side(0), side(-1, 1)


def above(c, x):
    return x > c


def less(x, y):
    return x < y


Op = Operation
ARITHMETIC = {
    "plus": Op(lambda c, x: x + c, lambda c, x: x + c, numbers=(ANY,)),
    "times": Op(lambda c, x: c * x, lambda c, x: c * x, numbers=(ANY,)),
    "minus": Op(lambda c, x: c - x, lambda c, x: c - x, numbers=(ANY,)),
    "part": Op(lambda c, x: x / c, lambda c, x: x / c, numbers=(ANY,)),
    "inverse": Op(lambda c, x: c / x, lambda c, x: over(mpf(c), x), zero, (ANY,)),
    "square": Op(lambda x: x**2, lambda x: x * x),
    "cube": Op(lambda x: x**3, lambda x: x**3),
    "power -1": Op(lambda x: x**-1, lambda x: over(mpf(1), x), zero),
    "power -2": Op(lambda x: x**-2.0, lambda x: over(mpf(1), x * x), zero),
    "power": Op(lambda c, x: x**c, lambda c, x: power(x, mpf(c)), zero, ((0.5, 1.5, 2.5, -0.5, 2.0, 3.0, 1.0),)),
    "exponential": Op(
        lambda c, x: c**x, lambda c, x: power(mpf(c), x), lambda c, x: c == 0 and sign(x), ((0.0, 0.5, 1.0, 2.0, 3.0),)
    ),
    "add": Op(lambda x, y: x + y, lambda x, y: x + y, operands=2),
    "sub": Op(lambda x, y: x - y, lambda x, y: x - y, operands=2),
    "mul": Op(lambda x, y: x * y, product, operands=2),
    "div": Op(lambda x, y: x / y, over, zero, operands=2),
    "pow": Op(lambda x, y: x**y, power, lambda x, y: (sign(x), sign(y)), operands=2),
}
ROOTS = {
    "sqrt": Op(lambda x: xp.sqrt(x), root, zero),
    "rsqrt": Op(on(jax.lax.rsqrt, torch.rsqrt), lambda x: over(mpf(1), root(x)) if x >= 0 else nan, zero),
    "cbrt": Op(on(jnp.cbrt, lambda x: torch.sign(x) * torch.abs(x) ** (1 / 3)), lambda x: sign(x) * mp.cbrt(abs(x))),
    "hypot": Op(lambda x, y: xp.hypot(x, y), mp.hypot, operands=2),
    "norm": Op(lambda x, y: xp.linalg.norm(pair(x, y), 2, -1), mp.hypot, operands=2),
}
EXPONENTIALS = {
    "exp": Op(lambda x: xp.exp(x), exp),
    "exp2": Op(lambda x: xp.exp2(x), lambda x: exp(x * mp.log(2))),
    "expm1": Op(lambda x: xp.expm1(x), lambda x: exp(x) - 1),
    "log": Op(lambda x: xp.log(x), log, zero),
    "log1p": Op(lambda x: xp.log1p(x), lambda x: log(1 + x), side(-1)),
    "log2": Op(lambda x: xp.log2(x), lambda x: log(x) / mp.log(2), zero),
    "log10": Op(lambda x: xp.log10(x), lambda x: log(x) / mp.log(10), zero),
    "sigmoid": Op(lambda x: nn.sigmoid(x), logistic),
    "softplus": Op(lambda x: nn.softplus(x), softplus),
    "log_sigmoid": Op(on(jax.nn.log_sigmoid, torch.nn.functional.logsigmoid), lambda x: -softplus(-x)),
    "logit": Op(on(jax.scipy.special.logit, torch.logit), lambda x: nan if x < 0 or x > 1 else log(x) - log(1 - x), side(0, 1)),
    "silu": Op(lambda x: nn.silu(x), lambda x: product(x, logistic(x))),
    "logaddexp": Op(lambda x, y: xp.logaddexp(x, y), add_logs, operands=2),
    "logsumexp": Op(lambda x, y: nn.logsumexp(pair(x, y), -1), add_logs, operands=2),
    "softmax": Op(lambda x, y: nn.softmax(pair(x, y), -1)[..., 0], lambda x, y: logistic(x - y), operands=2),
}  # fmt: skip
CIRCULAR = {
    "sin": Op(lambda x: xp.sin(x), sine(mp.sin)),
    "cos": Op(lambda x: xp.cos(x), sine(mp.cos)),
    "tan": Op(lambda x: xp.tan(x), sine(mp.tan), lambda x: floor(x / mp.pi + 0.5)),
    "arcsin": Op(lambda x: xp.arcsin(x), within(-1, 1, mp.asin), unit),
    "arccos": Op(lambda x: xp.arccos(x), within(-1, 1, mp.acos), unit),
    "arctan": Op(lambda x: xp.arctan(x), mp.atan),
    "arctan2": Op(lambda x, y: xp.arctan2(x, y), angle, lambda y, x: sign(y) * (x <= 0), operands=2),
    "sinh": Op(lambda x: xp.sinh(x), lambda x: bounded(x, mp.sinh)),
    "cosh": Op(lambda x: xp.cosh(x), lambda x: abs(bounded(x, mp.cosh))),
    "tanh": Op(lambda x: xp.tanh(x), hyperbolic),
    "arcsinh": Op(lambda x: xp.arcsinh(x), mp.asinh),
    "arccosh": Op(lambda x: xp.arccosh(x), within(1, math.inf, mp.acosh), side(1)),
    "arctanh": Op(
        lambda x: xp.arctanh(x), lambda x: nan if abs(x) > 1 else x * mp.inf if abs(x) == 1 else mp.atanh(x), unit
    ),
}
SPECIAL = {
    "erf": Op(special("erf"), erf),
    "erfc": Op(special("erfc"), lambda x: 1 - erf(x)),
    "erfinv": Op(special("erfinv"), erfinv, unit),
    "lgamma": Op(on(jax.scipy.special.gammaln, torch.lgamma), gamma_log, lambda x: min(mp.ceil(x), 1)),
    "digamma": Op(special("digamma"), digamma, lambda x: min(mp.ceil(x), 1)),
    "ndtr": Op(special("ndtr"), lambda x: (1 + erf(x / mp.sqrt(2))) / 2),
    "ndtri": Op(special("ndtri"), lambda x: mp.sqrt(2) * erfinv(2 * x - 1), side(0, 1)),
}
KINKED = {
    "abs": Op(lambda x: xp.abs(x), abs),
    "relu": Op(lambda x: nn.relu(x), lambda x: max(x, mpf(0))),
    "relu6": Op(lambda x: nn.relu6(x), lambda x: min(max(x, mpf(0)), mpf(6))),
    "elu": Op(lambda x: nn.elu(x), lambda x: x if x > 0 else exp(x) - 1),
    "leaky_relu": Op(lambda x: nn.leaky_relu(x), lambda x: x if x > 0 else x / 100),
    "clip": Op(lambda c, x: xp.clip(x, c, c + 1.0), lambda c, x: min(max(x, mpf(c)), mpf(c) + 1), numbers=(SOME,)),
    "at least": Op(lambda c, x: xp.maximum(x, c), lambda c, x: max(x, mpf(c)), numbers=(SOME,)),
    "max": Op(lambda x, y: xp.maximum(x, y), max, operands=2),
    "min": Op(lambda x, y: xp.minimum(x, y), min, operands=2),
    "first": Op(lambda x, y: xp.sort(pair(x, y))[..., 0], min, operands=2),
    "last": Op(lambda x, y: xp.sort(pair(x, y))[..., 1], max, operands=2),
    "amax": Op(on(lambda x, y: jnp.max(pair(x, y), -1), lambda x, y: torch.amax(pair(x, y), -1)), max, operands=2),
    "cumsum": Op(lambda x, y: xp.cumsum(pair(x, y), -1)[..., 1], lambda x, y: x + y, operands=2),
    "cumprod": Op(lambda x, y: xp.cumprod(pair(x, y), -1)[..., 1], product, operands=2),
    "interp": Op(on(lambda x: jnp.interp(x, jnp.array(XS), jnp.array(YS)), interpolated), lambda x: on_line(x, XS, YS)),
}  # fmt: skip
JUMPING = {
    "sign": Op(lambda x: xp.sign(x), sign, zero),
    "floor": Op(lambda x: xp.floor(x), floor, floor),
    "ceil": Op(lambda x: xp.ceil(x), lambda x: -floor(-x), lambda x: floor(-x)),
    "round": Op(lambda x: xp.round(x), nearest, nearest),
    "trunc": Op(lambda x: xp.trunc(x), trunc, trunc),
    "integer": Op(on(lambda x: x.astype(int) * 1.0, lambda x: x.long() * 1.0), trunc, trunc),
    "bfloat16": Op(
        on(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), lambda x: x.to(torch.bfloat16).to(x.dtype)), to_bfloat16, to_bfloat16
    ),
    "remainder": Op(lambda c, x: xp.remainder(x, c), lambda c, x: rest(mp.floor)(x, mpf(c)), lambda c, x: floor(x / c), (ANY,)),
    "fmod": Op(lambda c, x: xp.fmod(x, c), lambda c, x: rest(trunc)(x, mpf(c)), lambda c, x: trunc(x / c), (ANY,)),
    "mod": Op(lambda x, y: xp.remainder(x, y), rest(mp.floor), lambda x, y: mp.floor(x / y), operands=2),
    "heaviside": Op(
        on(lambda c, x: jnp.heaviside(x, c), lambda c, x: (x > 0) * 1.0), lambda c, x: mpf(x > 0) if x else known(nan), zero, (SOME,)
    ),
    "truth": Op(lambda c, x: (x > c) * 1.0, lambda c, x: mpf(x > c), above, (SOME,), sees_nan=True),
    "masked": Op(lambda c, x: (x > c) * (x - c), lambda c, x: mpf(x > c) * (x - c), above, (SOME,)),
    "step": Op(lambda c, x: xp.where(x > c, x, 0.5), lambda c, x: x if x > c else mpf(0.5), above, (SOME,), sees_nan=True),
    "bend": Op(lambda c, x: xp.where(x > c, x - c, 0.0), lambda c, x: x - c if x > c else mpf(0), above, (SOME,), sees_nan=True),
    "fold": Op(lambda c, x: xp.where(x <= c, c - x, (x - c) ** 2), lambda c, x: c - x if x <= c else (x - c) ** 2, above, (SOME,)),
    "choose": Op(
        lambda c, x, y, z: xp.where(x >= c, y, z), lambda c, x, y, z: y if x >= c else z, lambda c, x, y, z: x >= c, (SOME,), 3, True
    ),
    "compare": Op(lambda x, y: xp.where(x < y, x, y**2), lambda x, y: x if x < y else y * y, less, operands=2, sees_nan=True),
    "floored": Op(lambda c, x: xp.where(x == c, 1.0, x), lambda c, x: mpf(1) if x == c else x, lambda c, x: x == c, ((0.0, 6.0),), sees_nan=True),
    "equal": Op(lambda c, x: (x == c) * 1.0, lambda c, x: mpf(x == c), lambda c, x: x == c, ((0.0, 1.0, 6.0),), sees_nan=True),
    "is largest": Op(lambda x, y: xp.where(x == xp.maximum(x, y), 2.0, -1.0), lambda x, y: mpf(2 if x >= y else -1), less, operands=2),
    "carried": Op(
        lambda x, y: picked(pair(y, x + y), pair(x, y).argmax(-1)), lambda x, y: y if x >= y else x + y, less, operands=2
    ),
    "lookup": Op(
        on(
            lambda x: jnp.array(TABLE)[jnp.searchsorted(jnp.array(EDGES), x)],
            lambda x: torch.tensor(TABLE)[torch.searchsorted(torch.tensor(EDGES), x.contiguous())],
        ),
        lambda x: mpf(TABLE[sum(edge < x for edge in EDGES)]),
        side(*EDGES),
    ),
    "digitize": Op(
        on(lambda x: jnp.digitize(x, jnp.array(EDGES)) * 1.0, lambda x: torch.bucketize(x, torch.tensor(EDGES), right=True) * 1.0),
        lambda x: mpf(sum(edge <= x for edge in EDGES)),
        side(*EDGES),
    ),
    "is nan": Op(lambda x: xp.where(xp.isnan(x), 2.0, x), lambda x: mpf(2) if isnan(x) else x, isnan, sees_nan=True),
    "is finite": Op(lambda x: xp.where(xp.isfinite(x), x, 0.4), lambda x: x if mp.isfinite(x) else mpf(0.4), mp.isfinite, sees_nan=True),
    "to number": Op(
        on(lambda x: jnp.nan_to_num(x, nan=0.3, posinf=9.0, neginf=-9.0), lambda x: torch.nan_to_num(x, 0.3, 9.0, -9.0)),
        lambda x: mpf(0.3) if isnan(x) else mpf(9) * sign(x) if isinf(x) else x, mp.isfinite, sees_nan=True,
    ),
    "copysign": Op(lambda x, y: xp.copysign(x, y), lambda x, y: abs(x) * (sign(y) or known(nan)), lambda x, y: sign(y), operands=2),
    "held": Op(on(jax.lax.stop_gradient, torch.detach), lambda x: x),
}  # fmt: skip
KINDS = (ARITHMETIC, ROOTS, EXPONENTIALS, CIRCULAR, SPECIAL, KINKED, JUMPING)
OPERATIONS: dict[str, Operation] = {name: operation for kind in KINDS for name, operation in kind.items()}


# How functions are read ---------------------------------------------------------------------------------------------------

FAMILIES = {
    "normal": (lambda loc, scale: dist.Normal(loc, scale), lambda u: u),
    "positive": (lambda loc, scale: dist.LogNormal(loc, scale), mp.exp),
    "in (0, 1)": (
        lambda loc, scale: dist.TransformedDistribution(dist.Normal(loc, scale), [dist.transforms.SigmoidTransform()]), logistic
    ),
}  # fmt: skip
"""Each as a distribution, and as what it makes of a normal draw."""


def code_of(tree):
    """The function of an array of draws, which holds nothing but what it uses."""
    if tree is Z:
        return lambda z: z
    code, numbers, operands = OPERATIONS[tree.name].code, tree.numbers, tuple(map(code_of, tree.operands))
    return lambda z: code(*numbers, *(operand(z) for operand in operands))


def exact_of(function):
    """The function of a normal draw, in many digits, with the states of its switches."""

    def exact(u):
        value, met = traced(function, u)
        return value, tuple(state for _, state in met)

    return exact


def traced(function, u):
    """The value, and what every operation on the way returns with the state of its switch."""
    met: list[tuple[Any, Hashable]] = []
    return value_of(function.tree, FAMILIES[function.family][1](mpf(u)), met), met


def value_of(tree, z, met):
    if tree is Z:
        return z
    operation, xs = OPERATIONS[tree.name], [value_of(operand, z, met) for operand in tree.operands]
    unknown = not operation.sees_nan and any(map(isnan, xs))
    value = nan if unknown else operation.exact(*tree.numbers, *xs)
    state = None if unknown or operation.switch is None else operation.switch(*tree.numbers, *xs)
    met.append((value, (bool(isnan(value)), state)))
    return value


# How functions are drawn --------------------------------------------------------------------------------------------------

REACH = 4.0
"""So many standard deviations from the mean a draw still comes to lie."""
LARGEST = 1e6
"""Of what is met on the way; beyond, rounding hides everything."""


def random_function(seed):
    rng = random.Random(seed)
    while True:
        depth = rng.choice([1, 2, 3, 3, 4, 4, 5, 5, 6])
        function = Random(rng.choice(["normal", "normal", *FAMILIES]), grown(rng, depth, rng.random() < 0.5))
        if is_tame(function):
            return function


def grown(rng, depth, calm):
    if not depth:
        return Z
    kind = rng.choice(KINDS[:-1] if calm else KINDS)
    name, operation = rng.choice(list(kind.items()))
    depths = [depth - 1, *(min(depth - 1, rng.choice([0, 1, 1, 2])) for _ in range(operation.operands - 1))]
    rng.shuffle(depths)
    operands = tuple(grown(rng, d, calm) for d in depths)
    return Tree(name, tuple(map(rng.choice, operation.numbers)), operands)


def is_tame(function):
    """Whether it is a number that varies, and nothing on the way is so large that rounding hides it all."""
    try:
        with mp.workdps(20):
            runs = [traced(function, u) for u in np.linspace(-REACH, REACH, 24) + 0.01]
    except UnknownError:
        return False
    values = {value for value, _ in runs if mp.isfinite(value)}
    small = all(not mp.isfinite(x) or abs(x) < LARGEST for _, met in runs for x, _ in met)
    return small and len(values) > 1 and all(mp.isfinite(value) for value, _ in runs)
