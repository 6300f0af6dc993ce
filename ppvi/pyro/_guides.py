"""Guides of `approximate`: points of unconstrained space, and a Gaussian there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoContinuous, AutoLowRankMultivariateNormal, AutoMultivariateNormal
from pyro.infer.autoguide.initialization import InitMessenger, init_to_median, init_to_uniform
from pyro.nn import PyroParam
from torch.distributions import biject_to, constraints

from ppvi._ops import as_numpy
from ppvi.approximate import POINTS, WEIGHTS
from ppvi.approximation import Gaussian
from ppvi.engine.protocol import Args, Kwargs
from ppvi.program import Program
from ppvi.pyro._compat import initial_point, sites_at
from ppvi.pyro._keys import seeded
from ppvi.strategies import Enumerate


class Points(AutoContinuous):
    """The uniform distribution on so many points of unconstrained space, which are a parameter, `(point, dimension)`, beside
    a weight for each."""

    def __init__(self, model: Callable[..., Any], count: int):
        super().__init__(continuous(model), init_loc_fn=_median)
        self.count = count

    def resized(self, count: int) -> Points:
        """Of so many points, of the same model, which runs no further time for it."""
        found = copy(self)
        found.count = count
        return found

    def get_posterior(self, *args: Any, **kwargs: Any) -> dist.TorchDistribution:
        points = pyro.param(POINTS, lambda: initial_point(self).expand(self.count, -1).clone())
        pyro.param(WEIGHTS, lambda: initial_point(self).new_ones(self.count))
        infer: Any = {"is_auxiliary": True, "strategy": Enumerate()}
        at = pyro.sample("_point", dist.Categorical(logits=points.new_zeros(self.count)), infer=infer)
        return dist.Delta(points[at], event_dim=1)


def weighted(p: Program, q: Program) -> Any:
    """E_q[w (log p - log q)] of a guide of points."""
    z = q.simulate()
    return pyro.param(WEIGHTS)[z["_point"]] * (p.log_density(z) - z.log_density)


class Begun(AutoContinuous):
    """A guide that is begun from one seed, and has its library's name wherever it stands."""

    known_as: str

    def begin(self, *args: Any, **kwargs: Any) -> None:
        self._pyro_name = self.known_as
        with seeded(0):
            self._setup_prototype(*args, **kwargs)

    def named(self, **arrays: Any) -> dict[str, torch.Tensor]:
        """Parameters by their names."""
        return {f"{self._pyro_name}.{name}": self.loc.new_tensor(x) for name, x in arrays.items()}


class FullRank(AutoMultivariateNormal, Begun):
    """Pyro's `AutoMultivariateNormal` of the continuous sites."""

    known_as = "AutoMultivariateNormal"

    def params(self, parts: Sequence[Gaussian], weights: np.ndarray) -> dict[str, torch.Tensor]:
        (found,) = parts
        sizes = np.diag(found.scale)
        return self.named(loc=found.loc, scale=sizes, scale_tril=found.scale / sizes[:, None])


class LowRank(AutoLowRankMultivariateNormal, Begun):
    """Pyro's `AutoLowRankMultivariateNormal` of the continuous sites."""

    known_as = "AutoLowRankMultivariateNormal"

    def params(self, parts: Sequence[Gaussian], weights: np.ndarray) -> dict[str, torch.Tensor]:
        (found,) = parts
        return self.named(loc=found.loc, scale=found.scale, cov_factor=found.factor)


class OfSeveral(Begun):
    """A mixture of so many Gaussians of the continuous sites, with full covariances."""

    known_as = "AutoMixture"

    def __init__(self, model: Callable[..., Any], count: int):
        super().__init__(model, init_loc_fn=_median)
        self.count = count

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self.loc: Any = PyroParam(initial_point(self).expand(self.count, -1).clone())
        self.weights: Any = PyroParam(self.loc.new_ones(self.count) / self.count, constraints.simplex)
        unit = torch.eye(self.latent_dim).to(self.loc).expand(self.count, -1, -1).clone()
        self.scale_tril: Any = PyroParam(unit, constraints.lower_cholesky)

    def get_posterior(self, *args: Any, **kwargs: Any) -> Any:
        parts = dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril)
        return dist.MixtureSameFamily(dist.Categorical(self.weights), parts)

    def params(self, parts: Sequence[Gaussian], weights: np.ndarray) -> dict[str, torch.Tensor]:
        stacked = {"loc": np.stack([x.loc for x in parts]), "scale_tril": np.stack([x.scale for x in parts])}
        return self.named(weights=weights, **stacked)


def gaussian(model: Callable[..., Any], rank: int | None, count: int) -> AutoContinuous:
    """A guide of the continuous sites, with a full covariance, of this rank beside a diagonal, or of so many full ones."""
    if count > 1:
        return OfSeveral(continuous(model), count)
    if rank is None:
        return FullRank(continuous(model), init_loc_fn=_median)
    return LowRank(continuous(model), init_loc_fn=_median, rank=rank)


def order_of(guide: AutoContinuous) -> np.ndarray:
    """Where the entries of a point are, the sites in the order of their names."""
    places = sites_at(guide, torch.arange(guide.latent_dim))
    return np.concatenate([as_numpy(places[name]).ravel() for name in sorted(places)])


def continuous(model: Callable[..., Any]) -> Callable[..., Any]:
    """A model without its latent discrete sites, of which a guide has none."""
    return poutine.block(model, hide_fn=_is_finite)


def _is_finite(site: Any) -> bool:
    return is_latent(site) and site["fn"].support.is_discrete


def is_latent(site: Any) -> bool:
    return site["type"] == "sample" and not site["is_observed"] and not poutine.util.site_is_subsample(site)


def latent(model: Callable[..., Any], i: int, args: Args, kwargs: Kwargs) -> dict[str, Any]:
    """The distributions of the latent sites in a run from an ordinary point, of which there are many. What it writes to the
    store of parameters is forgotten."""

    def start(site: Any) -> Any:
        return site["fn"]() if site["fn"].support.is_discrete else _started(init_to_uniform, site)

    store = pyro.get_param_store().scope()
    with store, poutine.block(), seeded(i), torch.no_grad(), pyro.validation_enabled(False):
        sites: Any = poutine.trace(InitMessenger(start)(model)).get_trace(*args, **kwargs).nodes
    return {name: site["fn"] for name, site in sites.items() if is_latent(site)}


def _median(site: Any) -> torch.Tensor:
    return _started(init_to_median, site)


def _started(start: Callable[[Any], Any], site: Any) -> Any:
    """Where a site begins; one that has no sampler, such as `ImproperUniform`, at 0 of unconstrained space."""
    try:
        return start(site)
    except NotImplementedError:
        there, fn = biject_to(site["fn"].support), site["fn"]
        return there(torch.zeros(there.inverse_shape(fn.shape())))
