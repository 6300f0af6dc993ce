"""From a model to a fitted Gaussian, without a guide of one's own."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from ppvi._doors import count, function, listed
from ppvi._fitted import Approximated, Fit
from ppvi._ops import Array, as_numpy
from ppvi.approximation import EVEN, Gaussian, Mixture, bent, mixed, nearer, nearest, spread
from ppvi.checkpoints import approximation, newest
from ppvi.engine.mcmc import Look, looked_at
from ppvi.engine.memory import abreast, numbers_in
from ppvi.engine.minibatches import Part
from ppvi.engine.protocol import Args, Kwargs, Params
from ppvi.engine.regions import Library, region_of
from ppvi.engine.training import Data, State
from ppvi.errors import ProgramError
from ppvi.objective import Engine, Objective, estimator_of
from ppvi.objectives import elbo
from ppvi.program import Program

MOST = 100_000
"""Dimensions of the largest models."""

PARTICLES = 20
"""Draws of the Gaussian among which one of the posterior is chosen by its importance weight."""

COSTLY = 10**6
"""Numbers of data from which on a log density is asked for at few points, and given a part of the rows first."""

UNSETTLED = (
    "approximate: the bound still rose when it stopped, so that the fit is not to be believed. Either there is no posterior, "
    "as of a flat prior without data or of two parameters of which only the sum matters; or num_steps= is too small."
)
"""Of a bound without a top in sight."""

CUT = (
    "approximate: the density is zero, or not a number, where a Gaussian has mass, so that its bound has no top, and the fit "
    "is not to be believed. Zeros have to be said by the supports of sites, as of TruncatedNormal, HalfNormal or "
    "ImproperUniform(constraints.interval(a, b), (), ()), and not by factor, where or a log density of -inf. If there are "
    "none, the density does not fall far out, and there is no posterior, as of a flat prior that the data do not tell of."
)
"""Of a bound that zeros of the density are in the way of."""

COUNT = 128
"""Points that an average is over, if there are no more."""

Model = Callable[..., Any]

POINTS, WEIGHTS = "_points", "_weights"
"""The parameters of guides of points."""


@dataclass(frozen=True)
class Guides:
    """What an engine has for approximations.

    **Attributes**

    - `array`: numbers as the library's, on the device of an array of it.
    - `onto`: from a support to a bijection from unconstrained space.
    - `double`: a context in which numbers are in double precision, with the arguments so.
    - `looking`: runs what looks at a model in a session, in which it runs once.
    - `latent`: the distributions of the latent sites of a model in the i-th of many ordinary runs.
    - `noncentred`: a model with these sites as a location and a scale of standard ones.
    - `whole`: a model whose plates are of all their rows, or which is so within `all_rows`.
    - `part`: a model whose plates are of what a `Part` says, the same rows for one key.
    - `points`: a guide of a model that is uniform on so many points of unconstrained space, which are its parameter `POINTS`,
      and which can be `resized`; beside it `WEIGHTS`, of one number for each.
    - `weighted`: of such a guide the objective E_q[w (log p - log q)], whose gradient in the weights is the density at each.
    - `blocks`: of so many points that an average is over, how many a program is of: a few, for which programs are compiled.
    - `gaussian`: a guide of a model that is Gaussian in unconstrained space, with a full covariance or so many directions
      beside a diagonal, or a mixture of so many; after `begin(*args, **kwargs)`, `params(parts, weights)` are its parameters.
    - `continuous`: a model without its finite latent sites, of which its autoguides have none.
    - `order`: of either, once it has run, what takes a point to one whose sites are in the order of their names.
    - `sums_by_particle`: whether particles run one by one where finite sites are summed out.
    """

    library: Library
    onto: Callable[[Any], Any]
    array: Callable[[np.ndarray, Array], Array]
    objective: Callable[..., Objective]
    double: Callable[[Args, Kwargs], AbstractContextManager[Data]]
    looking: Callable[[Look], None]
    latent: Callable[[Model, int, Args, Kwargs], Mapping[str, Any]]
    noncentred: Callable[[Model, Sequence[str]], Model]
    whole: Callable[[Model], Model]
    part: Callable[[Model, Part], Model]
    all_rows: Callable[[], AbstractContextManager[Any]]
    points: Callable[[Model, int], Any]
    weighted: Callable[[Program, Program], Array]
    blocks: Callable[[int], Sequence[int]]
    gaussian: Callable[[Model, int | None, int], Any]
    continuous: Callable[[Model], Model]
    order: Callable[[Any], np.ndarray]
    sums_by_particle: bool


class LogJoint:
    """The log joint density of a model's continuous sites in unconstrained space, what is finite summed out: at
    any number of points.

    Points go through a program in blocks, the last of which is filled with copies; `count` is how many an average is over.
    Parameters of the model have the values that are given.
    """

    def __init__(
        self, guides: Guides, model: Model, key: Any, data: Data, params: Params | None = None, count: int = COUNT
    ):
        self.guides, self.model, self.key = guides, model, key
        self.args, self.kwargs = data
        self._guide = guide = guides.points(model, 1)
        self._of = {1: guides.objective(guides.weighted, model, guide)}
        found = self._of[1].init(key, *self.args, **self.kwargs)
        own = found.keys() - {POINTS, WEIGHTS}
        if others := sorted(own - (params or {}).keys()):
            raise ProgramError(
                f"approximate: the model has the parameters {listed(others)}, of which there is no posterior: give them "
                f"priors, or fit an objective, which moves parameters too."
            )
        self.like = found[POINTS]
        self._params = {name: (params or {})[name] for name in own}
        self._order = guides.order(guide)
        self.start = as_numpy(found[POINTS], float).reshape(-1)[self._order]
        self.count = count

    def each(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The log density at each point, `(point,)`, and its gradient, `(point, dimension)`."""
        sizes = self.guides.blocks(self.count)
        size = next((x for x in sizes if x >= len(points)), sizes[-1])
        found = [self._block(points[i : i + size], size) for i in range(0, len(points), size)]
        values, slopes = zip(*found, strict=True)
        return np.concatenate(values), np.concatenate(slopes)

    def _block(self, points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        n = len(points)
        filled = np.concatenate([points, np.broadcast_to(points[:1], (size - n, points.shape[1]))])
        params = {POINTS: filled[:, np.argsort(self._order)], WEIGHTS: np.ones(size)}
        arrays = self._params | {name: self.guides.array(x, self.like) for name, x in params.items()}
        value, slopes = self._objective(size).value_and_grad(self.key, arrays, *self.args, **self.kwargs)
        gradients = as_numpy(slopes[POINTS], float)[:n, self._order] * size
        if np.isfinite(as_numpy(value, float)):
            return as_numpy(slopes[WEIGHTS], float)[:n] * size - math.log(size), gradients
        if n == 1:
            return np.full(n, -np.inf), gradients
        each = [self._block(x, size) for x in np.array_split(points, 2)]  # what is lost at one says nothing of another
        return np.concatenate([x for x, _ in each]), np.concatenate([x for _, x in each])

    def _objective(self, size: int) -> Objective:
        if size not in self._of:
            guide = self._guide.resized(size)
            self._of[size] = self.guides.objective(self.guides.weighted, self.model, guide)
        return self._of[size]


@dataclass(frozen=True)
class Candidate:
    """Gaussians of one version of the model, and the mixture of them."""

    noncentred: tuple[str, ...]
    model: Model
    density: LogJoint
    found: Sequence[Gaussian]
    mixture: Mixture
    costly: bool

    @property
    def version(self) -> str:
        return f"with {' and '.join(self.noncentred)} non-centred" if self.noncentred else "as written"

    def even(self, seed: int) -> bool:
        """Whether it is one Gaussian whose importance weights are even, so that choosing by them changes nothing."""
        one = self.mixture.best
        if len(self.mixture.parts) > 1 or one.factor is not None:
            return False
        return spread(self.density.each, one, np.random.default_rng(seed)) < EVEN


def approximated(
    guides: Guides, model: Model, key: Any, args: Args, kwargs: Kwargs, num_starts: int, num_steps: int, seed: int
) -> Fit:
    """See `ppvi.numpyro.approximate`."""
    began = time.monotonic()
    search = Search(guides, key, num_starts, num_steps, seed)
    with guides.double(args, kwargs) as data:
        whole = guides.whole(model)
        runs = [guides.latent(whole, i, *data) for i in range(2)]
        versions, untried = _versions(guides, whole, data, runs)
        tried = [x for names in versions if (x := search.candidate(model, names, data)) is not None]
        if not tried:
            raise ProgramError(
                "approximate: the model's log density is not finite at any of the starts, or around the modes that they lead "
                "to: look at the data, and at the supports of its sites, which have to say where the density is zero."
            )
        best = max(tried, key=lambda x: round(x.mixture.bound, 6))
        gaussian, even = best.mixture.best, best.even(seed)
        mixture = best.mixture if even or best.costly else bent(best.density.each, best.mixture, num_steps, seed)
    if not np.abs(gaussian.scale).max() < np.finfo(np.float32).max:
        raise ProgramError(UNSETTLED)
    guide = guides.gaussian(best.model, gaussian.rank, len(mixture.parts))
    bound = guides.objective(elbo, best.model, guide)
    guide.begin(*args, **kwargs)
    params = guide.params(mixture.ordered(np.argsort(guides.order(guide))), mixture.weights)
    trainer = bound.engine.trainer([(estimator_of(bound), lambda name: True)], key, args, dict(kwargs), params=params)
    course = gaussian.losses if len(mixture.parts) == 1 else np.append(gaussian.losses, -mixture.bound)
    state, settled = State(trainer.init().arrays, course), gaussian.settled
    alone = (
        not settled
        or even
        or gaussian.rank is not None
        or (guides.sums_by_particle and any(fn.support.is_discrete for fn in runs[0].values()))
    )
    about = Approximated(
        version=best.version if len(versions) > 1 else None,
        bounds=tuple(sorted((-float(x.losses[-1]) for one in tried for x in one.found), reverse=True)),
        settled=settled,
        untried=untried,
        noncentred=best.noncentred,
        rank=gaussian.rank,
        weights=tuple(mixture.weights.tolist()),
        particles=1 if alone else PARTICLES,
        mixed=mixture.bound if len(mixture.parts) > 1 else None,
        modes=len(best.mixture.parts),
    )
    trainer.end(state)
    if not settled:
        warnings.warn(CUT if gaussian.lost else UNSETTLED, stacklevel=4)
    options: dict[str, Any] = {"approximated": about, "particles": about.particles}
    seconds = time.monotonic() - began
    return Fit(trainer.params(state), state, _why(about), seconds, (bound,), key, args, kwargs, **options)


def _why(about: Approximated) -> str:
    return "the average over fixed points rises no more" if about.settled else "the bound has no top that was reached"


def load(folder: str | PathLike[str], model: Model, *args: Any, **kwargs: Any) -> Fit:
    """The fit of `approximate` that was saved to a folder, of the model and the data that it is of; see `ppvi.fit.load`.

    **Raises** `ProgramError` if there is none, or the model cannot have these data.
    """
    found = approximation(folder)
    if found is None:
        raise ProgramError(
            f"load: {os.fspath(folder)} holds no fit of approximate, which is loaded by its model alone: load another fit by "
            f"its objective, as in ppvi.load(folder, vi.objective(elbo, model, guide))."
        )
    engine = Engine(found.pop("engine"))
    guides: Guides = engine.guides
    stated: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in found.items()}
    about = Approximated(**stated)
    args, kwargs, _ = looked_at("load", guides.looking, model, args, kwargs)
    whole = guides.whole(model)
    version = guides.noncentred(whole, about.noncentred) if about.noncentred else whole
    guide = guides.gaussian(version, about.rank, len(about.weights))
    bound = guides.objective(elbo, version, guide)
    with guides.all_rows():
        guide.begin(*args, **kwargs)
    state, params, _ = newest(folder, (bound,), estimator_of(bound).in_format)
    options: dict[str, Any] = {"approximated": about, "particles": about.particles}
    return Fit(params, state, _why(about), 0.0, (bound,), None, args, kwargs, **options)


