"""Checking gradients on Pyro: the draws that `ppvi.checks` judges, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.distributions import constraints, transform_to

from ppvi._ops import as_numpy
from ppvi.checks.paths import Paths
from ppvi.checks.unbiased import Draws
from ppvi.compiler.plan import Plan
from ppvi.engine.checking import Oracle, is_random
from ppvi.engine.protocol import Args, Kwargs, Params, Sanity, Start
from ppvi.pyro._keys import Key
from ppvi.pyro._trees import gradients, tree_leaves

STUCK = "its randomness is frozen, or what would change it is too rare to be tested by draws"


class Gradients:
    """Many estimates of an objective and of its gradient by a `ppvi.pyro._engine.Estimator`; see `ppvi.engine.protocol`."""

    keys = 0, 1

    def __init__(
        self, bound: Any, key: Key, params: Params, args: Args, kwargs: Kwargs, start: Start, plan: Plan | None
    ):
        self.bound, self.params, self.args, self.kwargs, self.plan = bound, params, args, kwargs, plan
        self._transforms = {name: transform_to(start.constraints.get(name, constraints.real)) for name in params}
        self._unconstrained = self._free(params)
        self.names = self.roots = list(params)
        self.eps = max((torch.finfo(x.dtype).eps for x in self._unconstrained.values()), default=0.0)
        self.owner = np.concatenate([np.full(x.numel(), i) for i, x in enumerate(self._unconstrained.values())])
        self.seed = key if isinstance(key, int) else int(torch.randint(2**31, (), generator=key))
        # Each draw of what is replayed is a run of the programs.
        self.few: Mapping[str, Any] = {} if plan is not None else {"projections": 1, "close": False, "alone": False}

    def _free(self, params: Params) -> Params:
        return {name: t.inv(params[name].detach()) for name, t in self._transforms.items()}

    def _place(self, vectors: torch.Tensor) -> Params:
        """The parameters of a stack of vectors, each stacked."""
        parts = vectors.split([x.numel() for x in self._unconstrained.values()], -1)
        pairs = zip(self._unconstrained.items(), parts, strict=True)
        return {
            name: self._transforms[name](part.reshape(*part.shape[:-1], *x.shape).to(x)) for (name, x), part in pairs
        }

    def vector(self, params: Params) -> np.ndarray:
        return self.flat(self._free(params))

    def flat(self, gradient: Params) -> np.ndarray:
        return as_numpy(torch.cat([x.detach().flatten() for x in gradient.values()]), float)

    def through(self, point: np.ndarray, direction: np.ndarray) -> tuple[Params, np.ndarray]:
        straight = (torch.from_numpy(x[None]) for x in (point, direction))
        place, velocity, *_ = torch.func.jvp(self._place, *((x,) for x in straight))
        return {name: x[0] for name, x in place.items()}, self.flat(velocity)

    def agree(self, one: Any, other: Any) -> bool:
        return _close(one, other, rtol=1e-4, atol=1e-5)

    def sanity(self) -> Sanity:
        """Equal seeds agree, and what is random depends on the seed."""
        seeds = (0, 0, *range(1, 9))
        first, again, *others = (self.bound.value_and_grad(n, self.params, *self.args, **self.kwargs) for n in seeds)
        if not _close(first, again, rtol=0.0, atol=0.0):
            return Sanity(("two calls with one seed differ: something ignores PyTorch's seed",))
        if not all(_close(first, other, rtol=0.0, atol=0.0) for other in others):
            return Sanity()
        stuck = self.plan is not None and is_random(self.plan)
        why = STUCK if stuck else "it is exact, or a constant"
        return Sanity(notes=(f"all of 9 seeds give the same estimate: {why}",), stuck=stuck)

    def drawer(self, paths: Paths, oracles: Mapping[str, Oracle], along: bool) -> Callable[[int, int], Draws]:
        largest = int(np.clip(200_000 // paths.directions.size, 8, 512))
        """Draws at once."""

        def draw(number: int, most: int) -> Draws:
            rng, size = np.random.default_rng([self.seed, number]), min(most, largest)
            found = [self._along(paths, rng, size)] if along else []
            found += [self._beside(oracle.estimator, paths, rng, size) for oracle in oracles.values()]
            return Draws(*(np.hstack(parts) for parts in zip(*found, strict=True)))

        return draw

    def _along(self, paths: Paths, rng: np.random.Generator, size: int) -> Draws:
        """With the same random numbers at a point of each path and at both of its ends."""
        one, n = int(rng.integers(2**31)), len(paths.questions)
        inside = zip(*(paths.mirrored(u) for u in rng.uniform(size=(size, n))), strict=True)
        where = [np.concatenate([paths.at(t) for t in each]) for each in inside]
        slopes = [self._estimates(self.bound, one, points)[1] for points in where]
        gradients = np.mean(slopes, axis=0).reshape(size, n, -1)
        component = np.sum(gradients * paths.directions, -1)
        last, first = (
            self._values(one, np.tile(paths.at(t), (size, 1))).reshape(size, n) for t in (paths.high, paths.low)
        )
        steps = 2 * np.linalg.norm(gradients * paths.points, axis=-1)
        spacing = self.eps * (abs(first) + abs(last) + steps) / paths.lengths
        return Draws(component - (last - first) / paths.lengths, component, spacing)

    def _beside(self, oracle: Any, paths: Paths, rng: np.random.Generator, size: int) -> Draws:
        """At the given point along the paths through it; and the value there."""
        one, other = (int(x) for x in rng.integers(2**31, size=2))
        here = np.tile(paths.points[0], (size, 1))
        (value, gradient), (truth, exact) = self._estimates(self.bound, one, here), self._estimates(oracle, other, here)
        ours, theirs = (
            np.hstack([g @ paths.directions[paths.given].T, v[:, None]]) for g, v in ((gradient, value), (exact, truth))
        )
        return Draws(ours - theirs, ours, np.broadcast_to(self.eps * abs(value[:, None]), ours.shape))

    def _estimates(self, bound: Any, seed: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values, and gradients in the vectors."""
        vectors = torch.tensor(points, requires_grad=True)
        values = self._lanes(bound, seed, self._place(vectors))
        [found] = gradients(values.sum(), [vectors])
        return as_numpy(values.detach(), float), as_numpy(found)

    @torch.no_grad()
    def _values(self, seed: int, points: np.ndarray) -> np.ndarray:
        return as_numpy(self._lanes(self.bound, seed, self._place(torch.tensor(points))), float)

    def _lanes(self, bound: Any, seed: int, params: Params) -> torch.Tensor:
        """The surrogate at a stack of parameters, one after the other where it cannot be vectorised."""
        if self.plan is not None:
            return bound.lanes(seed, params, self.args, self.kwargs)
        seeds = np.random.default_rng(seed).integers(2**62, size=len(next(iter(params.values()))))
        points = [{name: stack[i] for name, stack in params.items()} for i in range(len(seeds))]
        pairs = zip(seeds, points, strict=True)
        return torch.stack([bound.surrogate(int(n), at, *self.args, **self.kwargs) for n, at in pairs])


def _close(left: Any, right: Any, **tolerance: float) -> bool:
    """Whether trees of tensors agree."""
    pairs = zip(tree_leaves(left), tree_leaves(right), strict=True)
    return all(torch.allclose(a, b, equal_nan=True, **tolerance) for a, b in pairs)
