"""From a model to a fitted Gaussian, without a guide of one's own."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ppvi._doors import count, function, listed
from ppvi._fitted import Approximated, Fit
from ppvi.approximation import Gaussian, LostDensityError, Mode, climbed, fitted, points_of
from ppvi.engine.protocol import Args, Kwargs, Params
from ppvi.engine.regions import Library, region_of
from ppvi.engine.training import Data, State
from ppvi.errors import ProgramError
from ppvi.objective import Objective, estimator_of

MOST = 300
"""Dimensions up to which a covariance is full."""

POINTS = 128
"""The least number of points that the bound is an average over; of more dimensions they are eight times as many."""

PARTICLES = 20
"""Draws of the Gaussian among which one of the posterior is chosen by its importance weight."""

UNSETTLED = (
    "approximate: the bound still rose when it stopped, so that the fit is not to be believed. Either there is no posterior, "
    "as of a flat prior without data or of two parameters of which only the sum matters; or the density is zero in the "
    "midst of where a Gaussian has mass, as beyond a bound that no site's support says; or num_steps= is too small."
)

APART = 1.0
"""Distance of two modes, in standard deviations of the curvature at one of them, from which they are two."""


class Guides(Protocol):
    """What an engine has for approximations."""

    def double(self, args: Args, kwargs: Kwargs) -> AbstractContextManager[Data]:
        """A context in which numbers are in double precision, with the arguments so."""
        ...

    @property
    def model(self) -> Callable[..., Any]: ...
    @property
    def library(self) -> Library: ...

    def latent(self, model: Callable[..., Any], i: int, args: Args, kwargs: Kwargs) -> Mapping[str, Any]:
        """The distributions of the latent sites of a model in the i-th of many ordinary runs."""
        ...

    def particles(self, most: int, args: Args, kwargs: Kwargs) -> int:
        """Among how many draws one is to be chosen, at most."""
        ...

    def noncentred(self, names: Sequence[str]) -> Callable[..., Any]:
        """The model with these sites as a location and a scale of standard ones."""
        ...

    def points(self, model: Callable[..., Any]) -> Any:
        """A guide that is one point of unconstrained space, the library's initial one, which is its one parameter; `at(n)` is
        uniform on n of them, and `order`, once it has run, takes a point to one whose sites are in the order of their names."""
        ...

    def params(self, points: np.ndarray) -> Params:
        """The parameters of that guide."""
        ...

    def numbers(self, x: Any) -> np.ndarray:
        """An array of the engine's."""
        ...

    def gaussian(self, model: Callable[..., Any]) -> Any:
        """A guide that is Gaussian in unconstrained space; after `begin(*args, **kwargs)`, `params(loc, scale)` are its
        parameters, of a mean and a Cholesky factor of which the sites are in the order of their names."""
        ...

    def objective(self, model: Callable[..., Any], guide: Callable[..., Any]) -> Objective:
        """The bound, of this engine."""
        ...


class LogJoint:
    """The log joint density of a model's continuous sites in unconstrained space, what is finite summed out: a
    `ppvi.approximation.Density`, whose mean is known of one point and of `count`, for which programs are compiled."""

    def __init__(self, guides: Guides, model: Callable[..., Any], key: Any, data: Data):
        self.guides, self.model, self.key = guides, model, key
        self.args, self.kwargs = data
        self._guide = guides.points(model)
        self._of = {1: guides.objective(model, self._guide)}
        found = self._of[1].init(key, *self.args, **self.kwargs)
        others = sorted(found.keys() - guides.params(np.zeros((1, 1))).keys())
        if others:
            raise ProgramError(
                f"approximate: the model has the parameters {listed(others)}, of which there is no posterior: give them "
                f"priors, or fit an objective, which moves parameters too."
            )
        self._order = self._guide.order
        self.start = guides.numbers(next(iter(found.values()))).reshape(-1)[self._order]
        self.count = 2 ** math.ceil(math.log2(max(POINTS, 8 * len(self.start))))

    def _at(self, count: int) -> Objective:
        if count not in self._of:
            self._of[count] = self.guides.objective(self.model, self._guide.at(count))
        return self._of[count]

    def __call__(self, points: np.ndarray) -> tuple[float, np.ndarray]:
        wanted, count = len(points), 1 if len(points) == 1 else self.count
        if wanted > count:
            parts = np.array_split(points, math.ceil(wanted / count))
            return math.nan, np.concatenate([self(part)[1] for part in parts])
        filled = np.concatenate([points, np.broadcast_to(points[:1], (count - wanted, points.shape[1]))])
        params = self.guides.params(filled[:, np.argsort(self._order)])
        value, slopes = self._at(count).value_and_grad(self.key, params, *self.args, **self.kwargs)
        (gradient,) = slopes.values()
        mean = float(value) - math.log(count) if wanted == count else math.nan
        return mean, self.guides.numbers(gradient)[:wanted, self._order] * count


@dataclass(frozen=True)
class Candidate:
    """The Gaussian from one mode of one version of the model."""

    version: str
    model: Callable[..., Any]
    mode: Mode
    gaussian: Gaussian

    @property
    def bound(self) -> float:
        return -float(self.gaussian.losses[-1])


