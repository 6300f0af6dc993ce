"""What MCMC baselines share: their diagnostics."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ppvi._doors import count, flag, function, number
from ppvi.errors import ProgramError

if TYPE_CHECKING:  # which takes seconds to import
    import arviz as az

MAX_R_HAT = 1.01
"""Above this R-hat chains are reported as not mixed (Vehtari et al. 2021)."""


def refuse_options(model: Any, num_warmup: Any, num_samples: Any, num_chains: Any, target: Any, progress: Any) -> None:
    """Options of `nuts` that are none."""
    function("nuts: the model", model, "An objective has it as objective.model.")
    count("nuts: num_warmup", num_warmup, least=0)
    count("nuts: num_samples", num_samples)
    count("nuts: num_chains", num_chains)
    number("nuts: target_accept_prob", target, above=0, below=1)
    flag("nuts: progress", progress)


def refuse_discrete(discrete: Collection[str], latent: Collection[str]) -> None:
    """A model all of whose latent sites are discrete has nothing that NUTS could move."""
    if latent and set(discrete) == set(latent):
        raise ProgramError(
            f"nuts: the latent sites {sorted(latent)} are all discrete, and NUTS moves continuous ones: sum them out "
            f"by hand, or fit a guide of them, as by Enumerate()."
        )


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
        warnings.warn(f"NUTS: R-hat above {MAX_R_HAT} ({found}); the chains have not mixed, run longer.", stacklevel=3)
    return data
