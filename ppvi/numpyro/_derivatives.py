"""Derivative rules that a user wrote, against the derivative of what they are the rule of.

    cotangent . df(x) direction = rule(x, cotangent) . direction

at random values within the bounds that the operands have in the program, and cotangents, of several sizes, and beside the
numbers in the rule's text: a rule may be wrong far out only, or between two numbers, or clip what it is given. The derivative
is JAX's own, of the function without the rule; where the two differ, central differences decide, since rules are written for
functions whose own derivative is not stable.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppvi.numpyro import _compat, _rules as rules
from ppvi.numpyro._compat import ClosedJaxpr, Literal as JaxLiteral, jaxpr_as_fun

SIZES = (1.0, 0.1, 10.0, 100.0)
"""Of values and of cotangents. At those of the first a rule that disagrees is wrong for certain."""
POINTS = 32
"""For each size."""
BESIDE, NEARBY = 4, 0.02
"""So many points beside each number in the text of the rule, and how near."""
TOLERANCE, STEP = 2e-3, 1e-2


def wrong_rule(
    eqn: Any, body: ClosedJaxpr, bounds: Sequence[tuple[float, float]], alike: Sequence[int]
) -> tuple[str, bool] | None:
    """Compare a derivative rule with the derivative of the body.

    **Arguments**

    - `bounds`: of every operand.
    - `alike`: for each operand the first that is the same value, and varies with it: the rule of a root is right where the
      function and its solver are of one equation.

    **Returns** what is wrong, if anything, and whether that is certain. Points at which the function is not finite are passed
    over.
    """
    rng = np.random.default_rng(0)

    def cotangents(size: float) -> list[Any]:
        return [_normal(rng, var.aval.shape, size) for var in eqn.outvars]

    gradient, compared = _comparer(eqn, body, alike)
    found = {size: [] for size in SIZES}
    for size in SIZES:
        for point in range(POINTS):
            drawn = [_at_random(rng, var, size, ends) for var, ends in zip(eqn.invars, bounds, strict=True)]
            values = [drawn[i] for i in alike]
            found[size].append(compared(values, cotangents(SIZES[point % len(SIZES)]), rng))
    near, values = [], [_at_random(rng, var, 1.0, ends) for var, ends in zip(eqn.invars, bounds, strict=True)]
    for number in sorted(_numbers(jax.make_jaxpr(gradient)(values, cotangents(1.0)).jaxpr))[:POINTS] * BESIDE:
        drawn = [_near(rng, x, number, ends) for x, ends in zip(values, bounds, strict=True)]
        near.append(compared([drawn[i] for i in alike], cotangents(1.0), rng))
    seen = [agrees for agrees in (*itertools.chain(*found.values()), *near) if agrees is not None]
    if not seen:
        return "its derivative rule could not be compared with a derivative", False
    wrong = seen.count(False)
    said = f"its derivative rule disagrees with the derivative at {wrong} of {len(seen)} points"
    return (said, False in found[SIZES[0]]) if wrong else None


def _comparer(
    eqn: Any, body: ClosedJaxpr, alike: Sequence[int]
) -> tuple[Callable[..., Any], Callable[..., bool | None]]:
    """The gradient by the rule, and whether both agree at given values and cotangents, along a random direction; None where the
    function is not finite."""
    plain = jaxpr_as_fun(body)
    real = tuple(i for i, var in enumerate(eqn.invars) if rules.is_float(var))

    def weighed(outputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        pairs = zip(weights, outputs, strict=True)
        return sum(jnp.vdot(w, y) for w, y in pairs if jnp.issubdtype(y.dtype, jnp.floating))

    def by_rule(values: Sequence[Any], weights: Sequence[Any]) -> Any:
        def ruled(*xs: Any) -> Any:
            return weighed(_compat.bind(eqn, _put(values, real, xs)), weights)

        return jax.grad(ruled, argnums=tuple(range(len(real))))(*(values[i] for i in real))

    def value(values: Sequence[Any], weights: Sequence[Any], directions: Sequence[Any], t: Any) -> Any:
        moved = [values[i] + t * d for i, d in zip(real, directions, strict=True)]
        return weighed(plain(*_put(values, real, moved)), weights)

    def by_jax(values: Sequence[Any], weights: Sequence[Any], directions: Sequence[Any]) -> Any:
        return jax.jvp(lambda t: value(values, weights, directions, t), (0.0,), (1.0,))[1]

    gradient, own, at = jax.jit(by_rule), jax.jit(by_jax), jax.jit(value)

    def compared(values: list[Any], weights: list[Any], rng: np.random.Generator) -> bool | None:
        drawn = {i: _normal(rng, np.shape(values[i])) for i in real}
        directions = [drawn[alike[i]] for i in real]
        terms = [np.asarray(g, float) * d for g, d in zip(gradient(values, weights), directions, strict=True)]
        slope, scale = sum(t.sum() for t in terms), sum(abs(t).sum() for t in terms)
        if not (math.isfinite(scale) and math.isfinite(at(values, weights, directions, 0.0))):
            return None
        try:
            expected = float(own(values, weights, directions))
        except TypeError:  # a backward rule inside, which has no forward one
            expected = math.nan
        if abs(expected - slope) <= TOLERANCE * (scale + abs(expected)):
            return True
        step = STEP * min(1.0, max(float(np.max(abs(np.asarray(values[i])), initial=0.0)) for i in real) + 1e-3)
        wide, narrow = (
            float(at(values, weights, directions, h) - at(values, weights, directions, -h)) / (2 * h)
            for h in (step, step / 2)
        )
        size, middle = scale + abs(wide), (4 * narrow - wide) / 3
        if not (math.isfinite(wide) and abs(wide - narrow) < 0.01 * size):
            return None
        return abs(middle - slope) <= (0.01 * size if math.isnan(expected) else abs(middle - expected))

    return by_rule, compared


def _numbers(jaxpr: Any) -> set[float]:
    """The numbers in a program's text, beside which it may have other pieces."""
    found: set[float] = set()
    for eqn in jaxpr.eqns:
        found |= {
            float(x.val) for x in eqn.invars if isinstance(x, JaxLiteral) and rules.is_float(x) and np.ndim(x.val) == 0
        }
        found = found.union(*map(_numbers, _compat.bodies_in(eqn.params)))
    return {x for x in found if math.isfinite(x)}


