"""Whether an inference is right on average: of data that the model itself draws, it has to find what they were drawn with.

Of theta ~ p(theta), y ~ p(y | theta) and draws theta_1, ..., theta_L ~ p(theta | y), the rank of theta among the draws is
uniform.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ppvi._calibration import Calibration
from ppvi._doors import count, described, flag, function, listed
from ppvi._fitted import Fit
from ppvi._options import door
from ppvi._predict import simulated
from ppvi.engine._arviz import group_of
from ppvi.engine.handles import Handle
from ppvi.engine.protocol import Args, Kwargs
from ppvi.errors import PpviError, ProgramError
from ppvi.objective import Objective, estimator_of
from ppvi.program import replicate

Model = Callable[..., Any]
Refit = Callable[..., Fit]
Draws = dict[str, np.ndarray]


@door
def calibrate(
    fit: Fit,
    key: Any = None,
    *,
    data_sets: int = 100,
    draws: int = 99,
    refit: Refit | None = None,
    progress: bool = True,
) -> Calibration:
    """Simulation-based calibration: fits of data sets that the model draws.

        report = ppvi.calibrate(fit)
        report.verdict  # 'good', 'poor' or 'unsure'
        print(report)

    Parameters are drawn from the prior, and data sets from the model given these, of the shapes of the fit's own. The rank of
    what a data set was drawn with among draws of its posterior is uniform where posteriors are right: a mean other than 1/2
    tells of a bias, ranks near the ends of posteriors that are too narrow, and near the middle of those too wide. Discrete
    sites have ranks too, of which ties are broken at random.

    A guide that takes the data, as an amortised one does, is asked as it is; of `approximate` each data set is approximated
    anew, in seconds each; others are fitted anew by `refit`.

    **Arguments**

    - `key`: as for `fit.posterior`.
    - `data_sets`: how many. The report says how large a bias so many see.
    - `draws`: of each posterior.
    - `refit`: `(model, key, *args, **kwargs) -> Fit`, as `vi.approximate` is.
    - `progress`: whether to show it.

    **Returns** a `Calibration`: printable, with `verdict`, `rows`, one for each number of the sites, `ranks` and `to_dict()`.

    It is about the inference on average over the prior, and not about the data that have been observed: `diagnose` is. A good
    one may still be wrong there, and one that is poor for wild data of a wide prior may be right.

    **Raises** `ProgramError` if the model has a factor, for which nothing is drawn; if the data of an observed site are no
    argument of the model, or equal to several; if the guide draws the same whatever the data, and there is no `refit`; and as
    `posterior` does.

    Talts, Betancourt, Simpson, Vehtari and Gelman 2018; of variational fits, Yao, Vehtari, Simpson and Gelman 2018, section 3.
    """
    from tqdm import trange

    if not isinstance(fit, Fit):
        raise ProgramError(f"calibrate: it takes a fit, from vi.fit or vi.approximate, not {described(fit)}.")
    count("calibrate: data_sets", data_sets, least=10)
    count("calibrate: draws", draws, least=9)
    flag("calibrate: progress", progress)
    bare = fit.objectives[0]
    if refit is not None:
        function("calibrate: refit", refit, "It is refit(model, key, *args, **kwargs), and returns a fit.")
    elif fit.approximated is not None:
        refit = importlib.import_module(f"ppvi.{bare.engine.name}").approximate
    key = bare.engine.fixed_key(fit.state.step) if key is None else key
    args, kwargs = bare.data((), {}) if bare.args or bare.kwargs else (fit.args, dict(fit.kwargs))
    bare.engine.refuse_transformed("calibrate")
    made = simulated(bare, key, fit.params, args, kwargs, data_sets)
    if not made["observed_data"]:
        raise ProgramError(
            "calibrate: the model observes nothing that it could draw: it needs a site with obs=, in the place of a factor."
        )
    data, truths = Data(bare, args, kwargs, made["observed_data"]), made["prior"]
    drawn = {name: made["prior_predictive"][name] for name in data.observed}
    if factors := _sites(fit, key, data) - truths.keys() - drawn.keys():
        raise ProgramError(
            f"calibrate: the model has the factors {listed(sorted(factors))}, which are part of its density, and from which "
            f"nothing is drawn: its parameters are not drawn from what posteriors take for the prior."
        )
    if refit is None:
        return Calibration.of(truths, _amortised(fit, key, data, drawn, draws))
    found, failed = dict[int, Draws](), list[str]()
    for i in trange(data_sets, disable=not progress, desc="calibrate"):
        key = estimator_of(bare).another(key)
        try:
            found[i] = _anew(refit, bare.model, key, data.replaced({name: x[i] for name, x in drawn.items()}), draws)
        except PpviError as error:
            failed.append(str(error))
    if not found:
        raise ProgramError(f"calibrate: none of the data sets could be fitted. Of the first: {failed[0]}")
    posteriors = {name: np.stack([x[name] for x in found.values()]) for name in next(iter(found.values()))}
    return Calibration.of({name: x[list(found)] for name, x in truths.items()}, posteriors, failed)


def _sites(fit: Fit, key: Any, data: Data) -> set[str]:
    """Of the model, with a density."""
    bound = estimator_of(fit.objectives[0])
    return set(bound.many(key, fit.params, *data.given, 1, lambda p, q: dict(p.simulate().log_probs)))


def _group(groups: Any, name: str) -> Draws:
    """The arrays of a group."""
    found: Any = group_of(groups, name)
    return {str(name): x.values for name, x in found.items()}


def _amortised(fit: Fit, key: Any, data: Data, drawn: Draws, draws: int) -> Draws:
    """Draws of the guide given each data set, `(data set, draw, *shape)`; by one key, what draws the same given another data
    set does not take the data."""
    bound, number = estimator_of(fit.objectives[0]), len(next(iter(drawn.values())))

    def asked(drawn: Draws, draws: int) -> Draws:
        def of(p: Handle, q: Handle, given: Mapping[str, Any]) -> Any:
            args, kwargs = data.replaced(given)
            return replicate(draws, lambda: dict(q.bind(*args, **kwargs).simulate()))

        found = bound.many(bound.another(key), fit.params, *data.given, number, of, drawn, particles=draws)
        return {name: np.asarray(x) for name, x in found.items()}

    ours, others = asked(drawn, 1), asked({name: np.roll(x, 1, 0) for name, x in drawn.items()}, 1)
    if all(np.array_equal(x, others[name]) for name, x in ours.items()):
        raise ProgramError(
            "calibrate: the guide draws the same whatever the data, so that it is a fit of one data set: say how others are "
            "fitted, as by refit=lambda model, key, *args: vi.fit(bound, key, *args, num_steps=2000)."
        )
    return asked(drawn, draws)


def _anew(refit: Refit, model: Model, key: Any, data: tuple[Args, Kwargs], draws: int) -> Draws:
    """Draws of each site, `(draw, *shape)`, by a fit of some data."""
    args, kwargs = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that did not settle shows in its ranks
        again = refit(model, key, *args, **kwargs)
    if not isinstance(again, Fit):
        raise ProgramError(f"calibrate: refit returns a fit, not {described(again)}.")
    fresh = estimator_of(again.objectives[0]).another(key)  # whatever the fit's own is, which may be always the same
    found = again.posterior(fresh, draws=draws, log_likelihood=False)
    return {name: x[0] for name, x in _group(found, "posterior").items()}


class Data:
    """The arguments of a model, some of which are what it observes.

    **Arguments**

    - `observed`: site -> its data, which are looked for among the arguments.
    """

    def __init__(self, objective: Objective, args: Args, kwargs: Kwargs, observed: Draws):
        self.bound, self.given, self.observed = estimator_of(objective), (args, dict(kwargs)), dict(observed)
        leaves = dict(_leaves(_named(*self.given)))
        self.places = {name: [at for at, x in leaves.items() if self._is(x, data)] for name, data in observed.items()}
        if missing := [name for name, at in self.places.items() if not at]:
            raise ProgramError(
                f"calibrate: the data of {listed(missing)} are no argument of the model as they are observed, so that others "
                f"cannot be put in their place: pass them to the model, as in model(y), which observes obs=y."
            )
        every = [at for places in self.places.values() for at in places]
        for name, places in self.places.items():
            if any(every.count(at) > 1 for at in places) or not _is_same([leaves[at] for at in places]):
                raise ProgramError(
                    f"calibrate: the data of {name!r} are equal to those of another site, or to several arguments, so that it "
                    f"is not known where others belong: fit data that differ."
                )

    def _is(self, x: Any, data: np.ndarray) -> bool:
        known = self.bound.known(x) if hasattr(x, "dtype") else np.asarray(x)
        return known is not None and known.shape == data.shape and np.array_equal(_within(data.dtype, known), data)

    def replaced(self, data: Mapping[str, Any]) -> tuple[Args, Kwargs]:
        """The arguments with other data."""
        new = {at: data[name] for name, places in self.places.items() for at in places}
        args, kwargs = _put(_named(*self.given), new, self._like)
        return tuple(args.values()), kwargs

    def _like(self, old: Any, new: Any) -> Any:
        """In the format of what was there, if that has such numbers: real ones may take the place of whole ones."""
        if not isinstance(new, np.ndarray):
            return new  # which is traced
        if isinstance(old, np.ndarray):
            return _within(old.dtype, new)
        if not hasattr(old, "dtype"):
            return new.tolist()
        known = self.bound.known(old)
        is_kept = known is None or _within(known.dtype, new).dtype == known.dtype
        return self.bound.in_format(new, str(old.dtype).removeprefix("torch.") if is_kept else new.dtype.name)


def _named(args: Args, kwargs: Kwargs) -> tuple[dict[int, Any], Kwargs]:
    """Arguments, each by itself: several numbers are no array."""
    return dict(enumerate(args)), kwargs


def _is_same(found: list[Any]) -> bool:
    """Whether these are one array, however often it is passed."""
    return len(found) == 1 or (hasattr(found[0], "dtype") and all(x is found[0] for x in found))


def _within(dtype: Any, x: np.ndarray) -> np.ndarray:
    """In a format, where that is of the same kind of numbers, or of a wider one."""
    return x.astype(dtype) if np.can_cast(x.dtype, dtype, "same_kind") else x


Place = tuple[Any, ...]


def _leaves(tree: Any, at: Place = ()) -> Iterator[tuple[Place, Any]]:
    """The arrays and numbers of tuples, lists and dicts, and where they are; lists of numbers are arrays."""
    if isinstance(tree, dict):
        for name, x in tree.items():
            yield from _leaves(x, (*at, name))
    elif isinstance(tree, tuple | list) and not _is_numbers(tree):
        for i, x in enumerate(tree):
            yield from _leaves(x, (*at, i))
    elif hasattr(tree, "dtype") or isinstance(tree, int | float | list | tuple):
        yield at, tree


def _put(tree: Any, new: Mapping[Place, Any], like: Callable[[Any, Any], Any], at: Place = ()) -> Any:
    if at in new:
        return like(tree, new[at])
    if isinstance(tree, dict):
        return {name: _put(x, new, like, (*at, name)) for name, x in tree.items()}
    if isinstance(tree, tuple | list) and not _is_numbers(tree):
        parts = [_put(x, new, like, (*at, i)) for i, x in enumerate(tree)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree


def _is_numbers(tree: Any) -> bool:
    return isinstance(tree, tuple | list) and len(tree) > 0 and all(isinstance(x, int | float) for x in tree)
