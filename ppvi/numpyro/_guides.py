"""Guides of `approximate`: points of unconstrained space, and a Gaussian there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import jax
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
from ppvi.numpyro._known import by_numpy
from ppvi.program import Program
from ppvi.strategies import Enumerate


class Begun(AutoGuide):
    """A guide that one run of the model tells what it is of, from an ordinary point. NumPyro's own looks for a point where the
    gradient is finite, operation by operation, and takes longer to begin than all the rest."""

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        self.prototype_trace = found = run_of(self.model, 0, args, kwargs)
        latent = {name: site for name, site in found.items() if is_latent(site)}
        with by_numpy():
            self._init_locs = {name: _unconstrained(site) for name, site in latent.items()}
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
        return {f"{self.prefix}_{name}": jax.device_put(x) for name, x in arrays.items()}


class Trusted(AutoGuide):
    """A guide whose distributions are ours, with parameters as they should be: to look at these takes as long as a fit.

    NumPyro has one switch for all threads, and its autoguides make distributions where no `validate_args` is passed on: what
    another thread makes in these milliseconds is not looked at either, as within NumPyro's own `validation_enabled`.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with numpyro.validation_enabled(False):
            return super().__call__(*args, **kwargs)  # pyright: ignore[reportAbstractUsage]


class Points(Trusted, AutoContinuous, Begun):
    """The uniform distribution on so many points of unconstrained space, which are a parameter, `(point, dimension)`, beside
    a weight for each."""

    def __init__(self, model: Callable[..., Any], count: int):
        super().__init__(continuous(model))
        self.count = count

    def resized(self, count: int) -> Points:
        """Of so many points, of the same model, which runs no further time for it."""
        found = copy(self)
        found.count = count
        return found

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


class FullRank(Trusted, AutoMultivariateNormal, Begun):
    """NumPyro's `AutoMultivariateNormal` of the continuous sites."""

    def params(self, parts: Sequence[Gaussian], weights: np.ndarray) -> dict[str, Any]:
        (found,) = parts
        return self.named(loc=found.loc, scale_tril=found.scale)


class LowRank(Trusted, AutoLowRankMultivariateNormal, Begun):
    """NumPyro's `AutoLowRankMultivariateNormal` of the continuous sites."""

    def params(self, parts: Sequence[Gaussian], weights: np.ndarray) -> dict[str, Any]:
        (found,) = parts
        return self.named(loc=found.loc, cov_factor=found.factor, scale=found.scale)


class Picked(dist.MixtureSameFamily):
    """A mixture of Gaussians of which the one that is picked is drawn from alone: NumPyro's draws from all."""

    def sample_with_intermediates(
        self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()
    ) -> tuple[jax.Array, list[jax.Array]]:
        assert key is not None
        picking, drawing = jax.random.split(key)
        parts: Any = self.component_distribution
        which: Any = self.mixing_distribution.sample(picking, sample_shape)
        one = dist.MultivariateNormal(parts.loc[which], scale_tril=parts.scale_tril[which])
        return one.sample(drawing), [which]


class OfSeveral(Trusted, AutoContinuous, Begun):
    """A mixture of so many Gaussians of the continuous sites, with full covariances."""

    def __init__(self, model: Callable[..., Any], count: int):
        super().__init__(model)
        self.count = count

    def _get_posterior(self) -> dist.Distribution:
        shape = (self.count, self.latent_dim)
        weights: Any = self._param("weights", jnp.ones(self.count) / self.count, dist.constraints.simplex)
        loc: Any = self._param("loc", jnp.zeros(shape), dist.constraints.real)
        scale = jnp.broadcast_to(jnp.eye(self.latent_dim), (*shape, self.latent_dim))
        scale: Any = self._param("scale_tril", scale, dist.constraints.lower_cholesky)
        return Picked(dist.Categorical(weights), dist.MultivariateNormal(loc, scale_tril=scale))

    def _param(self, name: str, value: jax.Array, constraint: Any) -> Any:
        return numpyro.param(f"{self.prefix}_{name}", value, constraint=constraint)

    def params(self, parts: Sequence[Gaussian], weights: np.ndarray) -> dict[str, Any]:
        stacked = {"loc": np.stack([x.loc for x in parts]), "scale_tril": np.stack([x.scale for x in parts])}
        return self.named(weights=weights, **stacked)


def gaussian(model: Callable[..., Any], rank: int | None, count: int) -> AutoContinuous:
    """A guide of the continuous sites, with a full covariance, of this rank beside a diagonal, or of so many full ones."""
    if count > 1:
        return OfSeveral(continuous(model), count)
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
    """The sites of a run from an ordinary point, of which there are many: uniform on [-2, 2] in unconstrained space, as that of
    NumPyro's `init_to_uniform` is."""

    random = np.random.default_rng(i)

    def start(site: Any) -> Any:
        if not is_latent(site) or _is_finite(site):
            return None
        try:
            onto = dist.biject_to(site["fn"].support)
        except NotImplementedError:
            return init_to_uniform(site)  # which says of which site there is none
        shape = (*site["kwargs"].get("sample_shape", ()), *onto.inverse_shape(site["fn"].shape()))
        return onto(jnp.asarray(random.uniform(-2.0, 2.0, shape)))

    with by_numpy(), block(), numpyro.validation_enabled(False):
        return trace(seed(substitute(model, substitute_fn=start), i)).get_trace(*args, **kwargs)


def _unconstrained(site: Mapping[str, Any]) -> jax.Array:
    return dist.biject_to(site["fn"].support).inv(site["value"])
