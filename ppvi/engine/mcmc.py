"""What MCMC baselines share: which models NUTS can draw from, and the diagnostics of draws."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from ppvi._doors import count, flag, function, noted, number
from ppvi._ops import Array
from ppvi._options import options_of
from ppvi.engine._arviz import bulk_ess, split_r_hat
from ppvi.engine.calls import name_of, taken_by
from ppvi.engine.data import computes, in_arrays
from ppvi.engine.evaluations import handles
from ppvi.engine.formula import Formula
from ppvi.engine.gaps import Known, gaps
from ppvi.engine.gathering import Groups, Told, made_by, observed
from ppvi.engine.handles import Handle
from ppvi.engine.labels import Labels
from ppvi.engine.pieces import Wanted
from ppvi.engine.protocol import Args, Estimator, Kwargs
from ppvi.engine.sessions import Session
from ppvi.errors import EngineError, FiniteSiteError, ProgramError, StrategyError
from ppvi.program import Program, Trace

if TYPE_CHECKING:  # which takes seconds to import
    from ppvi.engine._arviz import ArviZData

MAX_R_HAT = 1.01
"""Above this R-hat chains are reported as not mixed (Vehtari et al. 2021)."""


def refuse_options(model: Any, verb: Callable[..., Any], called: Mapping[str, Any], least: int = 1) -> None:
    """Options of `nuts`, which has been called with these, that are none, or that may be the model's."""
    if hasattr(model, "model") and hasattr(model, "as_loss"):
        raise ProgramError(
            "nuts: the first argument is a model, not an objective, which has its own as objective.model."
        )
    function("nuts: the model", model, "The order is nuts(model, key, ...).")
    count("nuts: num_warmup", called["num_warmup"], least=0)
    count("nuts: num_samples", called["num_samples"], least)
    count("nuts: num_chains", called["num_chains"])
    number("nuts: target_accept_prob", called["target_accept_prob"], above=0, below=1)
    flag("nuts: progress", called["progress"])
    taken = taken_by(model)
    for name, default in options_of(verb).items():
        if name in taken and called[name] is not default:
            raise ProgramError(
                f"nuts: {name}= is an option of nuts and an argument of the model {name_of(model)}: give the model its own by "
                f"position, or by functools.partial(model, {name}=...)."
            )


def looked_at(
    verb: str,
    looking: Callable[[Look], None],
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any], list[str]]:
    """The arguments of a model that is drawn from, which are arrays where it computes with them as such; its discrete sites.

    One run of it, of all rows of its plates, refuses data that it cannot have, and discrete sites that cannot be summed out.
    What `ppvi` alone cannot run, such as a site without a sampler, is left to the library.
    """
    given = args, dict(kwargs)
    arrays, discrete, observes = given, list[str](), True

    def look(session: Session) -> None:
        nonlocal arrays, discrete, observes
        with handles(of_model(model), session, *given) as (p, _):
            try:
                trace = p.simulate()
            finally:
                discrete = list(session.names.discrete("model"))
            refuse_sites(verb, session, trace)
        observes = trace.log_probs.keys() > trace.keys()
        if computes(model):
            arrays = in_arrays(session.engine, *given) or given

    with suppress(EngineError, StrategyError):
        looking(look)
    if not observes:
        warnings.warn(
            f"{verb}: the model {name_of(model)} observes nothing, so that this is its prior: is an argument missing, of which "
            f"the default is None?",
            stacklevel=4,
        )
    return *arrays, discrete


Look = Callable[[Session], None]


def of_model(model: Callable[..., Any]) -> Formula:
    """A model alone, as an objective is given."""
    return Formula(_drawn, model, model)


def _drawn(p: Program, q: Program) -> Array:
    return p.simulate().log_density


def refuse_sites(verb: str, session: Session, trace: Trace) -> None:
    """A model needs a continuous site, and discrete ones have to be summed out."""
    if not trace:
        raise ProgramError(f"{verb}: the model has no latent site, so that there is nothing to draw.")
    discrete = session.names.discrete("model")
    if set(discrete) >= set(trace):
        raise ProgramError(
            f"{verb}: the latent sites {sorted(trace)} are all discrete, and it is for continuous ones: sum them out "
            f"by hand, or fit a guide of them, as by Enumerate()."
        )
    for name, said in discrete.items():
        fn = trace.distributions[name].fn if name in trace.distributions else None
        if fn is not None and not session.scope.distribution(fn).has_enumerate_support:
            raise ProgramError(
                f"{verb}: site {name!r} is discrete, {said}, and has infinitely many values: sum it out by hand, or fit a "
                f"guide of it."
            )


