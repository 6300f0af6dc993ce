"""The MCMC baseline: Pyro's NUTS, as ArviZ data with its diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro.infer import MCMC, NUTS, config_enumerate

from ppvi._options import door
from ppvi.engine.labels import Labels
from ppvi.engine.mcmc import Look, gathered, looked_at, of_model, refuse_options, starting
from ppvi.engine.minibatches import Whole
from ppvi.engine.sessions import Session
from ppvi.engine.unstaged import ONCE, unseen
from ppvi.pyro._beginnings import Found
from ppvi.pyro._buffers import Modules
from ppvi.pyro._engine import Estimator
from ppvi.pyro._handlers import AllRows, all_rows
from ppvi.pyro._keys import Key, seeded
from ppvi.pyro._programs import PyroPrograms, known, scope_of

if TYPE_CHECKING:  # which takes seconds to import
    from ppvi.engine._arviz import ArviZData


def looking(look: Look) -> None:
    """In a session in which a model runs once, on all rows, for its data to be looked at."""
    options = {"parameters": Found(), "repeats": ONCE, "plate_rows": Whole()}
    look(
        Session(
            PyroPrograms(Modules()), {}, {}, scope_of(), log_probs=lambda *x: torch.as_tensor(unseen(*x)), **options
        )
    )


@door
def nuts(
    model: Callable[..., Any],
    key: Key,
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
    """Draw from a model's posterior by the no-U-turn sampler, one chain after the other.

    **Arguments**

    - `model`: a Pyro program; its plates are of all their rows. Discrete latent sites with finitely many values are summed
      out, and are not among the draws. `*args`, `**kwargs` go to it.
    - `key`: an int seed, a `torch.Generator`, or None for PyTorch's global one.
    - `num_warmup`, `num_samples`: per chain.
    - `target_accept_prob`: closer to one for posteriors with narrow necks.
    - `coords`, `dims`: as for `posterior`.

    **Returns** ArviZ data, an `InferenceData` or, of ArviZ 1.x, a `DataTree`, with the groups that `posterior` has, of draws
    that have no `log_q`; `r_hat` and `ess` (bulk) by variable, and their worst in the attributes, with the number of
    `divergences`. A warning says where an R-hat passes 1.01, and that there are divergences. Hoffman and Gelman 2014.
    """
    refuse_options(model, nuts, locals(), least=4)
    labels = Labels(dims, coords)
    found: list[tuple[dict[str, np.ndarray], np.ndarray]] = []
    with seeded(key), all_rows():
        with torch.random.fork_rng(), torch.no_grad(), starting("nuts", model, known, args, kwargs):
            args, kwargs, _ = looked_at("nuts", looking, model, args, kwargs)
        for _ in range(num_chains):
            kernel = NUTS(AllRows()(config_enumerate(model)), target_accept_prob=target_accept_prob)
            sampler = MCMC(kernel, num_samples=num_samples, warmup_steps=num_warmup, disable_progbar=not progress)
            with starting("nuts", model, known, args, kwargs):
                sampler.run(*args, **kwargs)
            diverging = np.isin(np.arange(num_samples), sampler.diagnostics()["divergences"]["chain 0"])
            found.append(({name: x.detach().cpu().numpy() for name, x in sampler.get_samples().items()}, diverging))
    draws = {name: np.stack([chain[name] for chain, _ in found]) for name in found[0][0]}
    stats = {"diverging": np.stack([diverging for _, diverging in found])}
    return gathered(Estimator(of_model(model)), "pyro", key, args, kwargs, draws, stats, labels)
