"""Posteriors beside a reference, such as fits beside MCMC: how far their marginals are from it, what importance weights can
say, and what they cannot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppvi._comparison import Beside, Comparison, Marginal, Reference
from ppvi._doors import close_to, count, described, listed
from ppvi._given import diverged, draws_of, is_by_name, is_fit, log_weights_of
from ppvi._options import door
from ppvi._pairing import Pairs, Posterior, paired
from ppvi.checks.tails import pareto_shape, threshold
from ppvi.engine._arviz import bulk_ess, of_chains, split_r_hat
from ppvi.errors import CallError, ProgramError


@door
def compare(
    *posteriors: Any, draws: int = 4000, var_names: str | Sequence[str] | None = None, **named: Any
) -> Comparison:
    """Compare fits with reference draws, array by array.

        ppvi.compare(fit, reference)
        ppvi.compare(elbo=fit, iwelbo=other, nuts=reference)

    Variables are paired by name and shape. Scalars such as `beta[1]` or `beta.1`, numbered from 1 as Stan does or from 0, are
    the entries of `beta`. What only one side has is left out, and named.

    **Arguments**

    - `*posteriors`, `**named`: two or more, of which the last is the reference that the others are measured by. Each is a fit;
      ArviZ data of either major version with a `posterior` group (and `log_weight` in `sample_stats` for k-hat), from `nuts` or
      elsewhere; an `MCMC` of NumPyro or Pyro that has run; a mapping from names to arrays of shape `(draw, *shape)` or `(chain,
      draw, *shape)`; a list of such mappings, one for each chain; or the path of reference draws of posteriordb, a `.json` or a
      `.json.zip`. Their names are those of keywords.
    - `draws`: number of draws from a fit.
    - `var_names`: the variables that are compared, all that are in common by default.

    **Returns** a `Comparison`: printable, with `to_dataframe()` and `plot()`.

    **Raises** `ProgramError` if one is none of these, if a posterior has nothing in common with the reference, if a name has
    two shapes, or if an array is given by some of its entries.
    """
    count("compare: draws", draws)
    sides = _named(posteriors, named)
    *others, (name, last) = sides.items()
    if is_fit(last) and not all(is_fit(given) for _, given in others):
        raise ProgramError(
            "compare(fit, reference): the fit comes first, and the reference, such as draws of nuts, after it."
        )
    data = {name: _data(given, draws) for name, given in sides.items()}
    reference, kept = data.pop(name), _chosen(var_names)
    known: Posterior = {} if is_by_name(reference) else draws_of(reference)
    theirs: Posterior = {}
    found: dict[str, tuple[Pairs, Any]] = {}
    for each, x in data.items():
        ours = draws_of(x, like=known)
        theirs = known or draws_of(reference, like=ours)
        found[each] = kept_of(paired(ours, theirs, (each, name)), kept, each, ours, theirs), x
    if kept and (unknown := [x for x in kept if not any(x in pairs.common for pairs, _ in found.values())]):
        there = sorted({x for pairs, _ in found.values() for x in pairs.common})
        raise ProgramError(
            f"compare: var_names has {unknown[0]!r}, which is not in common: there are {listed(there) or 'none'}."
            f"{close_to(unknown[0], there)}"
        )
    return Comparison(
        tuple(_beside(each, pairs, x, sides[each]) for each, (pairs, x) in found.items()),
        _reference(name, {k: y for pairs, _ in found.values() for k, (_, y) in pairs.common.items()}, reference),
    )


def _named(posteriors: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Posteriors by name; those that have none are fits, and the last a reference."""
    if len(posteriors) + len(named) < 2:
        raise CallError(
            "compare(fit, reference): there have to be two posteriors or more, of which the last is the 'reference', such as "
            "draws of nuts."
        )
    if not named:
        names = ["fit"] if len(posteriors) == 2 else [f"fit {i + 1}" for i in range(len(posteriors) - 1)]
        names.append("reference")
    else:
        names = ["fit"] if len(posteriors) == 1 else [f"fit {i + 1}" for i in range(len(posteriors))]
    sides = dict(zip(names, posteriors, strict=False))
    if twice := sides.keys() & named.keys():
        raise ProgramError(f"compare: two posteriors have the name {min(twice)!r}: give all of them by keyword.")
    return sides | dict(named)


def _chosen(var_names: Any) -> list[str]:
    names: list[Any] = [var_names] if isinstance(var_names, str) else list(var_names or ())
    if not all(isinstance(name, str) for name in names):
        raise ProgramError(f"compare: var_names is a list of names, not {described(var_names)}.")
    return names


def kept_of(pairs: Pairs, names: Sequence[str], side: str, ours: Posterior, theirs: Posterior) -> Pairs:
    """The variables that are compared."""
    if not pairs.common:
        raise ProgramError(
            f"compare: the {side} has {sorted(ours)} and the reference has {sorted(theirs)}: no site in common."
        )
    return Pairs({name: x for name, x in pairs.common.items() if name in names}, (), ()) if names else pairs


def _data(given: Any, draws: int) -> Any:
    """ArviZ data of a fit, or as given."""
    return given.posterior(draws=draws, log_likelihood=False) if is_fit(given) else given


def _beside(name: str, pairs: Pairs, data: Any, given: Any) -> Beside:
    weights = log_weights_of(data)
    return Beside(
        name,
        marginals=_marginals(pairs),
        k_hat=None if weights is None else pareto_shape(weights),
        threshold=None if weights is None else threshold(weights.size),
        only_here=pairs.only_fit,
        only_reference=pairs.only_reference,
        course=given.course if is_fit(given) else None,
    )


def _reference(name: str, draws: Mapping[str, Any], given: Any) -> Reference:
    chains = of_chains(draws)
    with np.errstate(all="ignore"):
        r_hat = float(split_r_hat(chains).max().to_array().max()) if chains.sizes["chain"] > 1 else math.nan
        ess = float(bulk_ess(chains).min().to_array().min())
    return Reference(name, r_hat, ess, diverged(given))


def _marginals(pairs: Pairs) -> tuple[Marginal, ...]:
    from scipy.stats import wasserstein_distance

    found = []
    for name, (x, y) in pairs.common.items():
        for place in np.ndindex(*x.shape[2:]):
            ours, theirs = (z[(slice(None), slice(None), *place)].ravel() for z in (x, y))
            sd = float(theirs.std()) if np.ptp(theirs) else 0.0  # of equal numbers the sd is one of rounding
            unit = sd if sd > 0 else float("nan")
            found.append(
                Marginal(
                    site=name,
                    place=place,
                    mean=float(ours.mean()),
                    sd=float(ours.std()),
                    reference_mean=float(theirs.mean()),
                    reference_sd=sd,
                    mean_error=float(ours.mean() - theirs.mean()) / unit,
                    wasserstein=float(wasserstein_distance(ours, theirs)) / unit,
                )
            )
    return tuple(found)