@contextmanager
def starting(
    verb: str, model: Callable[..., Any], known: Known, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[None]:
    """Around what runs a model by the library's own means, which may find nowhere to begin."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if found := gaps([model], known, args, kwargs):
            raise ProgramError(
                f"{verb} failed ({type(error).__name__}), and {' and '.join(found)}: drop these rows, or fill them in and "
                f"leave them out by a mask."
            ) from error
        noted(error, f"{verb} of the model {name_of(model)}.")
        raise


def gathered(
    bound: Estimator,
    engine: str,
    key: Any,
    args: Args,
    kwargs: Kwargs,
    draws: Mapping[str, Any],
    stats: Mapping[str, Any],
    labels: Labels,
) -> ArviZData:
    """Draws of a model's latent sites by NUTS, `(chain, draw, *shape)`, with all that the model says of them.

    **Arguments**

    - `bound`: the estimator of a formula that has the model.
    - `stats`: of each draw, `(chain, draw)`, `diverging` among them.
    - `labels`: those of `coords=` and `dims=`.
    """
    chains = len(next(iter(draws.values())))
    flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in draws.items()}
    groups = Groups(Told(), labels, chains)
    try:
        _say(groups, bound, key, args, kwargs, flat)
    except (EngineError, StrategyError) as error:  # what NUTS can run and `ppvi` cannot
        groups.made.clear()
        groups.draws("posterior", flat)
        warnings.warn(f"nuts: the draws have no log_likelihood and no data, since {error}", stacklevel=4)
    groups.draws("sample_stats", {name: np.reshape(x, -1) for name, x in stats.items()} | groups.flat("sample_stats"))
    groups.attrs |= made_by(engine, bound.formula.model, sampler="NUTS", key=bound.key_text(key))
    return diagnosed(groups, list(draws))


def _say(groups: Groups, bound: Estimator, key: Any, args: Args, kwargs: Kwargs, flat: Mapping[str, Any]) -> None:
    """Add what the model says of draws; finite sites that NUTS has summed out are drawn for it, given the others."""
    params, n = bound.initialise(key, *args, **kwargs).params, len(next(iter(flat.values())))

    def at(p: Handle, q: Handle, choices: Mapping[str, Array]) -> Any:
        return groups.told.at(p, choices)

    drawn, marginal = dict(flat), None
    try:
        found = bound.many(key, params, args, kwargs, n, at, drawn)
    except FiniteSiteError:
        rest = bound.completed(key, params, args, kwargs, n, drawn, Wanted(1, True))
        drawn |= rest.drawn
        found = bound.many(key, params, args, kwargs, n, at, drawn) | {"log_p": rest.log_density}
        marginal = rest.pointwise
    groups.draws("posterior", {name: x for name, x in found["sites"].items() if name in flat or name not in drawn})
    groups.draws("sample_stats", {"log_p": found["log_p"]}, pointwise=True)
    groups.likelihood(found["log_likelihood"], marginal)
    observed(groups, bound, key, params, args, kwargs, drawn)


def diagnosed(groups: Groups, names: Collection[str]) -> ArviZData:
    """The finished groups with R-hat and bulk ESS, as groups and in one number each in attributes, and the number of
    divergences; and a warning where an R-hat passes 1.01 or there are divergences."""
    chains = groups.dataset({name: x for name, x in groups.made["posterior"].items() if name in names})
    r_hat, ess = split_r_hat(chains), bulk_ess(chains)
    worst, least = float(r_hat.max().to_array().max()), float(ess.min().to_array().min())
    divergences = int(groups.made["sample_stats"]["diverging"].values.sum())
    groups.attrs |= {"r_hat": worst, "ess": least, "divergences": divergences}
    bad = {str(name): float(x.max()) for name, x in r_hat.data_vars.items() if float(x.max()) > MAX_R_HAT}
    problems = [
        *([f"R-hat above {MAX_R_HAT} ({', '.join(f'{k} {v:.3f}' for k, v in bad.items())})"] if bad else []),
        *([divergent(divergences)] if divergences else []),
    ]
    groups.attrs["converged"] = f"no: {'; '.join(problems)}" if problems else "yes" if worst <= MAX_R_HAT else UNKNOWN
    if bad:
        warnings.warn(f"NUTS: {problems[0]}; the chains have not mixed, run longer.", stacklevel=5)
    if divergences:
        warnings.warn(f"NUTS: {problems[-1]}", stacklevel=5)
    return groups.finished({"r_hat": r_hat, "ess": ess})


UNKNOWN = "unknown: one chain has no R-hat"


def divergent(divergences: int) -> str:
    """What divergences mean."""
    return (
        f"{divergences} divergence{'s' * (divergences > 1)}: where the sampler cannot go, the draws have a gap; a "
        f"target_accept_prob nearer to 1, or a non-centred model, may help."
    )
