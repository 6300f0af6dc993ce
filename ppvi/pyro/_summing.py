"""Sums over finite sites: an operation of the graph that is traced, in whose place the compiler's sum is traced afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore[reportMissingImports]
from torch.fx import GraphModule, Node
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map_only

from ppvi.compiler.continuation import Env
from ppvi.engine.summed import Finish, Piece, Staged, Told, is_summed
from ppvi.ir import Atom, Equation, Origin
from ppvi.pyro._located import noting
from ppvi.pyro._ops import OPS
from ppvi.pyro._registry import LIBRARY, in_front, register, registered
from ppvi.pyro._trees import level, lowered

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


def expanded(
    traced: GraphModule, equations: Sequence[Equation], atoms: dict[Any, Atom], *tensors: torch.Tensor
) -> torch.Tensor:
    """Run a graph, and in place of its sums what the compiler makes of them."""
    env, values = Known(), dict[Node, Any]()
    inputs = iter(tensors)
    needed = _needed(traced)
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
                values[node] = _run(node, values, equations, atoms, env)
        if node in atoms:
            env.values[atoms[node]] = values[node]
    raise AssertionError("a graph has an output")


def _run(node: Node, values: dict[Node, Any], equations: Sequence[Equation], atoms: dict[Any, Atom], env: Known) -> Any:
    if node.target is not torch.ops.ppvi.summed.default:
        args, kwargs = tree_map_only(Node, values.__getitem__, (node.args, dict(node.kwargs)))
        return node.target(*args, **kwargs)  # type: ignore[operator]
    arrays, _, number, mapped = node.args
    pieces, finish = registered(number)  # type: ignore[arg-type]
    return finish(Staged(pieces, equations, env, [atoms[x] for x in arrays], mapped), OPS)  # type: ignore[union-attr, arg-type]


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
    with lowered(level()), _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
        found = peeled.enumerate_support(expand=False)
    return None if is_functorch_wrapped_tensor(found) else found.detach().cpu().numpy()


_COUNTED = frozenset({"Bernoulli", "Categorical", "Binomial", "BetaBinomial"})
"""Distributions of the numbers from 0 on."""
