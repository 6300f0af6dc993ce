"""Steps of a geometric optimiser on JAX: what a trace of the guide shows that it moves, and how.

Of the parameters that an objective moves some are *blocks'*, arguments of a site's distribution themselves; some are *curved*,
they reach sites of the guide through other code; and the *rest* reaches none, as those of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ppvi.engine.geometry import Parts, parted
from ppvi.engine.protocol import Args, Kwargs, Params, Start
from ppvi.numpyro._algebra import ALGEBRA
from ppvi.numpyro._engine import Estimator
from ppvi.numpyro._fisher import divergence, divergence_from
from ppvi.numpyro._flow import by_name, flows
from ppvi.numpyro._guide_sites import Candidate, GuideRun, arrays_of_transforms, spread
from ppvi.numpyro._moves import Constrain, Rule, Surroundings
from ppvi.optimizers.base import LOWER, Geometric

Divergence = Callable[[Params, Surroundings], Callable[[Params], jax.Array]]
"""From the guide at these of its parameters, in the surroundings of a step, to the guide at others."""


@dataclass(frozen=True)
class Blockwise:
    """A geometric optimiser's steps: gradients are in the constrained values of its blocks' parameters, and in unconstrained
    values of the others."""

    optimizer: Geometric
    parts: Parts
    rest: Rule
    transforms: Mapping[str, Any]
    divergence: Divergence

    @property
    def explained(self) -> tuple[str, ...]:
        return self.parts.said(self.optimizer)

    @property
    def alone(self) -> Blockwise:
        return replace(self, divergence=_half_square)

    def coordinates(self, mine: Params) -> Params:
        blocks = self.parts.moved
        return {name: self.transforms[name](x) if name in blocks else x for name, x in mine.items()}

    def constrained(self, at: Params, others: Params, constrain: Constrain) -> Params:
        blocks = self.parts.moved
        free = {name: x for name, x in at.items() if name not in blocks}
        return constrain(others | free) | {name: at[name] for name in blocks}

    def init(self, mine: Params) -> Any:
        at = self.coordinates(mine)
        blocks = {x.block.site: self.optimizer.init(x.block, x.read(at), ALGEBRA) for x in self.parts.blocks}
        return blocks, self.rest.init(self._only(self.parts.rest, mine))

    def update(self, slope: Params, memory: Any, mine: Params, around: Surroundings) -> tuple[Params, Any]:
        memories, rest = memory
        at, kept, after = self.coordinates(mine), {}, dict[str, Any]()
        for placed in self.parts.blocks:
            block, site = placed.block, placed.block.site
            up = {x: jnp.tril(g) if x == LOWER else g for x, g in placed.read(slope).items()}
            there, kept[site] = self.optimizer.update(block, placed.read(at), up, memories[site], around.step, ALGEBRA)
            new = placed.written(there, at)
            after |= {name: self.transforms[name].inv(x) for name, x in new.items()}
        if self.parts.curved:
            after |= self._along(slope, mine, around)
        others = self._only(self.parts.rest, mine)
        others, rest = self.rest.update(self._only(self.parts.rest, slope), rest, others, around)
        return mine | after | others, (kept, rest)

    def _along(self, slope: Params, mine: Params, around: Surroundings) -> Params:
        """The curved parameters after a step along the natural gradient."""
        at = self._only(self.parts.curved, mine)
        flat, unflatten = ravel_pytree(at)
        divergence = self.divergence(at, around)

        def far(displacement: jax.Array) -> jax.Array:
            return divergence(unflatten(flat + displacement))

        def times(vector: jax.Array) -> jax.Array:
            return jax.jvp(jax.grad(far), (jnp.zeros_like(flat),), (vector,))[1]

        up, _ = ravel_pytree(self._only(self.parts.curved, slope))
        return unflatten(flat + self.optimizer.along(times, far, up, around.step, ALGEBRA))

    def _only(self, names: Sequence[str], params: Params) -> Params:
        return {name: params[name] for name in names}


def divergence_of(bound: Estimator, reached: Sequence[str]) -> Divergence:
    """Of the sites that are reached."""

    def divergence(at: Params, around: Surroundings) -> Callable[[Params], jax.Array]:
        guide = GuideRun(bound, around.key, around.modules, around.args, around.kwargs)

        def run(curved: Params, given: Mapping[str, Any] | None) -> Any:
            return guide.at(around.constrain(around.params | curved), given)

        return divergence_from(run, at, reached)

    return divergence


def _half_square(at: Params, around: Surroundings) -> Callable[[Params], jax.Array]:
    return lambda there: jnp.sum((ravel_pytree(there)[0] - ravel_pytree(at)[0]) ** 2) / 2


def parts_of(
    optimizer: Geometric, bound: Estimator, start: Start, names: Sequence[str], key: Any, args: Args, kwargs: Kwargs
) -> Parts:
    """What an optimiser moves as what of the parameters of these names."""
    guide = GuideRun(bound, key, dict(start.modules), args, kwargs)
    choices = jax.eval_shape(lambda params: dict(guide.at(params).choices), start.params)
    candidates: dict[str, Candidate | None] = {}
    unknown: set[str] = set()

    def told(params: Params, choices: Any) -> Any:
        trace, out = guide.at(params, choices), {}
        for name in spread(trace):
            counted = trace.distributions.get(name)
            candidates[name], arguments = (None, {}) if counted is None else Candidate.of(counted, optimizer.families)
            if counted is None or divergence(counted, counted) is None:
                unknown.add(name)
            bijections = [] if counted is None else arrays_of_transforms(counted.fn)
            out[name] = arguments, trace.log_probs[name], bijections
        return out

    closed, shape = jax.make_jaxpr(told, return_shape=True)(start.params, choices)
    leaves = by_name(start.params)
    known = flows(closed, [*leaves, *[None] * (len(closed.jaxpr.invars) - len(leaves))])
    flow = jax.tree.unflatten(jax.tree.structure(shape), known)
    reach = {name: flow[name][1].reached_by for name in candidates}
    bent = {name for name in candidates if any(x.reached_by for x in flow[name][2])}
    placed = [
        block
        for name, candidate in candidates.items()
        if candidate is not None
        and name not in bent
        and (block := candidate.placed(name, flow[name][0], start.params)) is not None
    ]
    return parted(optimizer, placed, reach, unknown | bent, names, start)