def on_fixed_supports(
    runs: Sequence[Mapping[str, Any]], library: Library, verb: str = ""
) -> dict[str, tuple[Any, Any]]:
    """The distributions of each site in two runs. **Raises** `ProgramError` where supports differ, which no point of a fixed
    space is for."""
    one, other = runs
    pairs = {name: (one[name], other[name]) for name in one if name in other}
    for name, fns in pairs.items():
        if _differ(*(region_of(fn, library).bounds for fn in fns)):
            raise ProgramError(
                f"{verb}the support of site {name!r} moves with other sites: take a distribution of fixed support and "
                f"transform its draw, as in u ~ Uniform(0, 1) and {name} = (1 - a) * u."
            )
    return pairs


def _versions(
    guides: Guides, model: Model, data: Data, runs: Sequence[Mapping[str, Any]]
) -> tuple[Sequence[tuple[str, ...]], tuple[str, ...]]:
    """The sites that are non-centred in each version of a model: none, and, where locations and scales are moved by other
    sites, those; and of which sites the library cannot do that, and why.

    What moves differs between two runs.
    """
    pairs = on_fixed_supports(runs, guides.library, "approximate: ")
    centred = [name for name, fns in pairs.items() if _is_centred(*fns, guides.library)]
    refusals = {name: _refusal(guides.noncentred(model, [name]), guides, data) for name in centred}
    names = tuple(name for name, why in refusals.items() if why is None)
    return [(), names] if names else [()], tuple(f"{name} ({why})" for name, why in refusals.items() if why is not None)


