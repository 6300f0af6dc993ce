"""The MCMC baseline: NumPyro's NUTS, as ArviZ data with its diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpyro.handlers import infer_config
from numpyro.infer import MCMC, NUTS

from ppvi._doors import listed
from ppvi._options import door
from ppvi.engine.labels import Labels
from ppvi.engine.mcmc import Look, gathered, looked_at, of_model, refuse_options, starting
from ppvi.engine.minibatches import Whole
from ppvi.errors import ProgramError
from ppvi.numpyro._beginnings import finding, tracing_draws
from ppvi.numpyro._engine import Estimator
from ppvi.numpyro._handlers import AllRows
from ppvi.numpyro._programs import NumPyroPrograms, as_key, known

if TYPE_CHECKING:  # which takes seconds to import
    from ppvi.engine._arviz import ArviZData


STATS = {
    "diverging": "diverging",
    "energy": "energy",
    "num_steps": "n_steps",
    "accept_prob": "acceptance_rate",
    "adapt_state.step_size": "step_size",
}
"""What NumPyro calls the statistics of a draw, and what ArviZ does."""


def looking(key: jax.Array, look: Look) -> None:
    """In a session in which a model runs once, on all rows, for its data to be looked at."""

    def run(token: jax.Array | None) -> None:
        look(finding(NumPyroPrograms(token=token), key, {}, {}, plate_rows=Whole()))

    tracing_draws(run)


@door
def nuts(
    model: Callable[..., Any],
    key: jax.Array,
    *args: Any,
    num_warmup: int = 1000,
    num_samples: int = 1000,
    num_chains: int = 4,
    target_accept_prob: float = 0.8,
    progress: bool = True,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> ArviZData:
    """Draw from a model's posterior by the no-U-turn sampler.

    **Arguments**

    - `model`: a NumPyro program; its plates are of all their rows. Discrete latent sites with finitely many values are summed
      out, which needs funsor, and are not among the draws. `*args`, `**kwargs` go to it.
    - `num_warmup`, `num_samples`: per chain.
    - `target_accept_prob`: closer to one for posteriors with narrow necks.
    - `coords`, `dims`: as for `posterior`.

    **Returns** ArviZ data, an `InferenceData` or, of ArviZ 1.x, a `DataTree`, with the groups that `posterior` has, of draws
    that have no `log_q`; `r_hat` and `ess` (bulk) by variable, and their worst in the attributes, with the number of
    `divergences`. A warning says where an R-hat passes 1.01, and that there are divergences. Hoffman and Gelman 2014.
    """
    refuse_options(model, nuts, locals())
    labels = Labels(dims, coords)
    key = as_key(key)
    with starting("nuts", model, known, args, kwargs):
        args, kwargs, discrete = looked_at("nuts", partial(looking, key), model, args, kwargs)
    if discrete and find_spec("funsor") is None:
        raise ProgramError(
            f"nuts: NumPyro sums out the discrete sites {listed(discrete)} by funsor, which is not installed: install it, or "
            f"sum them out by hand."
        )
    summed = infer_config(AllRows(model), lambda site: {"enumerate": "parallel"} if site["name"] in discrete else {})
    kernel = NUTS(summed, target_accept_prob=target_accept_prob)
    sampler = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=progress,
    )
    with starting("nuts", model, known, args, kwargs):
        sampler.run(key, *args, extra_fields=tuple(STATS), **kwargs)
    state: Any = sampler.last_state
    names = set(state.z)  # of the latent sites
    draws = {name: np.asarray(x) for name, x in sampler.get_samples(group_by_chain=True).items() if name in names}
    extra = sampler.get_extra_fields(group_by_chain=True)
    stats = {said: np.asarray(extra[name]) for name, said in STATS.items()}
    return gathered(Estimator(of_model(model)), "numpyro", key, args, kwargs, draws, stats, labels)
