"""The blocks that a geometric optimiser moves, as a trace of the guide shows them on JAX, and the steps of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax

from ppvi.engine.distributions import masks
from ppvi.engine.evaluations import handles
from ppvi.engine.minibatches import Minibatches, agreed
from ppvi.engine.protocol import Args, Kwargs, Params, Start
from ppvi.engine.sites import Counted
from ppvi.errors import ProgramError
from ppvi.numpyro._algebra import ALGEBRA
from ppvi.numpyro._distributions import SiteDistribution, peel
from ppvi.numpyro._engine import Estimator
from ppvi.numpyro._flow import Flow, arranged, by_name, flows
from ppvi.numpyro._programs import scope_of
from ppvi.numpyro._regions import LIBRARY, base
from ppvi.optimizers.base import LOWER, Block, Geometric
from ppvi.optimizers.families import FAMILIES


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


class Blockwise:
    """Steps of a geometric optimiser: gradients are in the constrained values of its blocks' parameters, and in unconstrained
    ones of the others."""

    def __init__(self, optimizer: Geometric, blocks: list[Placed], rest: Any, transforms: Mapping[str, Any]):
        self.optimizer, self.blocks, self.rest, self.transforms = optimizer, blocks, rest, transforms
        self.moved = {name for placed in blocks for _, name in placed.block.parameters}

    def coordinates(self, mine: Params) -> Params:
        """In which the gradient is taken."""
        return {name: self.transforms[name](x) if name in self.moved else x for name, x in mine.items()}

    def constrained(self, at: Params, others: Params, constrain: Callable[[Params], Params]) -> Params:
        """Constrained values of all parameters."""
        free = {name: x for name, x in at.items() if name not in self.moved}
        return constrain(others | free) | {name: at[name] for name in self.moved}

    def init(self, mine: Params) -> Any:
        at = self.coordinates(mine)
        memories = {x.block.site: self.optimizer.init(x.block, x.read(at), ALGEBRA) for x in self.blocks}
        return memories, self.rest.init(self._others(mine))

    def update(self, slope: Params, memory: Any, mine: Params, step: jax.Array) -> tuple[Params, Any]:
        """The unconstrained parameters after a step up these slopes, and what is remembered."""
        memories, rest = memory
        at, after, kept = self.coordinates(mine), dict[str, Any](mine), {}
        for placed in self.blocks:
            block, site = placed.block, placed.block.site
            up = {x: jnp.tril(g) if x == LOWER else g for x, g in placed.read(slope).items()}
            there, kept[site] = self.optimizer.update(block, placed.read(at), up, memories[site], step, ALGEBRA)
            new = placed.written(there, at)
            after |= {name: self.transforms[name].inv(x) for name, x in new.items()}
        others = self._others(mine)
        down = jax.tree.map(jnp.negative, self._others(slope))
        updates, rest = self.rest.update(down, rest, others)
        return after | optax.apply_updates(others, updates), (kept, rest)  # type: ignore[operator]

    def _others(self, params: Params) -> Params:
        return {name: x for name, x in params.items() if name not in self.moved}


def blocks_of(
    optimizer: Geometric, bound: Estimator, start: Start, names: tuple[str, ...], key: Any, args: Args, kwargs: Kwargs
) -> list[Placed]:
    """The blocks of the guide that an optimiser moves."""
    params, found = start.params, {}

    def run(params: Params, key: Any) -> tuple[Any, Any]:
        choices, _ = guide_run(bound, params, start.modules, key, args, kwargs, None)
        return choices, key

    choices, _ = jax.eval_shape(run, params, key)

    def arguments(params: Params, choices: Any, key: Any) -> Any:
        _, sites = guide_run(bound, params, start.modules, key, args, kwargs, choices)
        found.update({name: Seen.of(optimizer, counted) for name, counted in sites.items()})
        return {name: (seen.arguments, jax.tree.leaves(sites[name].fn)) for name, seen in found.items()}

    closed, shape = jax.make_jaxpr(arguments, return_shape=True)(params, choices, key)
    leaves = by_name(params)
    others = [None] * (len(closed.jaxpr.invars) - len(leaves))
    flow = jax.tree.unflatten(jax.tree.structure(shape), flows(closed, [*leaves, *others]))
    reached = {name: _reach(flow[name]) for name in found}
    placed = []
    for name, seen in found.items():
        free = {x for x in names if start.owners[x] != {"model"} and "model" not in start.owners[x]}
        free -= set[str]().union(*(reach for other, reach in reached.items() if other != name))
        block = seen.placed(name, flow[name][0], params, free)
        placed += [] if block is None else [block]
    if not placed:
        raise ProgramError(
            f"fit: {optimizer.name} moves sites of the guide whose distribution's arguments are parameters of their own, "
            f"{', '.join(sorted(optimizer.families))}, and there is none among {sorted(found)}: take another optimizer, such "
            f"as optax.adam(0.01)."
        )
    return placed


@dataclass(frozen=True)
class Seen:
    """A site of the guide as far as a geometric optimiser asks."""

    family: str | None
    """None where it is no block."""
    arguments: dict[str, jax.Array]
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, optimizer: Geometric, counted: Counted) -> Seen:
        fn = counted.fn
        once = counted.scale is None and all(plate.scale == 1 for plate in counted.plates) and not any(masks(fn))
        inner = _standard(fn)
        name = type(base(inner)).__name__
        if not once or name not in optimizer.families:
            return cls(None, {}, {})
        lanes = SiteDistribution(inner).lanes
        arguments = {x: getattr(base(inner), x) for x in optimizer.families[name]}
        event = FAMILIES[name].event
        tail = base(inner).event_shape
        shapes = {x: (*lanes, *tail, *(tail if event == 2 and x != "loc" else ())) for x in arguments}
        return cls(name, arguments, shapes)

    def placed(self, site: str, flow: Mapping[str, Flow], params: Params, free: set[str]) -> Placed | None:
        if self.family is None:
            return None
        entries, pairs = {}, []
        for x in self.arguments:
            name = flow[x].moved
            if name is None or name not in free or not hasattr(params[name], "shape"):
                return None
            found = arranged(flow[x], params[name].size, self.shapes[x])
            if found is None:
                return None
            entries[x] = found
            pairs.append((x, name))
        if len({name for _, name in pairs}) < len(pairs):
            return None
        return Placed(Block(site, self.family, tuple(pairs)), entries)


def _standard(fn: dist.Distribution) -> dist.Distribution:
    """What is left of a distribution without `to_event` and transforms that no array is in, which change no divergence."""
    fn = peel(fn)
    inner: Any = base(fn)
    if LIBRARY.is_image(inner) and not LIBRARY.arrays(inner.transforms):
        return _standard(inner.base_dist)
    return fn


def _reach(flow: Any) -> frozenset[str]:
    leaves = jax.tree.leaves(flow, is_leaf=lambda x: isinstance(x, Flow))
    return frozenset[str]().union(*(x.reached_by for x in leaves))


def guide_run(
    bound: Estimator, params: Params, modules: Any, key: Any, args: Args, kwargs: Kwargs, given: Any
) -> tuple[dict[str, Any], dict[str, Counted]]:
    """One run of the guide: its choices, and the distributions of its sites that have mass at more than one value."""

    def attempt(known: Any) -> tuple[dict[str, Any], dict[str, Counted]]:
        session = bound.session(scope_of(key, plain=True), params, modules, plate_rows=Minibatches(known))
        with handles(bound.formula, session, args, kwargs) as (_, q):
            trace = q.simulate(given=given, observe=True)
        sites = {
            name: trace.distributions[name]
            for name in trace.choices
            if not isinstance(base(trace.distributions[name].fn), dist.Delta)
        }
        return dict(trace.choices), sites

    return agreed(attempt)