def approximated(
    guides: Guides,
    key: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    num_starts: int,
    num_steps: int,
    seed: int,
) -> Fit:
    """See `ppvi.numpyro.approximate`."""
    began = time.monotonic()
    with guides.double(args, kwargs) as data:
        versions = _versions(guides, data)
        found = [
            candidate
            for version, model in versions.items()
            for candidate in _candidates(guides, version, model, key, data, num_starts, num_steps, seed)
        ]
    if not found:
        raise ProgramError(
            "approximate: the model's log density is not finite at any of the starts, or around the modes that they lead to: "
            "look at the data, and at the supports of its sites, which have to say where the density is zero."
        )
    best = max(found, key=lambda x: round(x.bound, 6))
    if not np.diag(best.gaussian.scale).max() < np.finfo(np.float32).max:
        raise ProgramError(UNSETTLED)
    guide = guides.gaussian(best.model)
    bound = guides.objective(best.model, guide)
    guide.begin(*args, **kwargs)
    params = guide.params(best.gaussian.loc, best.gaussian.scale)
    trainer = bound.engine.trainer([(estimator_of(bound), lambda name: True)], key, args, dict(kwargs), params=params)
    state = State(trainer.init().arrays, best.gaussian.losses)
    about = Approximated(
        version=best.version if len(versions) > 1 else None,
        bounds=tuple(sorted((x.bound for x in found), reverse=True)),
        settled=best.gaussian.settled,
    )
    why = "the average over fixed points rises no more" if about.settled else "the bound has no top that was reached"
    trainer.end(state)
    if not about.settled:
        warnings.warn(UNSETTLED, stacklevel=4)
    seconds, particles = time.monotonic() - began, guides.particles(PARTICLES, args, kwargs)
    return Fit(
        trainer.params(state), state, why, seconds, (bound,), key, args, kwargs, approximated=about, particles=particles
    )


def _versions(guides: Guides, data: Data) -> dict[str, Callable[..., Any]]:
    """The model, and where locations and scales are moved by other sites, the model with their sites non-centred.

    What moves differs between two runs. **Raises** `ProgramError` where supports do, which no point of a fixed space is for.
    """
    one, other = (guides.latent(guides.model, i, *data) for i in range(2))
    pairs = {name: (one[name], other[name]) for name in one if name in other}
    for name, fns in pairs.items():
        if _differ(*(region_of(fn, guides.library).bounds for fn in fns)):
            raise ProgramError(
                f"approximate: the support of site {name!r} moves with other sites: take a distribution of fixed support and "
                f"transform its draw, as in u ~ Uniform(0, 1) and {name} = (1 - a) * u."
            )
    found = {"as written": guides.model}
    names = [name for name, fns in pairs.items() if _is_centred(*fns, guides.library)]
    names = [name for name in names if _runs(guides.noncentred([name]), guides, data)]
    if names:
        found[f"with {' and '.join(names)} non-centred"] = guides.noncentred(names)
    return found


def _runs(model: Callable[..., Any], guides: Guides, data: Data) -> bool:
    """Whether the library can do this: it refuses some masks, and sites that are imputed."""
    try:
        guides.latent(model, 0, *data)
    except (AssertionError, AttributeError, NotImplementedError, TypeError, ValueError):
        return False
    return True


def _is_centred(one: Any, other: Any, library: Library) -> bool:
    """Whether a site on all real numbers has a location and a scale that other sites move."""
    region, fns = region_of(one, library), [library.unwrapped(fn) for fn in (one, other)]
    if set(fns[0].arg_constraints) != {"loc", "scale"} or (region.lower, region.upper) != (-math.inf, math.inf):
        return False
    return _differ(*([fn.loc, fn.scale] for fn in fns))


def _differ(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return any(not np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(one, other, strict=True))


def _candidates(
    guides: Guides,
    said: str,
    model: Callable[..., Any],
    key: Any,
    data: Data,
    num_starts: int,
    num_steps: int,
    seed: int,
) -> list[Candidate]:
    """The Gaussians from the modes that different starts climb to."""
    density = LogJoint(guides, model, key, data)
    size = len(density.start)
    if size > MOST:
        raise ProgramError(
            f"approximate: the model has {size} dimensions, and a full covariance is for at most {MOST}."
        )
    modes: list[Mode] = []
    climbs = [climbed(density, start) for start in _starts(density, num_starts, seed)]
    for mode in sorted(climbs, key=lambda mode: -mode.log_density):  # of those near one another the highest
        if np.isfinite(mode.log_density) and all(_apart(mode, other) for other in modes):
            modes.append(mode)
    points, found = points_of(size, density.count, seed), []
    for mode in modes:
        try:
            found.append(Candidate(said, model, mode, fitted(density, mode, points, num_steps)))
        except LostDensityError:
            continue
    return found


def _starts(density: LogJoint, count: int, seed: int) -> Sequence[np.ndarray]:
    """Points where the density is finite: the library's own initial one, and others from the cube of +-2 around 0."""
    rng = np.random.default_rng(seed)
    drawn = (rng.uniform(-2, 2, density.start.shape) for _ in range(100 * count))
    found: list[np.ndarray] = []
    for point in (density.start, *drawn):
        if len(found) == count:
            break
        value, slopes = density(point[None])
        if np.isfinite(value) and np.isfinite(slopes).all():
            found.append(point)
    return found


def _apart(one: Mode, other: Mode) -> bool:
    """Whether two modes are two."""
    away = np.linalg.solve(other.scale, one.point - other.point)
    return bool(np.linalg.norm(away) > APART * math.sqrt(len(away)))


def refuse_model(model: Any, num_starts: Any, num_steps: Any) -> None:
    """Options of `approximate` that are none."""
    if isinstance(model, Objective):
        raise ProgramError("approximate: the first argument is a model; an objective, which has a guide, is for fit.")
    function("approximate: the model", model, "The order is approximate(model, key, ...).")
    count("approximate: num_starts", num_starts)
    count("approximate: num_steps", num_steps)
