"""Checking gradients on JAX: the draws that `ppvi.checks` judges, for objectives and for any other estimator."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to, constraints as c

from ppvi.checks import Budget, Question, Report, measure
from ppvi.checks.paths import Paths, lay
from ppvi.checks.unbiased import Draws
from ppvi.engine.checking import OUTCOMES, Oracle, asked_of, by_outcomes, decided, moving_in, oracles
from ppvi.engine.outcomes import Outcomes
from ppvi.errors import ProgramError
from ppvi.numpyro import _compat
from ppvi.numpyro.magnitudes import with_summands
from ppvi.numpyro.outcomes import outcomes
from ppvi.numpyro.session import as_key
from ppvi.numpyro.unstaged import first_run

if TYPE_CHECKING:
    from ppvi.numpyro.objective import Estimator as OfObjective

Estimator = Callable[[jax.Array, Any], tuple[jax.Array, Any]]
"""From a key and parameters to an estimate of the objective and of its gradient."""


@dataclass(frozen=True)
class Curves:
    """Paths that are straight in unconstrained parameters."""

    paths: Paths
    points: jax.Array
    directions: jax.Array
    place: Callable[[jax.Array], Any]
    """From unconstrained numbers to parameters."""

    def at(self, t: Any, point: jax.Array, direction: jax.Array) -> tuple[Any, Any]:
        """A point of a path, and the velocity there, for unit speed."""
        t = jnp.asarray(t, point.dtype)
        return jax.jvp(lambda t: self.place(point + t * direction), (t,), (jnp.ones_like(t),))


def check(
    objective: OfObjective,
    key: jax.Array,
    params: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    against: str | Sequence[str],
    **options: Any,
) -> Report:
    """The static and the statistical check of an objective; see `Objective.check`."""
    against = asked_of(against)
    key = as_key(key)
    plan = objective.staged(params, *args, **kwargs)
    static = objective.examine(plan, params, args, kwargs)
    reason = getattr(objective.program, "no_potential", None)
    if reason is not None:
        return Report(options["alpha"], (), static, (f"nothing was measured: {reason}",))
    start = first_run(
        lambda start: objective.evaluate(start, args, dict(kwargs))[1],
        jax.random.fold_in(key, 0),
        objective.strategies,
        params,
    )
    moving = moving_in(objective, params, start.owners)

    def estimate(key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        return objective.value_and_grad(key, params, *args, **kwargs)

    keys = (jax.random.key(0), jax.random.key(1))
    made, missing = oracles(objective, plan, params, args, kwargs, against, keys, close)

    def estimator(oracle: Oracle) -> Estimator:
        # With one key for all draws, what does not depend on them is computed once.
        return lambda key, params: oracle.objective.value_and_grad(
            keys[0] if oracle.exact else key, params, *args, **kwargs
        )

    found = {name: estimator(oracle) for name, oracle in made.items()}

    seconds = Budget.of(options["budget"]).seconds / 3  # at each of three points at most

    def known(params: Any) -> tuple[Outcomes, tuple[Any, np.ndarray]]:
        every = outcomes(objective, params, args, kwargs, limit=OUTCOMES, seconds=seconds)
        value, gradient = found["exact"](key, params)
        return every, (value, np.asarray(ravel_pytree(gradient)[0]))

    return run(
        estimate,
        key,
        params,
        points={"initial": {**params, **start.params}},
        constraints=start.constraints,
        moving=moving,
        oracles=found,
        missing=missing,
        known=known if "exact" in found else None,
        static=static,
        path="path" in against,
        **options,
    )


def check_estimator(
    value_and_grad: Estimator,
    params: Any,
    *,
    key: jax.Array | None = None,
    constraints: Mapping[str, Any] | None = None,
    **options: Any,
) -> Report:
    """The path-integral test on any JAX estimator; see `ppvi.check_estimator`."""
    key = jax.random.key(0) if key is None else as_key(key)
    return run(value_and_grad, key, params, constraints=constraints or {}, **options)


def run(
    estimate: Estimator,
    key: jax.Array,
    params: Any,
    *,
    constraints: Mapping[str, Any],
    points: Mapping[str, Any] | None = None,
    moving: set[str] | None = None,
    oracles: Mapping[str, Estimator] | None = None,
    missing: Sequence[str] = (),
    known: Callable[[Any], tuple[Outcomes, tuple[Any, np.ndarray]]] | None = None,
    static: Any = None,
    path: bool = True,
    alpha: float,
    far: float = 1.0,
    **options: Any,
) -> Report:
    """Make draws, and have them judged by `measure`, whose options these are."""
    problems, notes = _sane(estimate, key, params)
    if problems:
        return Report(alpha, (), static, tuple(notes), tuple(problems))
    if not path and not oracles:
        nothing = "nothing was measured: no gradient to compare with is known for these sites; add 'path' to against"
        return Report(alpha, (), static, (*notes, nothing, *missing))
    known_range = any(options.get(name) is not None for name in ("bounds", "variance"))
    curved = curves(params, constraints, points or {}, moving, key, far, close=not known_range)

    def through(number: int) -> tuple[Any, np.ndarray]:
        point, velocity = curved.at(0.0, curved.points[number], curved.directions[number])
        return point, np.asarray(ravel_pytree(velocity)[0])

    eps = float(jnp.finfo(curved.points.dtype).eps)
    exact = () if known is None else by_outcomes(curved.paths.questions, through, known, eps)
    drawn = {name: oracle for name, oracle in (oracles or {}).items() if not (exact and name == "exact")}
    if any(m.outcome == "biased" for m in exact) or not (path or drawn):
        return Report(alpha, exact, static, tuple(notes))
    draw, questions = drawer(estimate, curved, drawn, key, path)
    notes += [curved.paths.said]
    return Report(alpha, decided(exact, measure(draw, questions, alpha=alpha, **options)), static, tuple(notes))


def _sane(estimate: Estimator, key: jax.Array, params: Any) -> tuple[list[str], list[str]]:
    """Problems and notes: equal keys agree, and what is random depends on the key."""
    try:
        once = jax.jit(estimate)
        first, again, *others = (jax.device_get(once(k, params)) for k in (key, key, *jax.random.split(key, 8)))
    except TypeError as error:
        raise ProgramError(
            f"check_estimator: the estimator could not be called as value_and_grad(key, params) under jax.jit: {error}"
        ) from error
    _refuse_other_shapes(first, params)
    if not _equal(first, again):
        return ["two calls with one key differ: the estimator has randomness that its key does not decide"], []
    if not all(_equal(first, other) for other in others):
        return [], []
    program, inputs = jax.tree.leaves((key, params)), jax.tree.structure((key, params))
    closed = jax.make_jaxpr(lambda *leaves: estimate(*jax.tree.unflatten(inputs, leaves)))(*program)
    needed, used = _compat.only(closed, range(len(closed.jaxpr.outvars)))
    if 0 in used:
        return [], ["all of 9 keys give the same estimate: it is exact, or what would change it is rare"]
    if any(name.startswith(DRAWING) for name in _operations(needed.jaxpr)):
        return [
            "all of 9 keys give the same estimate: the estimator draws, but not by its key; its randomness is frozen"
        ], []
    return [], [
        "the estimate does not use the key: it is compared with the change of its own value, and has no other truth"
    ]


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


def _operations(jaxpr: Any) -> Iterator[str]:
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for body in _compat.bodies_in(equation.params):
            yield from _operations(body)


def _equal(left: Any, right: Any) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def curves(
    params: Any,
    constraints: Mapping[str, Any],
    points: Mapping[str, Any],
    moving: set[str] | None,
    key: jax.Array,
    far: float,
    close: bool,
) -> Curves:
    """Random paths through parameters with constraints."""
    transforms = {n: biject_to(constraints.get(n, c.real)) for n in params} if isinstance(params, Mapping) else {}

    def free(params: Any) -> Any:
        return {n: jax.tree.map(t.inv, params[n]) for n, t in transforms.items()} if transforms else params

    def back(values: Any) -> Any:
        return {n: jax.tree.map(t, values[n]) for n, t in transforms.items()} if transforms else values

    real = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), free(params))
    center, unravel = ravel_pytree(real)
    owner = np.concatenate([np.full(np.size(x), i) for i, x in enumerate(jax.tree.leaves(real))])
    names = [jax.tree_util.keystr(p, simple=True, separator=".") for p, _ in jax.tree_util.tree_leaves_with_path(real)]
    mine = [i for i, name in enumerate(names) if moving is None or name.split(".")[0] in moving]
    places = {"given": center} | {name: ravel_pytree(free(point))[0] for name, point in points.items()}
    seed = np.asarray(jax.random.key_data(key)).ravel()
    paths = lay({name: np.asarray(x) for name, x in places.items()}, owner, names, mine, seed, far, close=close)
    centers, directions = (jnp.asarray(x, center.dtype) for x in (paths.points, paths.directions))
    return Curves(paths, centers, directions, lambda x: back(unravel(x)))


def drawer(
    estimate: Estimator, curves: Curves, oracles: Mapping[str, Estimator], key: jax.Array, path: bool
) -> tuple[Callable[[int, int], Draws], list[Question]]:
    """A function from the number of a batch to its draws, and what they are about."""
    paths, points, directions = curves.paths, curves.points, curves.directions
    questions = [*paths.questions] if path else []
    eps, dtype = jnp.finfo(points.dtype).eps, points.dtype
    ends = jnp.asarray(np.stack([paths.low, paths.high], -1), dtype)
    given = [i for i, question in enumerate(paths.questions) if question.point == "given"]
    for name in oracles:
        questions += [Question(f"given, {name}", paths.questions[i].direction) for i in given]
        questions.append(Question(f"given, {name}", "the value itself"))

    def along(key: jax.Array, inside: jax.Array, ends: jax.Array, *path: jax.Array) -> Draws:
        def slope(t: jax.Array) -> tuple[jax.Array, jax.Array]:
            point, velocity = curves.at(t, *path)
            gradient = estimate(key, point)[1]
            return _dot(velocity, gradient), _norm(jax.tree.map(jnp.multiply, point, gradient))

        slopes, steps = jax.vmap(slope)(inside)
        (first, last), sizes = jax.vmap(with_summands(lambda t: estimate(key, curves.at(t, *path)[0])[0]))(ends)
        component, length = slopes.mean(), ends[1] - ends[0]
        spacing = eps * (sizes + steps).sum() / length
        return Draws(component - (last - first) / length, component, spacing)

    def beside(oracle: Estimator, key: jax.Array, *path: jax.Array) -> Draws:
        point, velocity = curves.at(0.0, *path)
        value, gradient = estimate(key, point)
        component = _dot(velocity, gradient)
        truth = _dot(velocity, oracle(jax.random.fold_in(key, 1), point)[1])
        return Draws(component - truth, component, eps * abs(value))

    def value(oracle: Estimator, key: jax.Array, point: jax.Array) -> Draws:
        point = curves.place(point)
        found = estimate(key, point)[0]
        return Draws(found - oracle(jax.random.fold_in(key, 1), point)[0], found, eps * abs(found))

    def one(key: jax.Array) -> Draws:
        found = []
        if path:
            keys = jax.random.split(jax.random.fold_in(key, 0), len(paths.questions))
            u = jax.random.uniform(jax.random.fold_in(key, 1), (len(paths.questions),), dtype)
            inside = jnp.stack(paths.mirrored(u), -1).astype(dtype)
            found.append(jax.vmap(along)(keys, inside, ends, points, directions))
        for number, oracle in enumerate(oracles.values()):
            keys = jax.random.split(jax.random.fold_in(key, 2 + number), len(given))
            places = np.asarray(given)
            found.append(jax.vmap(functools.partial(beside, oracle))(keys, points[places], directions[places]))
            its_value = value(oracle, jax.random.fold_in(key, number), points[places[0]])
            found.append(jax.tree.map(lambda x: x[None], its_value))
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)

    size = _batch_size(one, key)
    batch = jax.jit(lambda key: jax.vmap(one)(jax.random.split(key, size)))
    return lambda number, most: jax.device_get(batch(jax.random.fold_in(key, number))), questions


def _dot(velocity: Any, gradient: Any) -> jax.Array:
    pairs = zip(jax.tree.leaves(velocity), jax.tree.leaves(gradient), strict=True)
    return sum((jnp.vdot(v, g) for v, g in pairs), start=jnp.zeros(()))


def _norm(numbers: Any) -> jax.Array:
    return jnp.sqrt(_dot(numbers, numbers))


def close(left: Any, right: Any) -> bool:
    """Whether trees of numbers agree, to single precision."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)


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
