"""The sites of a guide as distributions of its parameters: what geometric optimisers look at on PyTorch.

Whether an argument is a parameter shows in the graph that PyTorch keeps for gradients: between the two are only operations
that move entries about, or normalise, and which entry is which shows by parameters whose entries all differ.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import Delta
from torch.distributions import TransformedDistribution

from ppvi.engine.distributions import masks
from ppvi.engine.evaluations import handles
from ppvi.engine.minibatches import Minibatches, agreed
from ppvi.engine.protocol import Args, Kwargs, Params
from ppvi.engine.sessions import Session
from ppvi.engine.sites import Counted
from ppvi.optimizers.base import LOWER, Block
from ppvi.program import Trace
from ppvi.pyro._engine import Estimator
from ppvi.pyro._programs import PyroPrograms, scope_of
from ppvi.pyro._regions import LIBRARY, peel
from ppvi.pyro._stage import registering


def guide_run(
    bound: Estimator, params: Params, args: Args, kwargs: Kwargs, given: Mapping[str, Any] | None = None
) -> Trace:
    """A run of the guide, whose draws are constants for every gradient."""
    arguments = bound.arguments(args, kwargs)

    def attempt(known: Any) -> Trace:
        programs, formula = PyroPrograms(bound.modules), bound.formula
        session = Session(programs, params, formula.strategies, scope_of(plain=True), plate_rows=Minibatches(known))
        with (
            registering(),
            torch.enable_grad(),
            arguments.lent(arguments.copies()) as lent,
            handles(formula, session, *lent) as (_, q),
            session.within(constant_draws=True),
        ):
            return q.simulate(given=given)

    return agreed(attempt)


def spread(trace: Trace) -> list[str]:
    """The sites of a run that have mass at more than one value."""
    found = trace.distributions
    return [x for x in trace.choices if x not in found or not isinstance(LIBRARY.unwrapped(found[x].fn), Delta)]


def standard(fn: Any) -> Any:
    """What is left of a distribution without `to_event` and bijections that no parameter changes; these change no
    divergence."""
    fn = peel(fn)
    if isinstance(fn, TransformedDistribution) and all(is_fixed(x) for x in fn.transforms):
        return standard(fn.base_dist)
    return fn


def is_fixed(transform: Any) -> bool:
    """Whether it is one to one, and made of numbers and of tensors that no parameter is behind."""
    return bool(transform.bijective) and _is_plain(list(_own(transform).values()))


def _is_plain(x: Any) -> bool:
    if isinstance(x, list | tuple):
        return all(_is_plain(y) for y in x)
    if isinstance(x, torch.distributions.Transform):
        return is_fixed(x)
    if isinstance(x, torch.Tensor):
        return not x.requires_grad
    return x is None or type(x) in (bool, int, float, str)


def held(fn: Any) -> Any:
    """A distribution whose tensors carry no gradient."""
    if isinstance(fn, torch.Tensor):
        return fn.detach()
    if isinstance(fn, list | tuple):
        return type(fn)(held(x) for x in fn)
    if not isinstance(fn, torch.distributions.Distribution | torch.distributions.Transform):
        return fn
    other = copy.copy(fn)
    other.__dict__.update({name: held(x) for name, x in _own(fn).items()})
    return other


def _own(x: Any) -> dict[str, Any]:
    """What an object is made of; transforms keep their inverse, which has them, and what they were last applied to."""
    return {name: y for name, y in vars(x).items() if name not in ("_inv", "_cached_x_y")}


def _tensors(x: Any) -> Iterator[torch.Tensor]:
    if isinstance(x, torch.Tensor):
        yield x
    elif isinstance(x, list | tuple):
        for y in x:
            yield from _tensors(y)
    elif isinstance(x, torch.distributions.Distribution | torch.distributions.Transform):
        yield from _tensors(list(_own(x).values()))


def reach_of(counted: Counted, leaves: Params) -> frozenset[str]:
    """The parameters that a distribution depends on."""
    found = [x for x in _tensors(counted.fn) if x.requires_grad]
    if not found:
        return frozenset()
    total = torch.stack([x.sum().to(torch.float64) for x in found]).sum()
    slopes = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, retain_graph=True)
    return frozenset(name for name, slope in zip(leaves, slopes, strict=True) if slope is not None)


@dataclass(frozen=True)
class Placed:
    """Where the arguments of a block are in its parameters."""

    block: Block
    entries: dict[str, torch.Tensor]
    """Argument -> of its parameter, the number of each entry."""
    scaled: tuple[str, str] | None = None
    """Where the argument `scale_tril` is a vector times a unit lower triangular matrix: these."""

    def read(self, params: Params) -> dict[str, torch.Tensor]:
        found = {x: params[name].reshape(-1)[self.entries[x]] for x, name in self._plain}
        if self.scaled is not None:
            scale, unit = (params[name] for name in self.scaled)
            found[LOWER] = scale[..., None] * unit
        return found

    def slopes(self, at: Params, slopes: Params) -> dict[str, torch.Tensor]:
        """Slopes in the arguments, of slopes in the parameters."""
        found = {x: slopes[name].reshape(-1)[self.entries[x]] for x, name in self._plain}
        if self.scaled is not None:
            scale, unit = (at[name] for name in self.scaled)
            below = torch.tril(slopes[self.scaled[1]], -1) / scale[..., None]
            diagonal = slopes[self.scaled[0]] - (below * unit).sum(-1)
            found[LOWER] = below + torch.diag_embed(diagonal)
        return {x: torch.tril(g) if x == LOWER else g for x, g in found.items()}

    def written(self, arguments: Mapping[str, torch.Tensor], like: Params) -> Params:
        """The parameters of these arguments."""
        found = {}
        for x, name in self._plain:
            flat = torch.empty_like(like[name]).reshape(-1)
            flat[self.entries[x].reshape(-1)] = arguments[x].reshape(-1)
            found[name] = flat.reshape(like[name].shape)
        if self.scaled is not None:
            diagonal = arguments[LOWER].diagonal(0, -2, -1)
            found |= dict(zip(self.scaled, (diagonal, arguments[LOWER] / diagonal[..., None]), strict=True))
        return found

    @property
    def _plain(self) -> list[tuple[str, str]]:
        return [(x, name) for x, name in self.block.parameters if x in self.entries]


def placed(site: str, counted: Counted, families: Mapping[str, tuple[str, ...]], leaves: Params) -> Placed | None:
    """The block of a site, if its arguments are parameters.

    **Arguments**

    - `leaves`: the parameters that it was run with, whose entries all differ.
    """
    fn = standard(counted.fn)
    family = _family(fn, families)
    once = counted.scale is None and all(plate.scale == 1 for plate in counted.plates) and not any(masks(counted.fn))
    if family is None or not once:
        return None
    entries, pairs, scaled = {}, [], None
    for x in families[family]:
        argument = getattr(fn, x)
        names = [name for name, leaf in leaves.items() if _made_of(argument, leaf)]
        found = _entries(argument, leaves[names[0]], family) if len(names) == 1 else None
        if found is not None:
            entries[x] = found
            pairs.append((x, names[0]))
        elif x == LOWER and (scaled := _scaled(argument, {name: leaves[name] for name in names})) is not None:
            pairs += [(x, name) for name in scaled]
        else:
            return None
    if len({name for _, name in pairs}) < len(pairs):
        return None
    return Placed(Block(site, family, tuple(pairs)), entries, scaled)


def _family(fn: Any, families: Mapping[str, tuple[str, ...]]) -> str | None:
    name = type(fn).__name__
    kinds = [x for x in (name, f"{name}Probs", f"{name}Logits") if x in families]
    for kind in kinds:
        if len(kinds) == 1 or families[kind][0] in vars(fn):
            return kind
    return None


def _made_of(argument: torch.Tensor, leaf: torch.Tensor) -> bool:
    """Whether an argument depends on a parameter. Those of a Beta are taken from one tensor of both."""
    if not argument.requires_grad:
        return False
    slope = torch.autograd.grad(argument.sum(), leaf, allow_unused=True, retain_graph=True)[0]
    return slope is not None and bool((slope != 0).any())


MOVES = frozenset(
    "Expand View ReshapeAlias UnsafeView Squeeze Unsqueeze Select Slice Transpose T Permute Alias Clone Stack Unbind "
    "ToCopy".split()
)
NORMALISES = {"CategoricalProbs": frozenset({"Div", "Sum"}), "CategoricalLogits": frozenset({"Sub", "Logsumexp"})}


def _entries(argument: torch.Tensor, leaf: torch.Tensor, family: str) -> torch.Tensor | None:
    """Which entry of a parameter each of an argument is, each once; None where it is another function of it."""
    more = NORMALISES.get(family, frozenset())
    if not _steps(argument) <= MOVES | more:
        return None
    known, order = leaf.detach().reshape(-1).sort()
    if argument.numel() != len(known) or bool((known.diff() == 0).any()):
        return None
    if more:
        same = argument.shape == leaf.shape and torch.allclose(argument.softmax(-1), leaf.softmax(-1), atol=1e-5)
        return torch.arange(leaf.numel(), device=leaf.device).reshape(leaf.shape) if same else None
    places = torch.searchsorted(known, argument.detach().contiguous()).clamp(max=len(known) - 1)
    exact = bool((known[places] == argument).all())
    found = order[places]
    return found if exact and len(found.unique()) == len(known) else None


def _steps(argument: torch.Tensor) -> set[str]:
    """The kinds of operations between an argument and the leaves of its graph."""
    found, open_, seen = set[str](), [argument.grad_fn], set[Any]()
    while open_:
        node = open_.pop()
        if node is not None and node not in seen:
            seen.add(node)
            name = type(node).__name__.rstrip("0123456789").removesuffix("Backward")
            if name != "AccumulateGrad":
                found.add(name)
            open_ += [after for after, _ in node.next_functions]
    return found


def _scaled(argument: torch.Tensor, leaves: Params) -> tuple[str, str] | None:
    """The names of a vector and a unit lower triangular matrix whose product by rows an argument is."""
    if not _steps(argument) <= MOVES | {"Mul"}:
        return None
    for scale, x in leaves.items():
        for unit, y in leaves.items():
            fits = x.ndim == 1 and y.ndim == 2 and argument.shape == y.shape and len(x) == len(y)
            if fits and bool((y.diagonal() == 1).all()) and torch.equal(argument, x[:, None] * y):
                return scale, unit
    return None
