"""Random paths through the parameters, and the draws of an estimator that is called one draw at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppvi._doors import described, listed, number, takes
from ppvi.checks.unbiased import Draws, Question
from ppvi.errors import ProgramError

LENGTHS = (0.2, 1.0)
"""Between which the lengths of paths are, in unconstrained parameters, evenly on a logarithmic scale."""
CLOSE = 1e-2
"""How much shorter close paths are; where parameters are less than 1, by so much of each."""
NEAR = "all, close"
"""What the report calls close paths."""
GOLDEN = (5**0.5 - 1) / 2
"""By whose multiples, modulo 1, the lengths of any few paths in a row are spread out."""
EPS = float(np.finfo(np.float32).eps)
"""The last digit of 1 in a library that computes in single precision, as it may."""
MOST_LEAVES = 32
"""Parameters that get a direction of their own at most."""


@dataclass(frozen=True)
class Paths:
    """Straight paths through points of a vector space, and what is asked of each: x + t v for low <= t <= high.

    Each has a length, a direction and a place around its point of its own, by chance: a bias that goes round once along one
    path does not along the next. One that goes round many times along all of them is left to those that are close to a point.
    """

    questions: tuple[Question, ...]
    points: Any
    """x, `(path, number)`."""
    directions: Any
    """v, of length 1."""
    low: Any
    """`(path,)`; not above 0."""
    high: Any
    said: str
    """Where paths are, for the report."""

    @property
    def lengths(self) -> Any:
        return self.high - self.low

    @property
    def given(self) -> list[int]:
        """Those through the first point."""
        return [i for i, question in enumerate(self.questions) if question.point == self.questions[0].point]

    def mirrored(self, u: Any) -> tuple[Any, Any]:
        """Two distances along each path, that far from either end in units of its length: what grows along a path evenly has
        the same mean over both wherever they are."""
        return self.low + u * self.lengths, self.high - u * self.lengths

    def at(self, t: Any) -> Any:
        """The points after these distances, `(path,)`."""
        return self.points + t[:, None] * self.directions


def lay(
    points: Mapping[str, Any],
    owner: Any,
    names: Sequence[str],
    moving: Sequence[int],
    seed: Any,
    far: float,
    projections: int = 2,
    close: bool = True,
    alone: bool = True,
) -> Paths:
    """At the first point a path for each parameter, and there, at the others and far from it some in all of them at once.

    **Arguments**

    - `points`: vectors by name.
    - `owner`: for each entry of a vector the number of its parameter, whose name is in `names`; only those in `moving` move.
    - `far`: distance of the far point from the first.
    - `projections`: random directions at each point; `close`: whether there is one more that is close.
    - `alone`: whether each parameter moves alone too, unless they are more than `MOST_LEAVES`.

    **Raises** `ProgramError` if `far` is no distance.
    """
    number("check: far, a distance in unconstrained parameters,", far, above=0)
    rng = np.random.default_rng(seed)
    free = np.isin(owner, moving)
    [given, center], *_ = points.items()
    others = {name: point for name, point in points.items() if name == given or not np.allclose(point, center)}
    everywhere = {**others, "far": center + far * _unit(rng, free)}
    paths = []
    if len(moving) > MOST_LEAVES:
        projections *= 2
    elif alone:
        paths += [(given, names[i] or "the parameter", center, owner == i) for i in moving]
    for place, point in everywhere.items():
        known = len(paths) == 1  # of one parameter the first path is in all of them
        paths += [(place, f"all, {i + 1}", point, free) for i in range(known, projections)]
        paths += [(place, NEAR, point, free * np.where(point, np.minimum(abs(point), 1), 1))] * close
    is_close = np.array([along == NEAR for _, along, *_ in paths])
    turns = (rng.random() + GOLDEN * np.arange(len(paths))) % 1
    lengths = LENGTHS[0] * (LENGTHS[1] / LENGTHS[0]) ** turns
    reach = [CLOSE * np.linalg.norm(where) / math.sqrt(max(np.count_nonzero(where), 1)) for *_, where in paths]
    lengths *= np.where(is_close, reach, 1)
    low = -rng.random(len(paths)) * lengths
    return Paths(
        tuple(
            Question(place, along, int(np.count_nonzero(where)), length, near)
            for (place, along, _, where), length, near in zip(paths, lengths.tolist(), is_close.tolist(), strict=True)
        ),
        points=np.stack([point for _, _, point, _ in paths]),
        directions=np.stack([_unit(rng, where) for *_, where in paths]),
        low=low,
        high=low + lengths,
        said=f"biases were looked for at {', '.join(everywhere)}, which is {far:g} away in unconstrained parameters, along "
        f"paths of lengths {lengths[~is_close].min():.2g} to {lengths[~is_close].max():.2g}{', and close ones' * close}",
    )


def _real(name: str, value: Any) -> np.ndarray:
    """The numbers of a parameter."""
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        raise ProgramError(f"check_estimator: parameter {name!r} must be numbers, not {described(value)}.") from None
    if not np.isfinite(array).all():
        raise ProgramError(f"check_estimator: parameter {name!r} is NaN or infinite.")
    return array


def _returned(what: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers that an estimator has returned, of this shape but for axes of one."""
    with suppress(TypeError, ValueError):
        array = np.asarray(value, float)
        if not isinstance(value, str | bytes) and array.squeeze().shape == np.empty(shape).squeeze().shape:
            return array.ravel()
    raise ProgramError(f"check_estimator: {what} must be numbers of shape {shape}, not {described(value)}.")