def _near(rng: np.random.Generator, value: Any, number: float, bounds: tuple[float, float]) -> Any:
    if not np.issubdtype(np.asarray(value).dtype, np.floating):
        return value
    beside = number + NEARBY * max(abs(number), NEARBY) * rng.normal(size=np.shape(value))
    return np.clip(beside, *bounds).astype(np.asarray(value).dtype)


def _put(values: Sequence[Any], places: Sequence[int], others: Sequence[Any]) -> list[Any]:
    out = list(values)
    for i, x in zip(places, others, strict=True):
        out[i] = x
    return out


def _normal(rng: np.random.Generator, shape: tuple[int, ...], size: float = 1.0) -> Any:
    return (size * rng.normal(size=shape)).astype(np.float32)


def _at_random(rng: np.random.Generator, var: Any, size: float, bounds: tuple[float, float]) -> Any:
    if isinstance(var, JaxLiteral):
        return var.val
    shape, dtype = var.aval.shape, var.aval.dtype
    if not rules.is_float(var):
        return np.zeros(shape, dtype)
    low, high = bounds
    draws = size * rng.normal(size=shape)
    if math.isfinite(low) and math.isfinite(high):
        draws = low + (high - low) * rng.random(shape)
    elif math.isfinite(low) or math.isfinite(high):
        draws = low + abs(draws) if math.isfinite(low) else high - abs(draws)
    return draws.astype(dtype)
