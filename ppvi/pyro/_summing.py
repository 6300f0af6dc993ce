"""Sums over finite sites: an operation of the graph that is traced, in whose place the compiler's sum is traced afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.fx import GraphModule, Node

from ppvi.compiler.continuation import Env
from ppvi.compiler.elimination import logarithm
from ppvi.engine.pieces import Finish, Piece, Staged, Told, Wanted
from ppvi.engine.summed import Alternatives, Completed, by_entry, conditional, eliminated, is_summed
from ppvi.ir import Atom, Equation, Origin
from ppvi.pyro._compat import (
    DisableTorchFunction,
    disable_current_modes,
    get_innermost_proxy_mode,
    is_functorch_wrapped_tensor,
    level,
    tree_map_only,
)
from ppvi.pyro._located import noting
from ppvi.pyro._ops import OPS, TorchOps
from ppvi.pyro._registry import LIBRARY, in_front, register, registered
from ppvi.pyro._trees import lowered

LIBRARY.define("summed(Tensor[] arrays, int[] shape, int number, int mapped) -> Tensor")


class Sum(NamedTuple):
    """A sum that is to be traced."""

    pieces: Sequence[Piece]
    finish: Finish


def mark(told: Told, shape: Sequence[int], finish: Finish) -> torch.Tensor:
    """What stands for the sum over finite sites of a run."""
    return torch.ops.ppvi.summed([*told.arrays, *told.scales], list(shape), register(Sum(told.pieces, finish)), 0)


def _summed(arrays: list[torch.Tensor], shape: Sequence[int], number: int, mapped: int) -> torch.Tensor:
    return arrays[0].new_zeros((*arrays[0].shape[:mapped], *shape))


def _batch(info: Any, dims: Any, arrays: Any, shape: Any, number: int, mapped: int) -> tuple[torch.Tensor, int]:
    moved = [in_front(info.batch_size, x, d) for x, d in zip(arrays, dims[0], strict=True)]
    return torch.ops.ppvi.summed(moved, shape, number, mapped + 1), 0


LIBRARY.impl("summed", _summed, "CompositeExplicitAutograd")
torch.library.register_vmap("ppvi::summed", _batch, lib=LIBRARY)


def sums_in(traced: GraphModule) -> list[Node]:
    return [node for node in traced.graph.nodes if node.target is torch.ops.ppvi.summed.default]


class Graph(NamedTuple):
    """A graph, and what it has been read as."""

    traced: GraphModule
    equations: Sequence[Equation]
    atoms: Mapping[Any, Atom]
    constants: Mapping[Any, Any]


def expanded(
    graph: Graph, *tensors: torch.Tensor, made: Callable[[Staged], torch.Tensor] | None = None
) -> torch.Tensor:
    """Run a graph, and in place of its sums what the compiler makes of them, or what is `made` of them."""
    env, values, (traced, _, atoms, _) = Known(), dict[Node, Any](), graph
    inputs, needed = iter(tensors), _needed(traced)
    for node in traced.graph.nodes:
        if node not in needed:
            continue
        if node.op == "placeholder":
            values[node] = next(inputs)
        elif node.op == "get_attr":
            values[node] = getattr(traced, node.target)
        elif node.op == "output":
            return values[node.args[0]]
        else:
            with noting(where=node.meta.get("where", "unknown"), origin=node.meta.get("origin", Origin.OTHER)):
                values[node] = _run(node, values, graph, env, made)
        if node in atoms:
            env.values[atoms[node]] = values[node]
    raise AssertionError("a graph has an output")


def _run(
    node: Node,
    values: dict[Node, Any],
    graph: Graph,
    env: Known,
    made: Callable[[Staged], torch.Tensor] | None,
) -> Any:
    if node.target is torch.ops.ppvi.note.default and get_innermost_proxy_mode() is None:
        return values[node.args[0]]  # type: ignore[index]
    if node.target is not torch.ops.ppvi.summed.default:
        args, kwargs = tree_map_only(Node, values.__getitem__, (node.args, dict(node.kwargs)))
        return node.target(*args, **kwargs)  # type: ignore[operator]
    arrays, _, number, mapped = node.args
    pieces, finish = registered(number)  # type: ignore[arg-type]
    atoms = [graph.atoms[x] for x in arrays]  # type: ignore[union-attr]
    staged = Staged(pieces, graph.equations, env, atoms, graph.constants, mapped)  # type: ignore[arg-type]
    return finish(staged, OPS) if made is None else made(staged)


def _needed(traced: GraphModule) -> set[Node]:
    """The nodes that are run as they are: not those that only play a part in a sum."""
    within: set[Node] = set()
    drawn: set[Node] = set()
    for node in traced.graph.nodes:
        if node.target is torch.ops.ppvi.mark.default and is_summed(registered(node.args[3])):
            drawn.add(node)
        is_sum = node.target is torch.ops.ppvi.summed.default
        if node in drawn or not (is_sum or within.isdisjoint(node.all_input_nodes)):
            within.add(node)
    found: set[Node] = set()
    for node in reversed(traced.graph.nodes):
        if node.op in ("output", "placeholder") or node.is_impure() or not found.isdisjoint(set(node.users) - drawn):
            found.add(node)
    return found - within


def completed(
    run: Callable[[Callable[[Staged], torch.Tensor]], torch.Tensor], about: Alternatives, wanted: Wanted
) -> Completed:
    """What is known of the sites that are summed out in a run, which takes what is to be made of its sum, given all else:
    values that are drawn, or at temperature 0 the most probable."""

    def derivative(ops: TorchOps, zeros: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return torch.func.grad(lambda shifts: run(lambda staged: eliminated(staged, ops, shifts=shifts)))(zeros)

    entries: dict[str, torch.Tensor] = {}

    def density(staged: Staged) -> torch.Tensor:
        entries.update(by_entry(staged, OPS) if wanted.pointwise else {})
        return eliminated(staged, OPS)

    return Completed(*conditional(about, OPS, Choosing(wanted.temperature), derivative), run(density), entries)


class Choosing(TorchOps):
    """Operations by which the derivative of a log of a sum is one of its terms, drawn, or the largest at temperature 0; so that
    of a nest of sums it is one draw, from the last to the first (Rush 2020)."""

    def __init__(self, temperature: int):
        self.temperature = temperature

    def log_sum(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        x = x if weights is None else x + logarithm(self, weights)
        noise = -torch.log(-torch.log(torch.rand_like(x))) if self.temperature else torch.zeros_like(x)
        return _OneOf.apply(x, noise, self.temperature)


class _OneOf(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, noise: torch.Tensor, temperature: int) -> torch.Tensor:
        return torch.logsumexp(x, 0) if temperature else torch.amax(x, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, noise, _ = inputs
        ctx.save_for_backward(torch.argmax(x + noise, 0))
        ctx.count = len(x)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (place,) = ctx.saved_tensors
        values = torch.arange(ctx.count, device=place.device).reshape(-1, *[1] * place.ndim)
        return (values == place) * slope, None, None


class Known(Env):
    """A scope that has already the values of operations which are no part of a sum."""

    def run(self, equation: Equation) -> None:
        if any(var not in self for var in equation.outputs):
            super().run(equation)


def values_of(peeled: Any) -> np.ndarray | None:
    """The values of a finite distribution, `(K, *ones, *event)`; None where they are not known while it is traced."""
    count, event = len(peeled.enumerate_support(expand=False)), len(peeled.event_shape)
    family, ones = type(peeled).__name__, [1] * len(peeled.batch_shape)
    if family in _COUNTED and not event:
        return np.arange(count).reshape(count, *ones)
    if family == "OneHotCategorical":
        return np.eye(count).reshape(count, *ones, count)
    with lowered(level()), disable_current_modes(), DisableTorchFunction(), torch.no_grad():
        found = peeled.enumerate_support(expand=False)
    return None if is_functorch_wrapped_tensor(found) else found.detach().cpu().numpy()


_COUNTED = frozenset({"Bernoulli", "Categorical", "Binomial", "BetaBinomial"})
"""Distributions of the numbers from 0 on."""
