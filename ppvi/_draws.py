"""Draws from a guide at given parameters."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppvi._doors import count, described, flag, function, whole
from ppvi._ops import Array
from ppvi._options import door
from ppvi.engine.calls import own_options, refuse_laplace
from ppvi.engine.data import mapped
from ppvi.engine.gathering import Groups, Told, made_by, observed
from ppvi.engine.handles import Handle
from ppvi.engine.labels import Labels
from ppvi.engine.memory import LARGE
from ppvi.engine.pieces import Wanted
from ppvi.engine.protocol import Args, Estimator, Kwargs, Params
from ppvi.errors import FiniteSiteError, ProgramError
from ppvi.objective import Objective, estimator_of
from ppvi.program import Program

if TYPE_CHECKING:  # which takes seconds to import
    from ppvi.engine._arviz import ArviZData


@door
def posterior(
    objective: Objective,
    key: Any,
    params: Params,
    *args: Any,
    draws: int = 1000,
    particles: int = 1,
    temperature: int = 1,
    probs: bool = False,
    program: Callable[[Program, Program], Program] | None = None,
    log_likelihood: bool | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> ArviZData:
    """Draws from a guide at given parameters, as ArviZ data with one chain.

    **Arguments**

    - `draws`: number of draws.
    - `particles`: K; each draw is chosen among K by importance weight (sampling-importance-resampling), which is the
      posterior that an importance-weighted bound with K particles fits (Cremer et al. 2017).
    - `temperature`: finite sites of the model that the guide does not have, and that are summed out, are drawn given the other
      sites, exactly; at temperature 0 they have their most probable values, all of them together, which of a Markov chain is
      the path of Viterbi.
    - `probs`: whether the probability of each of their values, given the other sites, is told too, of a site `z` as `z_probs`,
      `(*batch, K)`.
    - `program`: takes the model and the guide to the program to draw from, the guide itself by default; such as
      `lambda p, q: ppvi.marginal(q, ["x"], reverse, 5)`, whose importance weights need not know the auxiliary sites.
    - `log_likelihood`: whether the log density of every observation at every draw is kept, which `az.loo` and `ppvi.loo` read;
      by default where that is 10^8 numbers at most, of 1,000 draws 100,000 observations.
    - `coords`: labels by the name of an axis; an axis has the name of its plate.
    - `dims`: site -> names of all its axes, or of those that are no plate's.

    **Returns** ArviZ data, an `InferenceData` or, of ArviZ 1.x, a `DataTree`, with the groups

    - `posterior`: the model's latent and deterministic sites;
    - `sample_stats`: `log_p`, the model's log density of each draw and the data; `log_q`, that with which it was drawn; and
      `log_weight`, their difference, which of particles is the log of the mean of p(x, z) / q(z) over them;
    - `log_likelihood`, `observed_data`: of each observed site; and `constant_data`, the arrays among the model's arguments that
      are not observed. The log density of an entry that has finite sites of its own, which are summed out, is summed over them,
      as `log_p` is. Of entries that share such sites, as those of a hidden Markov model, it is given their draws, and the
      group's attribute `conditional` names the site.

    Plates are of all their rows, in order, where the programs state a minibatch, too. Attributes say what the draws are from.

    **Raises** `ProgramError` where a program knows the rows of a minibatch only, by name of the plate; where `coords` or `dims`
    name what is not there; and of a Laplace approximation, of which nothing but the mode has been fitted.
    """
    refuse_other("posterior", objective)
    options = own_options([objective], locals(), posterior)
    args, kwargs = objective.data(args, kwargs)
    return drawn(objective, key, params, args, kwargs, **options).finished()


def refuse_other(verb: str, objective: Any) -> None:
    """What draws are not of."""
    if not isinstance(objective, Objective):
        raise ProgramError(
            f"{verb}(objective, key, params, ...): the objective is one of vi.objective(elbo, model, guide), not "
            f"{described(objective)}; a fit draws by fit.{verb}()."
        )
    objective.engine.refuse_transformed(verb)


def drawn(
    objective: Objective,
    key: Any,
    params: Params,
    args: Args,
    kwargs: Kwargs,
    *,
    draws: int = 1000,
    particles: int = 1,
    temperature: int = 1,
    probs: bool = False,
    program: Callable[[Program, Program], Program] | None = None,
    log_likelihood: bool | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Any] | None = None,
) -> Groups:
    """The groups of `posterior`, in the making."""
    refuse_laplace(objective.guide)
    count("posterior: the number of draws", draws)
    count("posterior: the number of particles", particles)
    if whole(temperature) not in (0, 1):
        raise ProgramError(
            f"posterior: temperature is 1, for draws, or 0, for the most probable values, not {described(temperature)}."
        )
    flag("posterior: probs", probs)
    if log_likelihood is not None:
        flag("posterior: log_likelihood", log_likelihood)
    if program is not None:
        function("posterior: program=", program, of=("model", "guide"))
    groups, bound = Groups(Told(), Labels(dims, coords)), estimator_of(objective)

    def draw(p: Handle, q: Handle) -> dict[str, Any]:
        made = q if program is None else program(p, q)
        if not isinstance(made, Program):
            raise ProgramError(
                f"posterior: program= must return a program to draw from, such as ppvi.marginal(q, ...), not "
                f"{described(made)}."
            )
        z = made.simulate()
        try:
            # Weights are ratios of densities of the same sites.
            return {**at(p, z, particles > 1), "log_q": z.log_density}
        except FiniteSiteError:
            left_out.append(True)
            log_p = {} if particles == 1 else {"log_p": p.log_density(z)}
            return {"sites": dict(z), "log_q": z.log_density, **log_p}

    def at(p: Handle, choices: Mapping[str, Array], strict: bool = False) -> dict[str, Any]:
        found = groups.told.at(p, choices, strict)
        return found if keeps(found["log_likelihood"]) else {**found, "log_likelihood": {}}

    def keeps(densities: Mapping[str, Array]) -> bool:
        few = draws * sum(math.prod(x.shape) for x in densities.values()) <= LARGE
        return few if log_likelihood is None else log_likelihood

    left_out = list[bool]()
    pick = None if particles == 1 else functools.partial(one_of, particles)
    found = bound.many(key, params, args, kwargs, draws, draw, particles=particles, pick=pick)
    extra: dict[str, Any] = {}
    marginal: dict[str, np.ndarray] | None = None
    if left_out:
        wanted = Wanted(temperature, log_likelihood is not False)
        rest = bound.completed(bound.another(key), params, args, kwargs, draws, found["sites"], wanted)
        sites = {**found["sites"], **rest.drawn}
        again = bound.many(key, params, args, kwargs, draws, lambda p, q, z: at(p, z), sites)
        found |= {**again, "log_p": rest.log_density}
        marginal = rest.pointwise
        extra = {f"{name}_probs": x for name, x in rest.probs.items()} if probs else {}
    log_weight = found["log_p"] - found["log_q"]
    if particles > 1:
        _refuse_no_weights(~(log_weight > -np.inf))
    sites = {name: np.asarray(x) for name, x in found["sites"].items()}
    groups.told.beside(extra)
    groups.draws("posterior", {**sites, **extra})
    groups.draws(
        "sample_stats", {"log_p": found["log_p"], "log_q": found["log_q"], "log_weight": log_weight}, pointwise=True
    )
    groups.likelihood(found["log_likelihood"], marginal)
    observed(groups, bound, key, params, args, kwargs, sites)
    groups.attrs |= about(objective, bound, key) | {"particles": particles}
    return groups


def one_of(particles: int, runs: Any, random: np.random.Generator) -> Any:
    """Of every so many runs in a row one, by their weights w = p(z) / q(z), of which NaN are zero. The density that it is drawn
    with is p(z) over the mean of w, as that of `ppvi.normalize`, which would run the model once more. Where no weight is above
    zero it is any of them, with a log_p of -inf and a log_q of 0."""
    log_weight = (runs["log_p"] - runs["log_q"]).astype(float).reshape(-1, particles)
    log_weight = np.where(np.isnan(log_weight), -np.inf, log_weight)
    top = log_weight.max(1, keepdims=True)
    scores = np.where(top > -np.inf, log_weight, 0.0) + random.gumbel(size=log_weight.shape)
    rows = scores.argmax(1) + particles * np.arange(len(scores))
    one, some = mapped(runs, lambda x: x[rows]), top[:, 0] > -np.inf
    top = np.where(some[:, None], top, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = one["log_p"] - top[:, 0] - np.log(np.exp(log_weight - top).mean(1))
    return {**one, "log_p": np.where(some, one["log_p"], -np.inf), "log_q": np.where(some, log_q, 0.0)}


def about(objective: Objective, bound: Estimator, key: Any) -> dict[str, Any]:
    """Attributes of draws of an objective's programs."""
    return made_by(objective.engine.name, objective.model, objective=repr(objective), key=bound.key_text(key))


def _refuse_no_weights(lost: np.ndarray) -> None:
    """Where all particles of a draw have density zero under the model, none of them is more like it than another."""
    if lost.any():
        said = (
            f"posterior: in {int(lost.sum())} of {lost.size} draws all particles have weight zero, since they are drawn where "
            f"the model has no mass: make the supports of both the same, or draw without particles="
        )
        if lost.all():
            raise ProgramError(f"{said}.")
        warnings.warn(f"{said}. These draws have a log_weight of -inf.", stacklevel=4)
