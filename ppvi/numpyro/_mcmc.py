"""The MCMC baseline: NumPyro's NUTS, as ArviZ data with its diagnostics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
from numpyro.handlers import block, seed, trace
from numpyro.infer import MCMC, NUTS

from ppvi.engine.calls import verb
from ppvi.engine.mcmc import diagnosed, refuse_discrete, refuse_options
from ppvi.engine.names import is_discrete
from ppvi.numpyro._handlers import AllRows
from ppvi.numpyro._programs import as_key

if TYPE_CHECKING:  # which takes seconds to import
    import arviz as az


def is_latent(site: Any) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


@verb
def nuts(
    model: Callable[..., Any],
    key: jax.Array,
    *args: Any,
    num_warmup: int = 1000,
    num_samples: int = 1000,
    num_chains: int = 4,
    target_accept_prob: float = 0.8,
    progress: bool = True,
    **kwargs: Any,
) -> az.InferenceData:
    """Draw from a model's posterior by the no-U-turn sampler.

    **Arguments**

    - `model`: a NumPyro program without discrete latent sites, or marginalised over them; its plates are of all their rows.
      `*args`, `**kwargs` go to it.
    - `num_warmup`, `num_samples`: per chain.
    - `target_accept_prob`: closer to one for posteriors with narrow necks.

    **Returns** `InferenceData` with groups `posterior`, `sample_stats`, `r_hat` and `ess` (bulk), and a warning where
    an R-hat passes 1.01. Hoffman and Gelman 2014.
    """
    refuse_options(model, num_warmup, num_samples, num_chains, target_accept_prob, progress)
    key = as_key(key)
    with block(), seed(rng_seed=key), trace() as found:
        AllRows(model)(*args, **kwargs)
    latent = {name: is_discrete(site["fn"]) for name, site in found.items() if is_latent(site)}
    refuse_discrete([name for name, discrete in latent.items() if discrete], latent)
    kernel = NUTS(AllRows(model), target_accept_prob=target_accept_prob)
    sampler = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=progress,
    )
    sampler.run(key, *args, extra_fields=("diverging", "energy", "num_steps", "accept_prob"), **kwargs)
    import arviz as az

    return diagnosed(az.from_numpyro(sampler, log_likelihood=False))
