"""What MCMC baselines share: which models NUTS can draw from, and the diagnostics of draws."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ppvi._doors import count, flag, function, noted, number
from ppvi._ops import Array
from ppvi.engine.calls import name_of
from ppvi.engine.data import computes, in_arrays
from ppvi.engine.evaluations import handles
from ppvi.engine.formula import Formula
from ppvi.engine.gaps import Known, gaps
from ppvi.engine.sessions import Session
from ppvi.errors import EngineError, ProgramError, StrategyError
from ppvi.program import Program, Trace

if TYPE_CHECKING:  # which takes seconds to import
    import arviz as az

MAX_R_HAT = 1.01
"""Above this R-hat chains are reported as not mixed (Vehtari et al. 2021)."""


def refuse_options(
    model: Any, num_warmup: Any, num_samples: Any, num_chains: Any, target: Any, progress: Any, least: int = 1
) -> None:
    """Options of `nuts` that are none."""
    if hasattr(model, "model") and hasattr(model, "as_loss"):
        raise ProgramError(
            "nuts: the first argument is a model, not an objective, which has its own as objective.model."
        )
    function("nuts: the model", model, "The order is nuts(model, key, ...).")
    count("nuts: num_warmup", num_warmup, least=0)
    count("nuts: num_samples", num_samples, least)
    count("nuts: num_chains", num_chains)
    number("nuts: target_accept_prob", target, above=0, below=1)
    flag("nuts: progress", progress)


def looked_at(
    session: Session, model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a model that is drawn from, which are arrays where it computes with them as such.

    One run of it, of all rows of its plates, refuses data that it cannot have, and sites that NUTS cannot move. What `ppvi`
    alone cannot run, such as a site without a sampler, is left to NUTS.
    """
    given = args, dict(kwargs)
    try:
        with handles(Formula(_drawn, model, model), session, *given) as (p, _):
            trace = p.simulate()
    except (EngineError, StrategyError):
        return given
    refuse_sites(session, trace)
    return (in_arrays(session.engine, *given) or given) if computes(model) else given


def _drawn(p: Program, q: Program) -> Array:
    return p.simulate().log_density


def refuse_sites(session: Session, trace: Trace) -> None:
    """A model needs a site that NUTS can move, and discrete ones have to be summed out."""
    if not trace:
        raise ProgramError("nuts: the model has no latent site, so that there is nothing to draw.")
    discrete = session.names.discrete("model")
    if set(discrete) >= set(trace):
        raise ProgramError(
            f"nuts: the latent sites {sorted(trace)} are all discrete, and NUTS moves continuous ones: sum them out "
            f"by hand, or fit a guide of them, as by Enumerate()."
        )
    for name, said in discrete.items():
        fn = trace.distributions[name].fn if name in trace.distributions else None
        if fn is not None and not session.scope.distribution(fn).has_enumerate_support:
            raise ProgramError(
                f"nuts: site {name!r} is discrete, {said}, and has infinitely many values: sum it out by hand, or fit a "
                f"guide of it."
            )


@contextmanager
def starting(
    model: Callable[..., Any], known: Known, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[None]:
    """Around a sampler, which may find nowhere to begin."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if found := gaps([model], known, args, kwargs):
            raise ProgramError(
                f"nuts failed ({type(error).__name__}), and {' and '.join(found)}: drop these rows, or fill them in and leave "
                f"them out by a mask."
            ) from error
        noted(error, f"nuts of the model {name_of(model)}.")
        raise


def diagnosed(data: az.InferenceData) -> az.InferenceData:
    """MCMC draws with groups `r_hat` and `ess` (bulk), and a warning where an R-hat passes 1.01."""
    import arviz as az

    r_hat: Any = az.rhat(data)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not defined in the InferenceData scheme.*")
        data.add_groups({"r_hat": r_hat, "ess": az.ess(data)})
    bad = {str(name): float(x.max()) for name, x in r_hat.data_vars.items() if float(x.max()) > MAX_R_HAT}
    if bad:
        found = ", ".join(f"{name} {value:.3f}" for name, value in bad.items())
        warnings.warn(f"NUTS: R-hat above {MAX_R_HAT} ({found}); the chains have not mixed, run longer.", stacklevel=4)
    return data
