"""Steps of a geometric optimiser on PyTorch: what a run of the guide shows that it moves, and how; see `ppvi.engine.geometry`.

The Fisher information of parameters that reach sites through other code is the Hessian of the divergence from the guide with
its arguments held constant, at the same parameters (`ppvi.numpyro._fisher` has the equation); products differentiate twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from ppvi.engine.distributions import masks
from ppvi.engine.geometry import Parts, parted
from ppvi.engine.protocol import Args, Kwargs, Params, Start
from ppvi.engine.sites import Counted
from ppvi.errors import EngineError
from ppvi.optimizers.base import Geometric
from ppvi.program import Trace
from ppvi.pyro import _divergences
from ppvi.pyro._algebra import ALGEBRA
from ppvi.pyro._engine import Estimator
from ppvi.pyro._guide_sites import guide_run, held, is_fixed, placed, reach_of, spread, standard
from ppvi.pyro._memories import Memory, Named
from ppvi.pyro._regions import peel
from ppvi.pyro._trees import tree_leaves, tree_map


@dataclass
class Blockwise:
    """That of a geometric optimiser; a `ppvi.pyro._memories.Memory`."""

    optimizer: Geometric
    parts: Parts
    bound: Estimator
    leaves: Mapping[str, torch.Tensor]
    """All parameters, unconstrained."""
    constrain: Callable[[Mapping[str, Any]], Params]
    transforms: Mapping[str, Any]
    rest: Memory | None
    taken: int = 0
    blocks: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at = self._constrained()
        self.blocks = {x.block.site: self.optimizer.init(x.block, x.read(at), ALGEBRA) for x in self.parts.blocks}
        self.fresh = tree_map(torch.clone, self.blocks)

    @property
    def hooked(self) -> bool:
        return self.rest is not None and self.rest.hooked

    @torch.no_grad()
    def step(self, args: Args, kwargs: Kwargs) -> None:
        """Move the leaves by their `.grad`, which is that of a loss."""
        step, after = torch.tensor(self.taken), dict[str, torch.Tensor]()
        at = self._constrained()
        slopes = {name: -self._pulled(name, at[name]) for name in self.parts.moved}
        for x in self.parts.blocks:
            site, up = x.block.site, x.slopes(at, slopes)
            new, self.blocks[site] = self.optimizer.update(x.block, x.read(at), up, self.blocks[site], step, ALGEBRA)
            after |= {name: self.transforms[name].inv(y) for name, y in x.written(new, at).items()}
        if self.parts.curved:
            after |= self._along(step, args, kwargs)
        if self.rest is not None:
            self.rest.step(args, kwargs)
        for name, x in after.items():
            self.leaves[name].copy_(x)
        self.taken += 1

    def _constrained(self) -> Params:
        return {name: x.detach() for name, x in self.constrain(self.leaves).items()}

    def _pulled(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """The slope of the loss in a constrained value."""
        with torch.enable_grad():
            value = value.clone().requires_grad_()
            return torch.autograd.grad(self.transforms[name].inv(value), value, self.leaves[name].grad)[0]

    def _along(self, step: torch.Tensor, args: Args, kwargs: Kwargs) -> dict[str, torch.Tensor]:
        """The curved parameters after a step along the natural gradient."""
        names = self.parts.curved
        with torch.enable_grad():
            own = [self.leaves[name].detach().clone().requires_grad_() for name in names]
            whole = self.constrain({**self.leaves, **dict(zip(names, own, strict=True))})
            random = torch.get_rng_state()
            trace = guide_run(self.bound, whole, args, kwargs)
            total = self._divergence(trace, trace)
            slopes = torch.autograd.grad(total, own, create_graph=True)

            def times(vector: torch.Tensor) -> torch.Tensor:
                parts = zip(slopes, _split(vector, own), strict=True)
                along = torch.stack([(g * v).sum() for g, v in parts]).sum()
                return _joined(torch.autograd.grad(along, own, retain_graph=True, allow_unused=True), own)

            @torch.no_grad()
            def far(displacement: torch.Tensor) -> torch.Tensor:
                there = {name: x + d for name, x, d in zip(names, own, _split(displacement, own), strict=True)}
                with torch.random.fork_rng():  # the same minibatches
                    torch.set_rng_state(random)
                    moved = self.constrain({**self.leaves, **there})
                    found = guide_run(self.bound, moved, args, kwargs, trace.choices)
                return self._divergence(trace, found).detach()

            up = -_joined([self.leaves[name].grad for name in names], own)
            moved = self.optimizer.along(times, far, up, step, ALGEBRA)
        return {name: x.detach() + d for name, x, d in zip(names, own, _split(moved, own), strict=True)}

    def _divergence(self, one: Trace, other: Trace) -> torch.Tensor:
        """From one guide, held constant, to the other, of the sites that are reached."""
        each = (divergence(held_of(one.distributions[x]), other.distributions[x]) for x in self.parts.reached)
        return torch.stack([cast(torch.Tensor, x).sum() for x in each]).sum()

    # What is remembered -------------------------------------------------------------------------------------------------

    def arrays(self) -> Named:
        found = {f"blocks/{i}": x.clone() for i, x in enumerate(tree_leaves(self.blocks))}
        rest = {} if self.rest is None else {f"rest/{name}": x for name, x in self.rest.arrays().items()}
        return {"taken": torch.tensor(self.taken), **found, **rest}

    def load(self, arrays: Named) -> None:
        self.taken = int(arrays["taken"])
        values = iter([arrays[f"blocks/{i}"] for i in range(len(tree_leaves(self.fresh)))])
        self.blocks = tree_map(lambda x: next(values).clone().to(x), self.fresh)
        if self.rest is not None:
            self.rest.load({name.removeprefix("rest/"): x for name, x in arrays.items() if name.startswith("rest/")})


def parts_of(
    optimizer: Geometric,
    bound: Estimator,
    start: Start,
    names: Sequence[str],
    leaves: Mapping[str, torch.Tensor],
    constrain: Callable[[Mapping[str, Any]], Params],
    args: Args,
    kwargs: Kwargs,
    shared: bool,
) -> Parts:
    """What an optimiser moves as what of the parameters of these names."""
    apart = {name: x.detach() + 0.1 * torch.rand_like(x) for name, x in leaves.items()}
    own = {name: x.detach().clone().requires_grad_() for name, x in constrain(apart).items()}
    trace = guide_run(bound, own, args, kwargs)
    sites = spread(trace)
    known = {name: trace.distributions[name] for name in sites if name in trace.distributions}
    reach = {name: reach_of(known[name], own) if name in known else frozenset[str]() for name in sites}
    unknown = {name for name in sites if name not in known or divergence(held_of(known[name]), known[name]) is None}
    found = [block for name, x in known.items() if (block := placed(name, x, optimizer.families, own)) is not None]
    parts = parted(optimizer, found, reach, unknown, names, start)
    if parts.curved and shared:
        raise EngineError(
            f"fit: {optimizer.name} runs the guide for {parts.curved[0]!r}, which is no distribution's own argument, and "
            f"processes of a mesh have each a part of the data: make it one, or fit in one process."
        )
    if (name := _of_rows(parts, lambda: guide_run(bound, own, args, kwargs), trace, own)) is not None:
        raise EngineError(
            f"fit: parameter {name!r} has entries for the rows of a plate's minibatch, which Pyro draws anew in the run of the "
            f"guide that {optimizer.name} takes its Fisher information from: give the rows as arguments, by batches=, or move "
            f"such parameters by Adam."
        )
    return parts


RUNS = 5
"""That see whether a parameter has entries for rows that are drawn."""


def _of_rows(parts: Parts, run: Callable[[], Trace], trace: Trace, own: Params) -> str | None:
    """The first curved parameter of which other entries reach the sites of a minibatch in every run."""
    sizes = set[int]()
    for x in parts.reached:
        for plate in trace.plates[x]:
            if plate.scale != 1 and plate.dim is not None:
                sizes.add(round(plate.scale * trace.log_probs[x].shape[plate.dim]))
    local = [name for name in parts.curved if sizes & set(own[name].shape)]
    if not local:
        return None
    others = [run() for _ in range(RUNS)]
    for name in local:
        before, *after = (reached_entries(found, parts.reached, own[name]) for found in (trace, *others))
        if any(not torch.equal(before, x) for x in after):
            return name
    return None


def reached_entries(trace: Trace, sites: Sequence[str], leaf: torch.Tensor) -> torch.Tensor:
    """Which entries of a parameter the distributions of these sites depend on."""
    total = torch.stack([trace.log_probs[x].sum() for x in sites]).sum()
    return torch.autograd.grad(total, leaf, retain_graph=True)[0] != 0


def held_of(counted: Counted) -> Counted:
    return counted._replace(fn=held(counted.fn))


def divergence(q: Counted, p: Counted) -> torch.Tensor | None:
    """KL(q || p) by lane, as often as the site counts; None where no closed form is known."""
    found = None
    if not any(masks(q.fn)) and not _is_moving(p.fn):
        found = _divergences.divergence(q.fn, p.fn)
        if found is None:
            found = _divergences.divergence(standard(q.fn), standard(p.fn))
            found = None if found is None else found.sum(tuple(range(len(q.fn.batch_shape), found.ndim)))
    if found is None:
        return None
    return found * math.prod(plate.scale for plate in q.plates) * (1.0 if q.scale is None else q.scale)


def _is_moving(fn: Any) -> bool:
    """Whether it is the image of another by transforms that depend on parameters; PyTorch's formula compares their values."""
    fn, known = peel(fn), (torch.distributions.HalfNormal, torch.distributions.HalfCauchy)
    if not isinstance(fn, torch.distributions.TransformedDistribution) or isinstance(fn, known):
        return False
    return not all(is_fixed(x) for x in fn.transforms) or _is_moving(fn.base_dist)


def _joined(parts: Sequence[torch.Tensor | None], like: Sequence[torch.Tensor]) -> torch.Tensor:
    each = (torch.zeros_like(y) if x is None else x for x, y in zip(parts, like, strict=True))
    return torch.cat([x.reshape(-1) for x in each])


def _split(vector: torch.Tensor, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    parts = vector.split([x.numel() for x in like])
    return [x.reshape(y.shape) for x, y in zip(parts, like, strict=True)]
