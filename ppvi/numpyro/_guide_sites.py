"""The sites of a guide as distributions of its parameters: what geometric optimisers look at on JAX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import transforms

from ppvi.engine.distributions import masks
from ppvi.engine.evaluations import handles
from ppvi.engine.minibatches import Minibatches, agreed
from ppvi.engine.protocol import Args, Kwargs, Params
from ppvi.engine.sites import Counted
from ppvi.numpyro._distributions import SiteDistribution, peel
from ppvi.numpyro._engine import Estimator
from ppvi.numpyro._flow import Flow, arranged
from ppvi.numpyro._programs import as_key, scope_of
from ppvi.numpyro._regions import LIBRARY, base
from ppvi.optimizers.base import Block
from ppvi.program import Trace


@dataclass(frozen=True)
class GuideRun:
    """The guide with what its runs need beside parameters."""

    bound: Estimator
    key: Any
    """Of the evaluation, by which its minibatches are drawn."""
    modules: dict[str, Any]
    args: Args
    kwargs: Kwargs

    def at(self, params: Params, given: Mapping[str, Any] | None = None) -> Trace:
        """A run, in which these sites have the given values."""

        def attempt(known: Any) -> Trace:
            own = scope_of(jax.random.fold_in(as_key(self.key), CURVATURE), plain=True)
            scope = replace(scope_of(self.key, plain=True), keys=own.keys)
            session = self.bound.session(scope, params, self.modules, plate_rows=Minibatches(known))
            with handles(self.bound.formula, session, self.args, self.kwargs) as (_, q):
                return q.simulate(given=given)

        return agreed(attempt)


CURVATURE = 2**31 - 1
"""Tells the keys of the guide's draws from those of the objective's."""


def spread(trace: Trace) -> list[str]:
    """The sites of a run that have mass at more than one value."""
    found = trace.distributions
    return [x for x in trace.choices if x not in found or not isinstance(base(found[x].fn), dist.Delta)]


@dataclass(frozen=True)
class Placed:
    """Where the arguments of a block are in its parameters."""

    block: Block
    entries: dict[str, np.ndarray]
    """Argument -> of its parameter, the number of each entry."""

    def read(self, params: Params) -> dict[str, jax.Array]:
        """The arguments, from parameters or from slopes in them."""
        return {x: jnp.ravel(params[name])[self.entries[x]] for x, name in self.block.parameters}

    def written(self, arguments: Mapping[str, jax.Array], like: Params) -> Params:
        """The parameters of these arguments."""
        found = {}
        for x, name in self.block.parameters:
            flat = jnp.zeros(like[name].size, like[name].dtype).at[self.entries[x]].set(arguments[x])
            found[name] = flat.reshape(like[name].shape)
        return found


@dataclass(frozen=True)
class Candidate:
    """A site that is a block if its arguments are parameters: its family, and of each argument the shape over all lanes."""

    family: str
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(
        cls, counted: Counted, families: Mapping[str, tuple[str, ...]]
    ) -> tuple[Candidate | None, Mapping[str, Any]]:
        """With the arguments; None where a site counts otherwise than once, or is of no such family."""
        once = (
            counted.scale is None and all(plate.scale == 1 for plate in counted.plates) and not any(masks(counted.fn))
        )
        outer = standard(counted.fn)
        fn: Any = base(outer)
        family = type(fn).__name__
        if not once or family not in families:
            return None, {}
        lanes, arguments = SiteDistribution(outer).lanes, {x: getattr(fn, x) for x in families[family]}
        own = {x: getattr(fn.arg_constraints[x], "event_dim", 0) for x in arguments}
        shapes = {x: (*lanes, *jnp.shape(y)[jnp.ndim(y) - own[x] :]) for x, y in arguments.items()}
        return cls(family, shapes), arguments

    def placed(self, site: str, flow: Mapping[str, Flow], params: Params) -> Placed | None:
        """The block, if each argument is a parameter."""
        entries = {x: arranged(flow[x], self.shapes[x]) for x in self.shapes}
        pairs = tuple((x, str(flow[x].moved)) for x in self.shapes)
        names = {name for _, name in pairs}
        if any(found is None for found in entries.values()) or len(names) < len(pairs) or not names <= params.keys():
            return None
        if not jax.tree_util.all_leaves([params[name] for name in names]):  # a tree of one array
            return None
        return Placed(Block(site, self.family, pairs), {x: y for x, y in entries.items() if y is not None})


def standard(fn: dist.Distribution) -> dist.Distribution:
    """What is left of a distribution without `to_event` and bijections, which change no divergence where parameters do not
    change them."""
    fn = peel(fn)
    inner: Any = base(fn)
    if LIBRARY.is_image(inner) and all(is_bijection(x) for x in inner.transforms):
        return standard(inner.base_dist)
    return fn


def is_bijection(transform: Any) -> bool:
    """Whether it is one to one, and its arrays are all that it is made of, as those of flows are not."""
    if isinstance(transform, transforms.ComposeTransform):
        return all(is_bijection(x) for x in transform.parts)
    if isinstance(transform, transforms.IndependentTransform):
        return is_bijection(transform.base_transform)
    return isinstance(transform, BIJECTIONS) and not isinstance(transform, transforms.AbsTransform)


BIJECTIONS = (
    transforms.ParameterFreeTransform,
    transforms.ExpTransform,
    transforms.AffineTransform,
    transforms.PowerTransform,
    transforms.ReshapeTransform,
    transforms.ZeroSumTransform,
)


def arrays_of_transforms(fn: dist.Distribution) -> list[jax.Array]:
    """Those that change a distribution's transforms."""
    inner: Any = base(peel(fn))
    if not LIBRARY.is_image(inner):
        return []
    return [*LIBRARY.arrays(inner.transforms), *arrays_of_transforms(inner.base_dist)]
