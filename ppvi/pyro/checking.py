"""Checking gradients on Pyro: the draws that `ppvi.checks` judges, one after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.distributions import constraints, transform_to

from ppvi.checks import Budget, Question, Report, measure
from ppvi.checks.paths import Paths, lay
from ppvi.checks.unbiased import Draws
from ppvi.engine.checking import OUTCOMES, asked_of, by_outcomes, decided, is_random, moving_in, oracles
from ppvi.engine.outcomes import Outcomes
from ppvi.pyro.outcomes import outcomes
from ppvi.pyro.trees import gradients, tree_leaves

if TYPE_CHECKING:
    from ppvi.pyro.keys import Key
    from ppvi.pyro.objective import Estimator, Params


def check(
    objective: Estimator,
    key: Key,
    params: Params,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    against: str | Sequence[str],
    far: float,
    **options: Any,
) -> Report:
    """The static and the statistical check of an objective; see `Objective.check`."""
    against = asked_of(against)
    plan, alpha = objective.planned_for(params, *args, **kwargs), options["alpha"]
    static = objective.prove(params, *args, **kwargs)
    reason = getattr(objective.program, "no_potential", None)
    if reason is not None:
        return Report(alpha, (), static, (f"nothing was measured: {reason}",))
    start = objective.first_run(key, params, args, kwargs)
    moving = moving_in(objective, params, start.owners)
    found, missing = {}, ["a program that is replayed has no other gradient to compare with"]
    if plan is not None:
        found, missing = oracles(objective, plan, params, args, kwargs, against, (0, 1), close)
    if "path" not in against and not found:
        nothing = "nothing was measured: no gradient to compare with is known for these sites; add 'path' to against"
        return Report(alpha, (), static, (nothing, *missing))

    first, *others = (objective.value_and_grad(seed, params, *args, **kwargs) for seed in (0, 0, *range(1, 9)))
    if not close(first, others[0], exactly=True):
        return Report(alpha, (), static, problems=("two calls with one seed differ: something ignores PyTorch's seed",))
    still = all(close(first, other, exactly=True) for other in others)
    stuck = still and plan is not None and is_random(plan)
    space = Space({name: transform_to(start.constraints.get(name, constraints.real)) for name in params}, params)
    points = {"given": space.vector(params), "initial": space.vector({**params, **start.found})}
    seed = key if isinstance(key, int) else int(torch.randint(2**31, (), generator=key))
    few = (
        {} if plan is not None else {"projections": 1, "close": False, "alone": False}
    )  # each draw is a run of the programs
    numbers = [i for i, name in enumerate(params) if name in moving]
    paths = lay(points, space.owner, list(params), numbers, seed, far, **few)

    seconds = Budget.of(options["budget"]).seconds / 3  # at each of three points at most

    def known(point: Params) -> tuple[Outcomes, tuple[Any, np.ndarray]]:
        value, gradient = found["exact"].objective.value_and_grad(seed, point, *args, **kwargs)
        return outcomes(objective, point, args, kwargs, limit=OUTCOMES, seconds=seconds), (float(value), flat(gradient))

    through = functools.partial(space.through, paths)
    exact = by_outcomes(paths.questions, through, known, space.eps) if "exact" in found else ()
    if exact:
        found.pop("exact")
    notes = ("all of 9 seeds give the same estimate: " + (STUCK if stuck else "it is exact, or a constant"),) * still
    if any(m.outcome == "biased" for m in exact) or stuck or not (found or "path" in against):
        return Report(alpha, exact, static, notes)
    draw, questions = drawer(
        Estimates(objective, space, args, kwargs, plan is not None),
        {name: Estimates(oracle.objective, space, args, kwargs) for name, oracle in found.items()},
        paths,
        seed,
        "path" in against,
    )
    return Report(alpha, decided(exact, measure(draw, questions, **options)), static, (*notes, paths.said))


STUCK = "its randomness is frozen, or what would change it is too rare to be tested by draws"


class Space:
    """Parameters as vectors without constraints."""

    def __init__(self, transforms: Mapping[str, Any], params: Params):
        self.transforms = transforms
        self.free = {name: t.inv(params[name].detach()) for name, t in transforms.items()}
        self.eps = max((torch.finfo(x.dtype).eps for x in self.free.values()), default=0.0)
        self.owner = np.concatenate([np.full(x.numel(), i) for i, x in enumerate(self.free.values())])

    def vector(self, params: Params) -> np.ndarray:
        return flat({name: t.inv(params[name].detach()) for name, t in self.transforms.items()})

    def params(self, vectors: torch.Tensor) -> Params:
        """The parameters of a stack of vectors, each stacked."""
        parts = vectors.split([x.numel() for x in self.free.values()], -1)
        pairs = zip(self.free.items(), parts, strict=True)
        return {
            name: self.transforms[name](part.reshape(*part.shape[:-1], *x.shape).to(x.dtype))
            for (name, x), part in pairs
        }

    def through(self, paths: Paths, number: int) -> tuple[Params, np.ndarray]:
        """The parameters that a path goes through, and their velocity there, for unit speed."""
        straight = (torch.from_numpy(x[number][None]) for x in (paths.points, paths.directions))
        point, velocity, *_ = torch.func.jvp(self.params, *((x,) for x in straight))
        return {name: x[0] for name, x in point.items()}, flat(velocity)


def flat(params: Params) -> np.ndarray:
    return torch.cat([x.detach().flatten() for x in params.values()]).double().numpy()


class Estimates:
    """Many estimates of an objective and of its gradient at once, each at a point and with draws of its own."""

    def __init__(
        self, objective: Any, space: Space, args: tuple[Any, ...], kwargs: Mapping[str, Any], staged: bool = True
    ):
        self.lanes = objective.lanes if staged else functools.partial(one_by_one, objective)
        self.space = space
        self.args = args
        self.kwargs = kwargs

    def __call__(self, seed: int, points: Any) -> tuple[np.ndarray, np.ndarray]:
        """Values, and gradients in the vectors."""
        vectors = torch.tensor(np.asarray(points), requires_grad=True)
        values = self.lanes(seed, self.space.params(vectors), self.args, self.kwargs)
        [found] = gradients(values.sum(), [vectors])
        return values.detach().double().numpy(), found.numpy()

    @torch.no_grad()
    def values(self, seed: int, points: Any) -> np.ndarray:
        """The values alone."""
        return (
            self.lanes(seed, self.space.params(torch.tensor(np.asarray(points))), self.args, self.kwargs)
            .double()
            .numpy()
        )


def one_by_one(
    objective: Estimator, key: int, params: Params, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> torch.Tensor:
    """The surrogate at a stack of parameters, of a program that cannot be vectorised."""
    seeds = np.random.default_rng(key).integers(2**62, size=len(next(iter(params.values()))))
    points = ({name: stack[i] for name, stack in params.items()} for i in range(len(seeds)))
    return torch.stack(
        [objective.surrogate(int(seed), at, *args, **kwargs) for seed, at in zip(seeds, points, strict=True)]
    )


def drawer(
    estimates: Estimates, oracles: Mapping[str, Estimates], paths: Paths, seed: int, path: bool
) -> tuple[Callable[[int, int], Draws], list[Question]]:
    """A function from the number of a batch to its draws, and what they are about."""
    given = [i for i, question in enumerate(paths.questions) if question.point == "given"]
    directions, eps = paths.directions, estimates.space.eps
    largest = int(np.clip(200_000 // directions.size, 8, 512))
    """Draws at once."""
    questions = [*paths.questions] if path else []
    for name in oracles:
        questions += [Question(f"given, {name}", paths.questions[i].direction) for i in given]
        questions.append(Question(f"given, {name}", "the value itself"))

    def along(rng: np.random.Generator, size: int) -> Draws:
        """With the same random numbers at a point of each path and at both of its ends."""
        one, n = int(rng.integers(2**31)), len(paths.questions)
        inside = zip(*(paths.mirrored(u) for u in rng.uniform(size=(size, n))), strict=True)
        where = [np.concatenate([paths.at(t) for t in each]) for each in inside]
        gradients = np.mean([estimates(one, points)[1] for points in where], axis=0).reshape(size, n, -1)
        component = np.sum(gradients * directions, -1)
        last, first = (
            estimates.values(one, np.tile(paths.at(t), (size, 1))).reshape(size, n) for t in (paths.high, paths.low)
        )
        steps = 2 * np.linalg.norm(gradients * paths.points, axis=-1)
        spacing = eps * (abs(first) + abs(last) + steps) / paths.lengths
        return Draws(component - (last - first) / paths.lengths, component, spacing)

    def beside(oracle: Estimates, rng: np.random.Generator, size: int) -> Draws:
        """At the given point along the paths through it; and the value there."""
        one, other = (int(x) for x in rng.integers(2**31, size=2))
        here = np.tile(paths.points[given[0]], (size, 1))
        (value, gradient), (truth, exact) = estimates(one, here), oracle(other, here)
        ours, theirs = (
            np.hstack([g @ directions[given].T, v[:, None]]) for g, v in ((gradient, value), (exact, truth))
        )
        return Draws(ours - theirs, ours, np.broadcast_to(eps * abs(value[:, None]), ours.shape))

    def draw(number: int, most: int) -> Draws:
        rng, size = np.random.default_rng([seed, number]), min(most, largest)
        found = [along(rng, size)] if path else []
        found += [beside(oracle, rng, size) for oracle in oracles.values()]
        return Draws(*(np.hstack(parts) for parts in zip(*found, strict=True)))

    return draw, questions


def close(left: Any, right: Any, exactly: bool = False) -> bool:
    """Whether trees of tensors agree, to single precision."""
    options: dict[str, Any] = {"rtol": 0.0, "atol": 0.0} if exactly else {"rtol": 1e-4, "atol": 1e-5}
    pairs = zip(tree_leaves(left), tree_leaves(right), strict=True)
    return all(torch.allclose(a, b, equal_nan=True, **options) for a, b in pairs)