def _unit(rng: np.random.Generator, where: Any) -> Any:
    """A random direction, of length 1, whose entries are as large as these are."""
    direction = rng.normal(size=len(where)) * where
    return direction / (np.linalg.norm(direction) or 1)


def one_by_one(
    value_and_grad: Callable[[int, Any], tuple[Any, Any]],
    params: Mapping[str, Any],
    seed: int,
    far: float,
    batch: int = 64,
    close: bool = True,
) -> tuple[Callable[[int, int], Draws], Paths]:
    """The draws of an estimator that takes an int seed and a dict of NumPy arrays, and cannot be vectorised.

    **Raises** `ProgramError` if what it returns has not the shape of the parameters.
    """
    arrays = {name: _real(name, value) for name, value in params.items()}
    takes("check_estimator: value_and_grad", value_and_grad, "key", "params")
    center = np.concatenate([x.ravel() for x in arrays.values()])
    owner = np.concatenate([np.full(x.size, i) for i, x in enumerate(arrays.values())])
    paths = lay({"given": center}, owner, list(arrays), range(len(arrays)), seed, far, projections=1, close=close)
    ends = np.cumsum([x.size for x in arrays.values()])[:-1]

    def at(point: Any) -> dict[str, Any]:
        parts = np.split(point, ends)
        return {name: part.reshape(x.shape) for (name, x), part in zip(arrays.items(), parts, strict=True)}

    def run(seed: int, point: Any) -> tuple[float, Any]:
        found = value_and_grad(seed, at(point))
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise ProgramError(
                f"check_estimator: the estimator must return a pair (value, gradient), not {described(found)}."
            )
        value, gradient = found
        if not isinstance(gradient, Mapping) or set(gradient) != set(arrays):
            raise ProgramError(
                f"check_estimator: the gradient must be a dict of {listed(arrays)}, as params are, not {described(gradient)}."
            )
        slopes = [_returned(f"the gradient of {name!r}", gradient[name], x.shape) for name, x in arrays.items()]
        return float(_returned("the value", value, ())[0]), np.concatenate(slopes)

    def draw(number: int, most: int) -> Draws:
        rng = np.random.default_rng([seed, number])
        differences, components, spacing = (np.zeros((min(most, batch), len(paths.questions))) for _ in range(3))
        starts, ends = paths.at(paths.low), paths.at(paths.high)
        for i in range(len(differences)):
            points = [paths.at(t) for t in paths.mirrored(rng.uniform(size=len(paths.lengths)))]
            for j, length in enumerate(paths.lengths):
                one = int(rng.integers(2**31))
                gradient = sum(run(one, point[j])[1] for point in points) / 2
                last, first = run(one, ends[j])[0], run(one, starts[j])[0]
                components[i, j] = gradient @ paths.directions[j]
                differences[i, j] = components[i, j] - (last - first) / length
                spacing[i, j] = EPS * (abs(last) + abs(first) + 2 * np.linalg.norm(gradient * paths.points[j])) / length
        return Draws(differences, components, spacing)

    return draw, paths
