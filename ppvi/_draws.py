"""Draws from a guide at given parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppvi._doors import count, described, flag, function, whole
from ppvi._ops import Array
from ppvi._options import door
from ppvi.engine.calls import own_options, refuse_laplace
from ppvi.engine.protocol import Params
from ppvi.engine.runs import Assess, Handle
from ppvi.errors import FiniteSiteError, ProgramError
from ppvi.inference import normalize
from ppvi.objective import Objective, estimator_of
from ppvi.program import Program

if TYPE_CHECKING:  # which takes seconds to import
    import arviz as az


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
    **kwargs: Any,
) -> az.InferenceData:
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

    **Returns** `InferenceData` with groups `posterior` (the model's latent and deterministic sites) and `sample_stats`,
    whose `log_weight` is the log of the mean over particles of p(x, z) / q(z), for importance diagnostics. Plates are of all
    their rows, in order, where the programs state a minibatch, too.

    **Raises** `ProgramError` where a program knows the rows of a minibatch only, by name of the plate, and of a Laplace
    approximation, of which nothing but the mode has been fitted.
    """
    if not isinstance(objective, Objective):
        raise ProgramError(
            f"posterior(objective, key, params, ...): the objective is one of vi.objective(elbo, model, guide), not "
            f"{described(objective)}; a fit draws by fit.posterior()."
        )
    own_options([objective], locals(), posterior)
    objective.engine.refuse_transformed("posterior")
    import arviz as az

    args, kwargs = objective.data(args, kwargs)
    refuse_laplace(objective.guide)
    count("posterior: the number of draws", draws)
    count("posterior: the number of particles", particles)
    if whole(temperature) not in (0, 1):
        raise ProgramError(
            f"posterior: temperature is 1, for draws, or 0, for the most probable values, not {described(temperature)}."
        )
    flag("posterior: probs", probs)

    if program is not None:
        function("posterior: program=", program, of=("model", "guide"))

    def draw(p: Handle, q: Handle) -> tuple[dict[str, Array], Array]:
        made = q if program is None else program(p, q)
        if not isinstance(made, Program):
            raise ProgramError(
                f"posterior: program= must return a program to draw from, such as ppvi.marginal(q, ...), not "
                f"{described(made)}."
            )
        z = (made if particles == 1 else normalize(p, made, particles)).simulate()
        try:
            sites, log_density = at(p, z)
        except FiniteSiteError:
            left_out.append(True)
            return dict(z), -z.log_density
        return sites, log_density - z.log_density

    def at(p: Handle, choices: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
        run = Assess("model", p.session, choices, strict=False)
        joint = p.run(run)
        return {**joint, **run.deterministic}, joint.log_density

    bound, left_out = estimator_of(objective), list[bool]()
    sites, log_weight = bound.many(key, params, args, kwargs, draws, draw)
    if left_out:
        found = bound.completed(bound.another(key), params, args, kwargs, draws, sites, temperature)
        sites = bound.many(key, params, args, kwargs, draws, lambda p, q, z: at(p, z)[0], {**sites, **found.drawn})
        sites |= {f"{name}_probs": x for name, x in found.probs.items()} if probs else {}
        log_weight = log_weight + found.log_density
    if particles > 1:
        _refuse_no_weights(~(log_weight > -np.inf))
    return az.from_dict(
        posterior={name: value[None] for name, value in sites.items()}, sample_stats={"log_weight": log_weight[None]}
    )


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
