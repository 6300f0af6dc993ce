"""Transformations of functions, and trees of tensors in which None is an empty tree, as it is for JAX and not for PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ppvi.errors import ProgramError
from ppvi.program import Trace
from ppvi.pyro._compat import interpreter, pytree


@contextmanager
def lowered(levels: int) -> Iterator[None]:
    """Outside of so many of them, the innermost first."""
    with ExitStack() as stack:
        for _ in range(levels):
            stack.enter_context(interpreter().lower())
        yield


def tree_map(function: Callable[..., Any], *trees: Any) -> Any:
    """Apply a function to the leaves of a tree, or of several trees of one structure."""
    return pytree.tree_map(lambda x, *others: None if x is None else function(x, *others), *trees)


def beside(tree: Any, *others: Any) -> Any:
    """A tree of arrays as tensors, on the device of the first tensor among others."""
    like = next((x for x in tree_leaves(others) if isinstance(x, torch.Tensor)), None)
    return tree_map(lambda x: torch.as_tensor(x, device=None if like is None else like.device), tree)


def tree_leaves(tree: Any) -> list[Any]:
    return [leaf for leaf in pytree.tree_leaves(tree) if leaf is not None]


def stacked(*trees: Any) -> Any:
    """Trees of one structure, side by side along a new leading axis."""
    try:
        return tree_map(lambda *xs: torch.stack([torch.as_tensor(x) for x in xs]), *trees)
    except ValueError as error:
        raise ProgramError(
            f"runs that are to be stacked have returned different things, such as sites that are in some of them only "
            f"({error}): return the same from each, numbers that all of them have."
        ) from error


def vmap(function: Callable[..., Any]) -> Callable[..., Any]:
    """Vectorise over the leading axis of every leaf among the arguments and the results, with draws of their own."""

    def mapped(*args: Any) -> Any:
        leaves, tree = pytree.tree_flatten(args)
        places = [i for i, leaf in enumerate(leaves) if leaf is not None]
        outs: list[Any] = []
        specs: list[Any] = []

        def run(*entries: torch.Tensor) -> tuple[torch.Tensor, ...]:
            filled = list(leaves)
            for place, entry in zip(places, entries, strict=True):
                filled[place] = entry
            outs[:], spec = pytree.tree_flatten(function(*pytree.tree_unflatten(filled, tree)))
            specs[:] = [spec]
            return tuple(torch.as_tensor(out) for out in outs if out is not None)

        results = iter(torch.vmap(run, randomness="different")(*(leaves[i] for i in places)))
        return pytree.tree_unflatten([None if out is None else next(results) for out in outs], specs[0])

    return mapped


def gradients(value: torch.Tensor, inputs: Sequence[torch.Tensor], again: bool = False) -> list[torch.Tensor]:
    """The gradient of a number, zero where all of it is held constant; one that can be differentiated `again`."""
    if not inputs or not value.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    return list(torch.autograd.grad(value, inputs, create_graph=again, allow_unused=True, materialize_grads=True))


pytree.register_pytree_node(
    Trace,
    lambda t: (
        [t.choices, t.log_probs, t.log_density, t.returned, t.whole, t.rows, t.present],
        (t.plates, t.batch_ndims, t.auxiliary, t.observed, t.pathwise, t.placed, t.points),
    ),
    lambda leaves, aux: Trace(
        *list(leaves)[:4], *aux, **dict(zip(("whole", "rows", "present"), list(leaves)[4:], strict=True))
    ),
)