def _refusal(model: Model, guides: Guides, data: Data) -> str | None:
    """What the library says of a model that it cannot run: it refuses some masks, and sites that are imputed."""
    try:
        guides.latent(model, 0, *data)
    except (AssertionError, AttributeError, NotImplementedError, TypeError, ValueError) as error:
        said = f"{error}".split("\n")[0] or "its distribution or mask is none that LocScaleReparam takes"
        return f"{type(error).__name__}: {said}"
    return None


def _is_centred(one: Any, other: Any, library: Library) -> bool:
    """Whether a site on all real numbers has a location and a scale that other sites move."""
    region, fns = region_of(one, library), [library.unwrapped(fn) for fn in (one, other)]
    if set(fns[0].arg_constraints) != {"loc", "scale"} or (region.lower, region.upper) != (-math.inf, math.inf):
        return False
    return _differ(*([fn.loc, fn.scale] for fn in fns))


def _differ(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return any(not np.array_equal(as_numpy(x), as_numpy(y)) for x, y in zip(one, other, strict=True))


@dataclass(frozen=True)
class Search:
    """For the Gaussians of versions of a model."""

    guides: Guides
    key: Any
    num_starts: int
    num_steps: int
    seed: int

    def candidate(self, model: Model, noncentred: tuple[str, ...], data: Data) -> Candidate | None:
        """Of one version of it, if there are Gaussians.

        Of many data, the Gaussians given a part of the rows, if the model has plates that state one, are begun from.
        """
        guides, version = self.guides, self._version(self.guides.whole(model), noncentred)
        density = LogJoint(guides, version, self.key, data, count=4 * abreast(COUNT // 4, 1, data))
        _refuse_large(len(density.start))
        costly, found = numbers_in(data) >= COSTLY, list[Gaussian]()
        if costly and (part := self._of_part(model, data)) is not None:
            fewer = LogJoint(guides, self._version(part, noncentred), self.key, data)
            found = nearer(density.each, self._begun(fewer), self.num_steps, self.seed, costly)
        found = found or self._begun(density, costly)
        return Candidate(noncentred, version, density, found, mixed(found, self.seed), costly) if found else None

    def _of_part(self, model: Model, data: Data) -> Model | None:
        """The model of a part of its rows; None where it has all, or the rows have latent sites of their own."""
        whole, part = self.guides.whole(model), self.guides.part(model, (told := Part()))
        one, other = ({k: fn.shape() for k, fn in self.guides.latent(x, 0, *data).items()} for x in (whole, part))
        return part if told.fewer and one == other else None

    def _version(self, model: Model, noncentred: tuple[str, ...]) -> Model:
        return self.guides.noncentred(model, noncentred) if noncentred else model

    def _begun(self, density: LogJoint, costly: bool = False) -> list[Gaussian]:
        """The Gaussians that different starts lead to."""
        begun = starts(density, self.num_starts, self.seed)
        return nearest(density.each, begun, self.num_steps, self.seed, costly) if begun else []


def _refuse_large(size: int) -> None:
    if size > MOST:
        raise ProgramError(
            f"approximate: the model has {size:,} dimensions, and it is for at most {MOST:,}: fit an objective with a guide "
            f"such as AutoNormal, or with one network for all of the data."
        )


def starts(density: LogJoint, count: int, seed: int) -> Sequence[np.ndarray]:
    """Points where the density is finite: the library's own initial one, and others from the cube of +-2 around 0.

    Each of these is followed by its opposite: of two modes that are apart by a sign, or by an order, both are near one.
    """
    rng, found = np.random.default_rng(seed), list[np.ndarray]()
    points = density.start[None]
    for _ in range(100):
        values, slopes = density.each(points)
        found += list(points[np.isfinite(values) & np.isfinite(slopes).all(-1)])
        if len(found) >= count:
            break
        points = rng.uniform(-2, 2, (count, 1, len(density.start)))
        points = np.concatenate([points, -points], axis=1).reshape(2 * count, -1)
    return found[:count]


def refuse_model(model: Any, num_starts: Any, num_steps: Any) -> None:
    """Options of `approximate` that are none."""
    if isinstance(model, Objective):
        raise ProgramError("approximate: the first argument is a model; an objective, which has a guide, is for fit.")
    function("approximate: the model", model, "The order is approximate(model, key, ...).")
    count("approximate: num_starts", num_starts)
    count("approximate: num_steps", num_steps)
