"""Checking gradients on JAX: the draws that `ppvi.checks` judges, for objectives and for any other estimator."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to, constraints as c

from ppvi.checks import Report
from ppvi.checks.paths import Paths
from ppvi.checks.unbiased import Draws
from ppvi.engine.checking import Oracle, judged
from ppvi.engine.protocol import Sanity
from ppvi.errors import ProgramError
from ppvi.numpyro import _compat
from ppvi.numpyro._magnitudes import with_summands
from ppvi.numpyro._programs import as_key

ValueAndGrad = Callable[[jax.Array, Any], tuple[jax.Array, Any]]
"""From a key and parameters to an estimate of the objective and of its gradient."""


def check_estimator(
    value_and_grad: ValueAndGrad,
    params: Any,
    *,
    key: jax.Array | None = None,
    constraints: Mapping[str, Any] | None = None,
    **options: Any,
) -> Report:
    """The path-integral test on any JAX estimator; see `ppvi.check_estimator`."""
    key = jax.random.key(0) if key is None else as_key(key)
    return judged(Gradients(value_and_grad, key, params, constraints or {}), {"given": params}, **options)


class Gradients:
    """Many at once; see `ppvi.engine.protocol`.

    **Arguments**

    - `of`: from an oracle to its value and gradient.
    """

    few: Mapping[str, Any] = {}

    def __init__(
        self,
        estimate: ValueAndGrad,
        key: jax.Array,
        params: Any,
        constraints: Mapping[str, Any],
        of: Callable[[Oracle], ValueAndGrad] | None = None,
    ):
        self.estimate, self.key, self.params, self._of = estimate, key, params, of
        named = params if isinstance(params, Mapping) else {}
        self._transforms = {name: biject_to(constraints.get(name, c.real)) for name in named}
        real = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), self._free(params))
        center, self._unravel = ravel_pytree(real)
        self._dtype = center.dtype
        self.eps = float(jnp.finfo(center.dtype).eps)
        leaves = jax.tree_util.tree_leaves_with_path(real)
        self.owner = np.concatenate([np.full(np.size(x), i) for i, (_, x) in enumerate(leaves)])
        self.names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
        self.roots: list[str] = [getattr(path[0], "key", "") if path else "" for path, _ in leaves]
        self.seed = np.asarray(jax.random.key_data(key)).ravel()
        self.keys = jax.random.key(0), jax.random.key(1)

    def _free(self, params: Any) -> Any:
        pairs = self._transforms.items()
        return {name: jax.tree.map(t.inv, params[name]) for name, t in pairs} if pairs else params

    def _place(self, vector: jax.Array) -> Any:
        """From unconstrained numbers to parameters."""
        values, pairs = self._unravel(vector), self._transforms.items()
        return {name: jax.tree.map(t, values[name]) for name, t in pairs} if pairs else values

    def vector(self, params: Any) -> np.ndarray:
        return self.flat(self._free(params))

    def flat(self, gradient: Any) -> np.ndarray:
        return np.asarray(ravel_pytree(gradient)[0])

    def through(self, point: np.ndarray, direction: np.ndarray) -> tuple[Any, np.ndarray]:
        place, velocity = self._at(0.0, *(jnp.asarray(x, self._dtype) for x in (point, direction)))
        return place, self.flat(velocity)

    def _at(self, t: Any, point: jax.Array, direction: jax.Array) -> tuple[Any, Any]:
        """A point of a path, and the velocity there, for unit speed."""
        t = jnp.asarray(t, point.dtype)
        return jax.jvp(lambda t: self._place(point + t * direction), (t,), (jnp.ones_like(t),))

    def agree(self, one: Any, other: Any) -> bool:
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
        return all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)

    def sanity(self) -> Sanity:
        """Equal keys agree, and what is random depends on the key."""
        try:
            once = jax.jit(self.estimate)
            first, again, *others = (
                jax.device_get(once(k, self.params)) for k in (self.key, self.key, *jax.random.split(self.key, 8))
            )
        except TypeError as error:
            raise ProgramError(
                f"check_estimator: the estimator could not be called as value_and_grad(key, params) under jax.jit: {error}"
            ) from error
        _refuse_other_shapes(first, self.params)
        if not _equal(first, again):
            return Sanity(("two calls with one key differ: the estimator has randomness that its key does not decide",))
        return self._still() if all(_equal(first, other) for other in others) else Sanity()

    def _still(self) -> Sanity:
        """Why all keys give the same."""
        leaves, inputs = jax.tree.flatten((self.key, self.params))
        closed = jax.make_jaxpr(lambda *leaves: self.estimate(*jax.tree.unflatten(inputs, leaves)))(*leaves)
        needed, used = _compat.only(closed, range(len(closed.jaxpr.outvars)))
        same = "all of 9 keys give the same estimate"
        if 0 in used:
            return Sanity(notes=(f"{same}: it is exact, or what would change it is rare",))
        if any(name.startswith(DRAWING) for name in _compat.operations(needed.jaxpr.eqns)):
            return Sanity((f"{same}: the estimator draws, but not by its key; its randomness is frozen",))
        why = (
            "the estimate does not use the key: it is compared with the change of its own value, and has no other truth"
        )
        return Sanity(notes=(why,))

    def drawer(self, paths: Paths, oracles: Mapping[str, Oracle], along: bool) -> Callable[[int, int], Draws]:
        points, directions = (jnp.asarray(x, self._dtype) for x in (paths.points, paths.directions))
        ends = jnp.asarray(np.stack([paths.low, paths.high], -1), self._dtype)
        given = np.asarray(paths.given)
        others = [self._of(oracle) for oracle in oracles.values()] if self._of else []

        def one(key: jax.Array) -> Draws:
            found = []
            if along:
                keys = jax.random.split(jax.random.fold_in(key, 0), len(points))
                u = jax.random.uniform(jax.random.fold_in(key, 1), (len(points),), self._dtype)
                inside = jnp.stack(paths.mirrored(u), -1).astype(self._dtype)
                found.append(jax.vmap(self._along)(keys, inside, ends, points, directions))
            for number, oracle in enumerate(others):
                keys = jax.random.split(jax.random.fold_in(key, 2 + number), len(given))
                beside, value = (functools.partial(f, oracle) for f in (self._beside, self._value))
                found.append(jax.vmap(beside)(keys, points[given], directions[given]))
                found.append(jax.tree.map(lambda x: x[None], value(jax.random.fold_in(key, number), points[given[0]])))
            return jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)

        size = _batch_size(one, self.key)
        batch = jax.jit(lambda key: jax.vmap(one)(jax.random.split(key, size)))
        return lambda number, most: jax.device_get(batch(jax.random.fold_in(self.key, number)))

    def _along(self, key: jax.Array, inside: jax.Array, ends: jax.Array, *path: jax.Array) -> Draws:
        """The gradient at points of a path against the change of the value between its ends."""

        def slope(t: jax.Array) -> tuple[jax.Array, jax.Array]:
            point, velocity = self._at(t, *path)
            gradient = self.estimate(key, point)[1]
            return _dot(velocity, gradient), _norm(jax.tree.map(jnp.multiply, point, gradient))

        slopes, steps = jax.vmap(slope)(inside)
        value = with_summands(lambda t: self.estimate(key, self._at(t, *path)[0])[0])
        (first, last), sizes = jax.vmap(value)(ends)
        component, length = slopes.mean(), ends[1] - ends[0]
        return Draws(component - (last - first) / length, component, self.eps * (sizes + steps).sum() / length)

    def _beside(self, oracle: ValueAndGrad, key: jax.Array, *path: jax.Array) -> Draws:
        """The gradient at the middle of a path against another one."""
        point, velocity = self._at(0.0, *path)
        value, gradient = self.estimate(key, point)
        component = _dot(velocity, gradient)
        truth = _dot(velocity, oracle(jax.random.fold_in(key, 1), point)[1])
        return Draws(component - truth, component, self.eps * abs(value))

    def _value(self, oracle: ValueAndGrad, key: jax.Array, point: jax.Array) -> Draws:
        """The value against another one."""
        found, truth = (
            self.estimate(key, self._place(point))[0],
            oracle(jax.random.fold_in(key, 1), self._place(point))[0],
        )
        return Draws(found - truth, found, self.eps * abs(found))


def _refuse_other_shapes(found: Any, params: Any) -> None:
    """Raise `ProgramError` unless an estimator has returned one number and a gradient that is laid out as the parameters."""
    if not (isinstance(found, tuple | list) and len(found) == 2):
        raise ProgramError(f"check_estimator: the estimator must return (value, gradient), not {type(found).__name__}.")
    value, gradient = found
    if jax.tree.structure(gradient) != jax.tree.structure(params):
        raise ProgramError(
            f"check_estimator: the gradient is laid out as {jax.tree.structure(gradient)}, and the parameters as "
            f"{jax.tree.structure(params)}: return (value, gradient), the gradient with the parameters' names."
        )
    if jax.tree.structure(value) != jax.tree.structure(0) or np.shape(value) != ():
        raise ProgramError(
            "check_estimator: the value that the estimator returns must be one number, such as a sum or a mean."
        )
    for (path, leaf), slope in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(gradient), strict=True):
        if np.shape(leaf) != np.shape(slope):
            name = jax.tree_util.keystr(path, simple=True, separator=".") or "the parameter"
            raise ProgramError(
                f"check_estimator: the gradient of {name} has shape {np.shape(slope)}, and the parameter {np.shape(leaf)}."
            )


DRAWING = ("random_bits", "random_gamma", "threefry", "rng_")
"""How the names of operations that draw begin."""


def _equal(left: Any, right: Any) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def _dot(velocity: Any, gradient: Any) -> jax.Array:
    pairs = zip(jax.tree.leaves(velocity), jax.tree.leaves(gradient), strict=True)
    return sum((jnp.vdot(v, g) for v, g in pairs), start=jnp.zeros(()))


def _norm(numbers: Any) -> jax.Array:
    return jnp.sqrt(_dot(numbers, numbers))


def _batch_size(one: Callable[..., Any], key: jax.Array) -> int:
    """As many draws at once as keep the numbers in memory around two million, and take a fraction of a second."""
    largest, all_of_them = _numbers(jax.make_jaxpr(one)(key).jaxpr)
    most = min(2_000_000 / max(largest, 1), 200_000_000 / max(all_of_them, 1))
    return int(np.clip(2 ** math.floor(math.log2(max(most, 1))), 1, 4096))


def _numbers(jaxpr: Any) -> tuple[int, int]:
    """The numbers that the largest value of a program has, and those of all values that it computes, in all rounds of loops."""
    largest, total = 1, 0
    for equation in jaxpr.eqns:
        sizes = [math.prod(getattr(var.aval, "shape", ())) for var in equation.outvars]
        inner = [_numbers(body) for body in _compat.bodies_in(equation.params)]
        rounds = _compat.scan(equation).how["length"] if equation.primitive.name == "scan" else 1
        largest = max(largest, *sizes, *(most for most, _ in inner))
        total += sum(sizes) + rounds * sum(count for _, count in inner)
    return largest, total
