"""The leave-one-out density of a fit, of NUTS, or of any ArviZ data."""

from __future__ import annotations

import warnings
from typing import Any

from ppvi._doors import described, listed
from ppvi._given import is_fit
from ppvi._options import door
from ppvi.engine._arviz import group_of, is_data, loo as loo_of
from ppvi.errors import ProgramError


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
    ppvi.loo(nuts)})` takes several. A `pareto_k` above 0.7 tells of an observation, or of a guide, for which weights do not do.

    A warning tells of observations that share finite sites which are summed out, as in a hidden Markov model: their densities
    are given draws of these.

    **Raises** `ProgramError` where there are no pointwise densities, or several observed sites and no `var_name`.
    """
    data = posterior.posterior(draws=draws) if is_fit(posterior) else posterior
    if not is_data(data):
        raise ProgramError(
            f"loo: expected a fit or ArviZ data with a log_likelihood group, not {described(posterior)}."
        )
    densities = group_of(data, "log_likelihood")
    names = [] if densities is None else [str(name) for name in densities.data_vars]
    if not names:
        raise ProgramError(
            "loo: there is no log_likelihood: draw with log_likelihood=True from a model that observes data."
        )
    if var_name is None and len(names) > 1:
        raise ProgramError(f"loo: there are several observed sites: choose one of {listed(names)} by var_name=.")
    if var_name is not None and var_name not in names:
        raise ProgramError(f"loo: var_name={var_name!r} is none of the observed sites, {listed(names)}.")
    name = names[0] if var_name is None else var_name
    if name in str(densities.attrs.get("conditional", "")).split(", "):  # type: ignore[union-attr]
        warnings.warn(
            f"loo: the log_likelihood of {name!r} is given draws of finite sites, which its entries share, so that there is "
            f"none by entry with these summed out: elpd_loo has the noise of the draws, and a high pareto_k where it is much.",
            stacklevel=3,
        )
    stats = group_of(data, "sample_stats")
    corrected = stats is not None and "log_q" in stats
    return loo_of(data, var_name, stats["log_p"] - stats["log_q"] if corrected else None)  # type: ignore[index]
