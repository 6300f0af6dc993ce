"""The MCMC baseline: Pyro's NUTS, as ArviZ data with its diagnostics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.poutine.subsample_messenger import _Subsample

from ppvi.engine.calls import verb
from ppvi.engine.mcmc import diagnosed, refuse_discrete, refuse_options
from ppvi.engine.names import is_discrete
from ppvi.pyro._handlers import AllRows, all_rows
from ppvi.pyro._keys import Key, seeded

if TYPE_CHECKING:  # which takes seconds to import
    import arviz as az


@verb
def nuts(
    model: Callable[..., Any],
    key: Key,
    *args: Any,
    num_warmup: int = 1000,
    num_samples: int = 1000,
    num_chains: int = 4,
    target_accept_prob: float = 0.8,
    progress: bool = True,
    **kwargs: Any,
) -> az.InferenceData:
    """Draw from a model's posterior by the no-U-turn sampler, one chain after the other.

    **Arguments**

    - `model`: a Pyro program without discrete latent sites, or marginalised over them; its plates are of all their rows.
      `*args`, `**kwargs` go to it.
    - `key`: an int seed, a `torch.Generator`, or None for PyTorch's global one.
    - `num_warmup`, `num_samples`: per chain.
    - `target_accept_prob`: closer to one for posteriors with narrow necks.

    **Returns** `InferenceData` with groups `posterior`, `sample_stats`, `r_hat` and `ess` (bulk), and a warning where
    an R-hat passes 1.01. Hoffman and Gelman 2014.
    """
    refuse_options(model, num_warmup, num_samples, num_chains, target_accept_prob, progress)
    import arviz as az

    chains = []
    with seeded(key), all_rows():
        with torch.random.fork_rng(), torch.no_grad(), poutine.trace() as found:
            AllRows()(model)(*args, **kwargs)
        sites = {name: dict(found.trace.nodes[name])["fn"] for name in found.trace.stochastic_nodes}
        sites = {name: fn for name, fn in sites.items() if not isinstance(fn, _Subsample)}
        refuse_discrete([name for name, fn in sites.items() if is_discrete(fn)], sites)
        for _ in range(num_chains):
            kernel = NUTS(AllRows()(model), target_accept_prob=target_accept_prob)
            sampler = MCMC(kernel, num_samples=num_samples, warmup_steps=num_warmup, disable_progbar=not progress)
            sampler.run(*args, **kwargs)
            chains.append(az.from_pyro(sampler, log_likelihood=False))
    data: Any = az.concat(chains, dim="chain") if num_chains > 1 else chains[0]
    return diagnosed(data)
