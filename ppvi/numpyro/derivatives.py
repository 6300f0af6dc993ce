"""Derivative rules that a user wrote, against differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal as JaxLiteral, jaxpr_as_fun

from ppvi.numpyro import rules


def wrong_rule(eqn: Any, body: ClosedJaxpr, points: int = 16, step: float = 1e-2) -> str | None:
    """Compare a custom derivative rule with central differences of what it is the rule of, at random points.

    **Returns** what is wrong, or None. Points at which the function is not finite or not smooth at this step are passed over.
    """
    plain = jaxpr_as_fun(body)
    real = [i for i, var in enumerate(eqn.invars) if rules.is_float(var)]
    rng = np.random.default_rng(0)
    seen = wrong = 0

    def scalar(run: Callable[..., Any], values: list[Any], weights: list[Any]) -> Any:
        return sum(
            jnp.vdot(w, y) for w, y in zip(weights, run(*values), strict=True) if jnp.issubdtype(y.dtype, jnp.floating)
        )

    def ruled(*values: Any) -> Any:
        return eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))

    for _ in range(points):
        values = [_at_random(rng, var) for var in eqn.invars]
        weights = [rng.normal(size=var.aval.shape).astype(np.float32) for var in eqn.outvars]
        direction = {i: rng.normal(size=np.shape(values[i])).astype(np.float32) for i in real}
        gradient = jax.grad(lambda *xs, weights=weights: scalar(ruled, list(xs), weights), argnums=tuple(real))(*values)
        slope = sum(float(jnp.vdot(g, direction[i])) for g, i in zip(gradient, real, strict=True))

        def moved(t: float, values: list[Any] = values, direction: Any = direction, weights: Any = weights) -> float:
            shifted = [x + t * direction[i] if i in direction else x for i, x in enumerate(values)]
            return float(scalar(plain, shifted, weights))

        wide, narrow = ((moved(h) - moved(-h)) / (2 * h) for h in (step, step / 2))
        scale = abs(wide) + abs(slope) + 1e-2
        if math.isfinite(wide) and math.isfinite(narrow) and abs(wide - narrow) < 0.02 * scale:
            seen += 1
            wrong += abs(narrow - slope) > 0.1 * scale
    if not seen:
        return "its derivative rule could not be compared with differences"
    return f"its derivative rule disagrees with differences at {wrong} of {seen} points" if wrong else None


def _at_random(rng: np.random.Generator, var: Any) -> Any:
    if isinstance(var, JaxLiteral):
        return var.val
    shape, dtype = var.aval.shape, var.aval.dtype
    return rng.normal(size=shape).astype(dtype) if rules.is_float(var) else np.zeros(shape, dtype)
