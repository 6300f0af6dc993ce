"""Predictions: data that a model draws, at draws of its latent sites from a fit, or from the prior."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ppvi._doors import close_to, count, described, flag, listed
from ppvi._draws import about, drawn, refuse_other
from ppvi._ops import Array
from ppvi._options import door
from ppvi.engine.calls import misfit, own_options
from ppvi.engine.gathering import Groups, Told
from ppvi.engine.handles import Handle
from ppvi.engine.labels import Labels
from ppvi.engine.protocol import Args, Kwargs, Params
from ppvi.errors import ProgramError
from ppvi.objective import Objective, estimator_of
from ppvi.program import Program

if TYPE_CHECKING:  # which takes seconds to import
    from ppvi.engine._arviz import ArviZData


@door
def predict(
    objective: Objective,
    key: Any,
    params: Params | None = None,
    *args: Any,
    draws: int = 1000,
    particles: int = 1,
    program: Callable[[Program, Program], Program] | None = None,
    on: Objective | None = None,
    redraw: Collection[str] = (),
    prior: bool = False,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> ArviZData:
    """Data that the model draws: the posterior predictive distribution of a fit, on its own data or on new, and the prior one.

    **Arguments**

    - `params`: name -> constrained value, as from a fit. None draws from the prior alone, at the model's initial parameters.
    - `draws`, `particles`, `program`, `coords`, `dims`: as for `posterior`.
    - `on`: the objective on new data, `objective.on(new_x, None)`, to predict there from draws of the guide on the old: the
      model runs on the new data with the sites that the guide has drawn. Sites of new rows, which in the new data have another
      shape, are drawn from the model given the others; a loop (`scan`) of more rounds goes on from the draws that there are,
      and one of fewer is drawn from the model. (Guide and model both run on `*args`: an amortised guide, which infers
      the latent sites of new observations, gets those there.)
    - `redraw`: sites that are drawn from the model on the new data, too, whatever their shape: those of rows that are others,
      and by chance are as many.
    - `prior`: whether the prior is drawn from as well.

    **Returns** ArviZ data with the groups of `posterior` and `posterior_predictive`, every observed site of the model drawn;
    on new data `predictions` and `predictions_constant_data`, with the deterministic sites there and those that are drawn from
    the model; from the prior `prior` and `prior_predictive`.

    **Raises** `ProgramError` where the model cannot run on the new data with what the guide has drawn, and as `posterior` does.
    """
    refuse_other("predict", objective)
    options = own_options([objective], locals(), predict)
    args, kwargs = objective.data(args, kwargs)
    return predicted(objective, key, params, args, kwargs, **options).finished()


def predicted(
    objective: Objective,
    key: Any,
    params: Params | None,
    args: Args,
    kwargs: Kwargs,
    *,
    draws: int = 1000,
    on: Objective | None = None,
    redraw: Collection[str] = (),
    prior: bool = False,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Any] | None = None,
    **options: Any,
) -> Groups:
    """The groups of `predict`, in the making."""
    flag("predict: prior", prior)
    count("predict: the number of draws", draws)
    if on is not None:
        _refuse_without_data(on)
    redraw = {redraw} if isinstance(redraw, str) else set(redraw)
    if redraw and on is None:
        raise ProgramError("predict: redraw= names sites that are drawn anew on new data, which are given by on=.")
    bound = estimator_of(objective)
    if params is None:
        if on is not None:
            raise ProgramError("predict: params are those of a fit, from whose draws data are predicted on= others.")
        groups = Groups(Told(), Labels(dims, coords))
        groups.attrs |= about(objective, bound, key)
        # The guide takes no part.
        alone = bound.of(replace(bound.formula, program=lambda p, q: p.simulate().log_density))
        params = dict(alone.initialise(key, *args, **kwargs).params)
        _from_prior(groups, objective, key, params, args, kwargs, draws)
        return groups
    groups = drawn(objective, key, params, args, kwargs, draws=draws, coords=coords, dims=dims, **options)
    sites = {name: np.asarray(x) for name, x in groups.flat("posterior").items()}
    fresh = bound.another(bound.another(key))

    def at(p: Handle, q: Handle, choices: Mapping[str, Array]) -> Any:
        return told.predicted(p if on is None else p.bind(*on.args, **on.kwargs), choices, redraw)

    told = groups.told if on is None else Told()
    found = bound.many(fresh, params, args, kwargs, draws, at, sites)
    if on is None:
        groups.draws("posterior_predictive", found["observable"])
    else:
        if unknown := sorted(redraw - {*found["latent"]}):
            raise ProgramError(
                f"predict: redraw= names {unknown[0]!r}, which is no latent site of the model on the new data; it has "
                f"{listed(sorted(found['latent']))}.{close_to(unknown[0], found['latent'])}"
            )
        there = groups.on_other(told)
        there.draws("predictions", {**found["predicted"], **found["deterministic"]})
        there.arguments("predictions_constant_data", bound, on.args, on.kwargs)
    if prior:
        _from_prior(groups, objective, bound.another(fresh), params, args, kwargs, draws)
    return groups


def simulated(
    objective: Objective, key: Any, params: Params, args: Args, kwargs: Kwargs, draws: int
) -> dict[str, dict[str, np.ndarray]]:
    """What `predict` has from the prior, by group, and the data, without draws from the guide; `(draw, *shape)`."""
    bound, groups = estimator_of(objective), Groups(Told(), Labels(None, None))
    for _ in range(3):  # that of the prior in `predict`
        key = bound.another(key)
    _from_prior(groups, objective, key, params, args, kwargs, draws)
    data = {name: x.values for name, x in groups.made.get("observed_data", {}).items()}
    return {name: groups.flat(name) for name in ("prior", "prior_predictive")} | {"observed_data": data}


def _refuse_without_data(on: Any) -> None:
    """New data are given by an objective that is on them; on none, where the model takes none."""
    if not isinstance(on, Objective):
        raise ProgramError(f"predict: on= is an objective on new data, as in on=bound.on(new_x), not {described(on)}.")
    if not (on.args or on.kwargs) and (problem := misfit(on.model, "model", (), {})):
        raise ProgramError(
            f"predict: on= is an objective without data: bind the new data first, as in on=bound.on(new_x). {problem}"
        )


def _from_prior(
    groups: Groups, objective: Objective, key: Any, params: Params, args: Args, kwargs: Kwargs, draws: int
) -> None:
    """Add draws from the model in which nothing is observed."""
    bound = estimator_of(objective)
    found = bound.many(key, params, args, kwargs, draws, lambda p, q: groups.told.predicted(p, {}))
    groups.draws("prior", {**found["latent"], **found["deterministic"]})
    groups.draws("prior_predictive", found["observable"])
    if "observed_data" not in groups.made:
        data = bound.many(key, params, args, kwargs, 1, lambda p, q: groups.told.data(p, {}))
        groups.constants("observed_data", {name: x[0] for name, x in data.items()})
        groups.arguments("constant_data", bound, args, kwargs)
