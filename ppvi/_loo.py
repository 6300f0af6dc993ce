"""The leave-one-out density of a fit, of NUTS, or of any ArviZ data."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ppvi._doors import described, listed
from ppvi._given import is_fit
from ppvi._options import door
from ppvi.checks.tails import pareto_shape, threshold
from ppvi.engine._arviz import SAMPLE, group_of, is_data, loo as loo_of, of_entries
from ppvi.errors import ProgramError

if TYPE_CHECKING:  # which takes seconds to import
    import xarray as xr


@door
def loo(posterior: Any, *, var_name: str | None = None, draws: int = 4000) -> Any:
    """Expected log density of an observation that was left out, by Pareto smoothed importance sampling.

        elpd_i = log sum_s w_is p(y_i | theta_s) / sum_s w_is

    From the posterior, w_is = 1 / p(y_i | theta_s), as `az.loo` has it (Vehtari, Gelman and Gabry 2017). Draws of a fit are
    from its guide q instead, and have `log_q` beside `log_p` in their `sample_stats`: then w_is is that times
    p(theta_s, y) / q(theta_s), which corrects for the guide as well (Magnusson et al. 2019). `az.loo` itself does not look at
    `log_q`, and takes the draws of a fit for those of the posterior.

    **Arguments**

    - `posterior`: a fit, or ArviZ data with `log_likelihood`, from `fit.posterior`, `nuts` or elsewhere.
    - `var_name`: of several observed sites the one whose values are left out; of an observation in two sites, add the two in
      `log_likelihood` first.
    - `draws`: number of draws from a fit.

    **Returns** ArviZ's `ELPDData` with its pointwise values, of which `az.compare({"one": ppvi.loo(fit), "other":
    ppvi.loo(nuts)})` takes several. A `pareto_k` above 0.7 tells of an observation for which weights do not do. `k_hat` is the
    Pareto shape of the weights p(theta, y) / q(theta) alone, of all draws: where it is not below that at which so many weights
    can be averaged, the correction has failed whatever the standard error says, and a warning says so.

    Observations that are left out by a mask, whose log density is 0 at every draw, are left out here, too.

    A warning tells of observations that share finite sites which are summed out, as in a hidden Markov model: their densities
    are given draws of these.

    **Raises** `ProgramError` where there are no pointwise densities, several observed sites and no `var_name`, or too few
    draws.
    """
    data = posterior.posterior(draws=draws) if is_fit(posterior) else posterior
    if not is_data(data):
        raise ProgramError(
            f"loo: expected a fit or ArviZ data with a log_likelihood group, not {described(posterior)}."
        )
    name, densities = _chosen(data, var_name)
    if name in str(densities.attrs.get("conditional", "")).split(", "):
        warnings.warn(
            f"loo: the log_likelihood of {name!r} is given draws of finite sites, which its entries share, so that there is "
            f"none by entry with these summed out: elpd_loo has the noise of the draws, and a high pareto_k where it is much.",
            stacklevel=3,
        )
    number = densities.sizes["chain"] * densities.sizes["draw"]
    if number < LEAST:
        raise ProgramError(
            f"loo: of {number} draws no tail can be fitted: it takes {LEAST} at the least, and thousands are better, as in "
            f"ppvi.loo(fit, draws=4000)."
        )
    masked = masked_out(densities[name])
    if masked.all():
        raise ProgramError(f"loo: no observation of {name!r} counts: all are masked, or there are none.")
    if masked.any():
        data = of_entries(data, name, ~masked)
    stats = group_of(data, "sample_stats")
    if stats is None or "log_q" not in stats:
        return loo_of(data, name)
    log_ratio = stats["log_p"] - stats["log_q"]
    k_hat, limit = pareto_shape(np.asarray(log_ratio, float).ravel()), threshold(number)
    if not k_hat < limit:
        warnings.warn(
            f"loo: the correction for the guide has failed: its weights p / q have a Pareto shape k-hat of {k_hat:.2f}, and "
            f"{number} draws can be averaged below {limit:.2f}. elpd_loo is then decided by a few draws, which its se does not "
            f"show. Fit a guide that is nearer to the posterior; or take the guide's draws for the posterior's, by "
            f"az.loo(fit.posterior()).",
            stacklevel=3,
        )
    return loo_of(data, name, log_ratio, k_hat)


def masked_out(densities: Any) -> np.ndarray:
    """Which observations have a log density of 0 at every draw, `(*batch)`: those that a mask leaves out."""
    return np.asarray((densities == 0).all(SAMPLE))


LEAST = 25
"""Draws of which a tail of five can be fitted, one in five of them."""


def _chosen(data: Any, var_name: str | None) -> tuple[str, xr.Dataset]:
    """The observed site that is meant, and the densities of all."""
    densities = group_of(data, "log_likelihood")
    names = [] if densities is None else [str(name) for name in densities.data_vars]
    if densities is None or not names:
        raise ProgramError(
            "loo: there is no log_likelihood: draw with log_likelihood=True from a model that observes data."
        )
    if var_name is None and len(names) > 1:
        raise ProgramError(f"loo: there are several observed sites: choose one of {listed(names)} by var_name=.")
    if var_name is not None and var_name not in names:
        raise ProgramError(f"loo: var_name={var_name!r} is none of the observed sites, {listed(names)}.")
    return names[0] if var_name is None else var_name, densities
