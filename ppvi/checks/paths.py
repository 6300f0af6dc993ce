"""Random paths through the parameters, and the draws of an estimator that is called one draw at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppvi.checks.unbiased import Draws, Question
from ppvi.errors import ProgramError

LENGTH = 0.5
"""Length of a path, in unconstrained parameters."""
FAR = 1.0
"""Distance of the far point."""
EPS = float(np.finfo(np.float32).eps)
"""The last digit of 1 in a library that computes in single precision, as it may."""
MOST_LEAVES = 32
"""Parameters that get a direction of their own at most."""


@dataclass(frozen=True)
class Paths:
    """Straight paths of length `LENGTH` between points of a vector space, and what is asked of each."""

    questions: tuple[Question, ...]
    starts: Any
    """`(path, number)`"""
    ends: Any


def lay(
    points: Mapping[str, Any], owner: Any, names: Sequence[str], moving: Sequence[int], seed: Any, projections: int = 3
) -> Paths:
    """At the first point a path for each parameter, and there, at the others and far from it some in all of them at once.

    **Arguments**

    - `points`: vectors by name.
    - `owner`: for each entry of a vector the number of its parameter, whose name is in `names`; only those in `moving` move.
    - `projections`: random directions at each point.
    """
    rng = np.random.default_rng(seed)
    free = np.isin(owner, moving)
    [given, center], *_ = points.items()
    others = {name: point for name, point in points.items() if name == given or not np.allclose(point, center)}
    everywhere = {**others, "far": center + FAR * _unit(rng, free)}
    paths = []
    if len(moving) <= MOST_LEAVES:
        paths += [(Question(given, names[i] or "the parameter"), center, _unit(rng, owner == i)) for i in moving]
    else:
        projections *= 2
    for place, point in everywhere.items():
        if np.count_nonzero(free) > 1 or place != given:
            paths += [(Question(place, f"all, {i + 1}"), point, _unit(rng, free)) for i in range(projections)]
    questions, middles, directions = zip(*paths, strict=True)
    half = LENGTH / 2 * np.stack(directions)
    return Paths(questions, np.stack(middles) - half, np.stack(middles) + half)


def _unit(rng: np.random.Generator, where: Any) -> Any:
    direction = rng.normal(size=len(where)) * where
    return direction / max(np.linalg.norm(direction), 1e-30)


def one_by_one(
    value_and_grad: Callable[[int, Any], tuple[Any, Any]], params: Mapping[str, Any], seed: int, batch: int = 64
) -> tuple[Callable[[int, int], Draws], tuple[Question, ...]]:
    """The draws of an estimator that takes an int seed and a dict of NumPy arrays, and cannot be vectorised.

    **Raises** `ProgramError` if what it returns has not the shape of the parameters.
    """
    arrays = {name: np.asarray(value, float) for name, value in params.items()}
    center = np.concatenate([x.ravel() for x in arrays.values()])
    owner = np.concatenate([np.full(x.size, i) for i, x in enumerate(arrays.values())])
    paths = lay({"given": center}, owner, list(arrays), range(len(arrays)), seed, projections=1)
    ends = np.cumsum([x.size for x in arrays.values()])[:-1]

    def at(point: Any) -> dict[str, Any]:
        parts = np.split(point, ends)
        return {name: part.reshape(x.shape) for (name, x), part in zip(arrays.items(), parts, strict=True)}

    def run(seed: int, point: Any) -> tuple[float, Any]:
        value, gradient = value_and_grad(seed, at(point))
        if set(gradient) != set(arrays):
            raise ProgramError(
                f"check_estimator: the gradient has {sorted(gradient)}, and the parameters are {sorted(arrays)}."
            )
        return float(value), np.concatenate([np.asarray(gradient[name], float).ravel() for name in arrays])

    def draw(number: int, most: int) -> Draws:
        rng = np.random.default_rng([seed, number])
        differences, components, sizes = (np.zeros((min(most, batch), len(paths.questions))) for _ in range(3))
        for i in range(len(differences)):
            for j, (start, end) in enumerate(zip(paths.starts, paths.ends, strict=True)):
                one = int(rng.integers(2**31))
                component = run(one, start + rng.random() * (end - start))[1] @ (end - start) / LENGTH
                last, first = run(one, end)[0], run(one, start)[0]
                differences[i, j], components[i, j] = component - (last - first) / LENGTH, component
                sizes[i, j] = (abs(last) + abs(first)) / LENGTH
        return Draws(differences, components, EPS * sizes)

    return draw, paths.questions
