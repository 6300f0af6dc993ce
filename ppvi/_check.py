"""The check for everybody's gradients: of any function that estimates a value and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ppvi._doors import count, described, flag, function
from ppvi._options import door
from ppvi.checks import Budget, Report, measure
from ppvi.checks.paths import one_by_one
from ppvi.checks.unbiased import RARE
from ppvi.errors import ProgramError


@door
def check_estimator(
    value_and_grad: Callable[[Any, Any], tuple[Any, Any]],
    params: Any,
    *,
    key: Any = None,
    constraints: Mapping[str, Any] | None = None,
    alpha: float = 1e-3,
    delta: float | None = None,
    budget: Budget | float | None = None,
    bounds: tuple[float, float] | None = None,
    variance: float | None = None,
    far: float = 1.0,
    rare: float = RARE,
    progress: bool = True,
) -> Report:
    """Is a gradient unbiased? The path-integral test on any estimator: a library's loss, or code written by hand.

        E[ theta'(u) . G(theta(u)) ] = J(theta(1)) - J(theta(0)),    u uniform, along random paths theta

    holds for every path if and only if the mean of G is the gradient of J, the mean of the values. Nothing needs to be
    continuous, and no oracle is asked.

    **Arguments**

    - `value_and_grad`: a function of a key and of parameters that returns one estimate of the value and one of its gradient, of
      the shape of the parameters. Where the parameters are JAX arrays the key is a JAX key, and the function is jitted and
      vectorised. Otherwise it is called draw by draw, with an int seed and a dict of NumPy arrays; it has to seed its library.
    - `params`: an array or a tree of arrays, or a dict of floats or NumPy arrays.
    - `key`: a JAX key, or an int seed.
    - `constraints`: NumPyro constraints by parameter, which paths respect. Others are taken to be real.
    - `alpha`: probability of a wrong verdict, either way. `delta`: the bias that counts as none, relative to the root mean
      square of the gradient; 0.01 by default.
    - `budget`: seconds (30 by default), or a `Budget`.
    - `bounds`: an interval in which every D = theta' . G - (V(1) - V(0)) per unit length lies, along paths of lengths from 0.2
      to 1, or `variance`, a bound on its variance: the level is then exact and not asymptotic.
    - `far`: how far from `params`, in unconstrained parameters, biases are looked for too.
    - `rare`: probability of the rarest events in which a mean may lie. Nothing is called biased by fewer draws than show them,
      69,000 by default: of a slow estimator whose draws are all of one kind, 0.01 asks for 690.

    **Returns** a `Report`.
    """
    if hasattr(value_and_grad, "value_and_grad"):
        raise ProgramError("check_estimator: an objective checks itself: objective.check(key, params, ...).")
    function("check_estimator: the estimator", value_and_grad)
    flag("check_estimator: progress", progress)
    options = {
        "alpha": alpha,
        "delta": delta,
        "budget": budget,
        "bounds": bounds,
        "variance": variance,
        "rare": rare,
        "progress": progress,
    }
    if _on_jax(params):
        from ppvi.numpyro._checking import check_estimator as on_jax

        return on_jax(value_and_grad, params, key=key, constraints=constraints, far=far, **options)
    if not isinstance(params, Mapping) or not params:
        raise ProgramError(
            f"check_estimator: params must be a JAX array, a tree of them, or a dict of floats or NumPy arrays, not "
            f"{described(params)}."
        )
    seed = 0 if key is None else count("check_estimator: key, a seed,", key, least=0)
    known = bounds is not None or variance is not None
    draw, paths = one_by_one(value_and_grad, params, seed, far, close=not known)
    return Report(alpha, measure(draw, paths.questions, **options), notes=(paths.said,))


def _on_jax(params: Any) -> bool:
    """Whether any array is JAX's, asked without importing JAX."""
    if isinstance(params, Mapping):
        return any(map(_on_jax, params.values()))
    if isinstance(params, list | tuple):
        return any(map(_on_jax, params))
    return type(params).__module__.partition(".")[0] in ("jax", "jaxlib")
