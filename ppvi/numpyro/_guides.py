"""Guides of `approximate`: points of unconstrained space, and a Gaussian there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import block, seed, substitute, trace
from numpyro.infer import init_to_uniform
from numpyro.infer.autoguide import AutoContinuous, AutoGuide, AutoLowRankMultivariateNormal, AutoMultivariateNormal
from numpyro.infer.util import constrain_fn

from ppvi.approximate import POINTS, WEIGHTS
from ppvi.approximation import Gaussian
from ppvi.engine.protocol import Args, Kwargs
from ppvi.numpyro._compat import initial_point, sites_at
from ppvi.program import Program
from ppvi.strategies import Enumerate


class Begun(AutoGuide):
    """A guide that one run of the model tells what it is of, from an ordinary point. NumPyro's own looks for a point where the
    gradient is finite, operation by operation, and takes longer to begin than all the rest."""

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        self.prototype_trace = found = run_of(self.model, 0, args, kwargs)
        latent = {name: site for name, site in found.items() if is_latent(site)}
        self._init_locs = {name: dist.biject_to(site["fn"].support).inv(site["value"]) for name, site in latent.items()}
        self._prototype_frames = {frame.name: frame for site in latent.values() for frame in site["cond_indep_stack"]}
        self._prototype_frame_full_sizes = {
            name: site["args"][0] for name, site in found.items() if site["type"] == "plate"
        }
        seeded = seed(self.model, 0)
        self._postprocess_fn = functools.partial(constrain_fn, seeded, args, kwargs, return_deterministic=True)

    def begin(self, *args: Any, **kwargs: Any) -> None:
        self._setup_prototype(*args, **kwargs)

    def named(self, **arrays: Any) -> dict[str, Any]:
        """Parameters by their names."""
        return {f"{self.prefix}_{name}": jnp.asarray(x) for name, x in arrays.items()}


class Points(AutoContinuous, Begun):
    """The uniform distribution on so many points of unconstrained space, which are a parameter, `(point, dimension)`, beside
    a weight for each."""

    def __init__(self, model: Callable[..., Any], count: int):
        super().__init__(continuous(model))
        self.count = count

    def _get_posterior(self) -> dist.Distribution:
        points: Any = numpyro.param(POINTS, jnp.broadcast_to(initial_point(self), (self.count, self.latent_dim)))
        numpyro.param(WEIGHTS, jnp.ones(self.count))
        infer: Any = {"is_auxiliary": True, "strategy": Enumerate()}
        uniform: Any = dist.Categorical(logits=jnp.zeros(self.count))
        at: Any = numpyro.sample("_point", uniform, infer=infer)
        return dist.Delta(points[at], event_dim=1)


def weighted(p: Program, q: Program) -> Any:
    """E_q[w (log p - log q)] of a guide of points."""
    z = q.simulate()
    weights: Any = numpyro.param(WEIGHTS)
    return weights[z["_point"]] * (p.log_density(z) - z.log_density)


class FullRank(AutoMultivariateNormal, Begun):
    """NumPyro's `AutoMultivariateNormal` of the continuous sites."""

    def params(self, found: Gaussian) -> dict[str, Any]:
        return self.named(loc=found.loc, scale_tril=found.scale)


class LowRank(AutoLowRankMultivariateNormal, Begun):
    """NumPyro's `AutoLowRankMultivariateNormal` of the continuous sites."""

    def params(self, found: Gaussian) -> dict[str, Any]:
        return self.named(loc=found.loc, cov_factor=found.factor, scale=found.scale)


def gaussian(model: Callable[..., Any], rank: int | None) -> AutoContinuous:
    """A guide of the continuous sites, with a full covariance or of this rank beside a diagonal."""
    return FullRank(continuous(model)) if rank is None else LowRank(continuous(model), rank=rank)


def order_of(guide: AutoContinuous) -> np.ndarray:
    """Where the entries of a point are, the sites in the order of their names: that of a guide depends on how it was begun."""
    places = sites_at(guide, np.arange(guide.latent_dim))
    return np.concatenate([np.ravel(places[name]) for name in sorted(places)])


def continuous(model: Callable[..., Any]) -> Callable[..., Any]:
    """A model without its latent discrete sites, of which a guide has none."""
    return block(model, hide_fn=_is_finite)


def _is_finite(site: Mapping[str, Any]) -> bool:
    return is_latent(site) and site["fn"].support is not None and site["fn"].support.is_discrete


def is_latent(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def latent(model: Callable[..., Any], i: int, args: Args, kwargs: Kwargs) -> dict[str, Any]:
    """The distributions of the latent sites in a run from an ordinary point."""
    return {name: site["fn"] for name, site in run_of(model, i, args, kwargs).items() if is_latent(site)}


def run_of(model: Callable[..., Any], i: int, args: Args, kwargs: Kwargs) -> dict[str, Any]:
    """The sites of a run from an ordinary point, of which there are many."""

    def start(site: Any) -> Any:
        return None if _is_finite(site) else init_to_uniform(site)

    with block(), numpyro.validation_enabled(False):
        return trace(substitute(seed(model, i), substitute_fn=start)).get_trace(*args, **kwargs)
