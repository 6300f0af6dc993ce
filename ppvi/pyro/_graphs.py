"""Graphs of ATen operations: traced, and made smaller."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.overrides import TorchFunctionMode

from ppvi.errors import EngineError
from ppvi.pyro import _compat
from ppvi.pyro._compat import (
    OpOverload,
    get_innermost_proxy_mode,
    get_proxy_slot,
    is_functorch_wrapped_tensor,
    tree_flatten,
    tree_map_only,
    tree_unflatten,
)

SHAPED = frozenset("empty_like full_like ones_like zeros_like new_empty new_full new_ones new_zeros fill copy".split())
"""Operations that take no more than the shape and dtype of their first operand."""

COPIES = frozenset(["lift_fresh_copy", "detach", "alias", "clone"])
"""Operations whose value is that of their operand."""


def name_of(node: Node) -> str:
    """An operation's name in ATen, without its overload."""
    return _compat.name_of(node.target) if _is_operation(node) else ""


def is_operand(node: Node) -> bool:
    """Whether an operation gives its operand, as transformations of functions often have it that are asked for nothing."""
    if name_of(node) == "permute":
        dims: Any = node.args[1]
        return list(dims) == list(range(len(dims)))
    return name_of(node) == "alias" or (name_of(node) == "view" and shape_of(node) == shape_of(node.args[0]))


def is_random(node: Node) -> bool:
    """Whether it is an operation that draws random numbers."""
    return _is_operation(node) and torch.Tag.nondeterministic_seeded in node.target.tags  # type: ignore[union-attr]


def trace(function: Callable[..., Any], *tensors: torch.Tensor) -> GraphModule:
    """The graph of `function(*tensors)`."""

    def run(*fakes: torch.Tensor) -> Any:
        with Untraced():
            return function(*fakes)

    found = _compat.graph_of(run, tensors, KNOWN)
    for node in found.graph.nodes:
        if node.target is torch.ops.aten.slice_scatter.default:
            node.args = _from_the_front(*node.args)
    return found


def _from_the_front(x: Any, part: Any, dim: int = 0, start: Any = None, end: Any = None, *step: int) -> Any:
    """Of `slice_scatter`, bounds that are counted from the end, which its rule under `torch.vmap` takes as they are."""
    size = x.meta["val"].shape[dim]
    first, last = (at + size if at is not None and at < 0 else at for at in (start, end))
    return x, part, dim, first, last, *step


KNOWN = 4096
"""Numbers that a tensor of the program's text has at most to be known while it is traced, such as a count of trials for each
entry of a plate."""


class Untraced(TorchFunctionMode):
    """Refuses to give out the numbers of a tensor that is traced, for which PyTorch gives an example's: a constant of the
    graph. Labels are looked up in place of being read by `one_hot`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _ARRAYS and is_traced(args[0]):
            raise RuntimeError("an array is to be a value out of a tracing tensor")
        return (one_hot if func is torch.nn.functional.one_hot else func)(*args, **(kwargs or {}))


def one_hot(labels: torch.Tensor, num_classes: int = -1) -> torch.Tensor:
    """`one_hot`, which reads the labels to see that they are in range, as a lookup does when it runs."""
    if num_classes < 1 or not is_traced(labels):
        return torch.nn.functional.one_hot(labels, num_classes)
    found = torch.eye(num_classes, dtype=torch.long, device=labels.device).index_select(0, labels.reshape(-1))
    return found.reshape(*labels.shape, num_classes)


def is_traced(x: torch.Tensor) -> bool:
    """Whether a tensor is part of what is traced."""
    mode = get_innermost_proxy_mode()
    return is_functorch_wrapped_tensor(x) or (mode is not None and get_proxy_slot(x, mode.tracer, None) is not None)


_ARRAYS = (torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist)


def fold(traced: GraphModule) -> None:
    """Compute now what depends on the program's text only.

    A literal is a constant in the text, such as the 2 in `2 * x`, and what is computed from literals. Tensors that the program
    captures are none: they may change in place.
    """
    known: dict[Node, Any] = {}
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            value = getattr(traced, node.target)
            if getattr(value, "_ppvi_literal", False):
                known[node] = value
        elif node.op == "call_function" and _decided(node, known):
            known[node] = node.target(*_values(traced, node.args, known), **_values(traced, node.kwargs, known))
    for number, (node, value) in enumerate(known.items()):
        if node.op == "get_attr" or not isinstance(value, torch.Tensor):
            continue
        if any(user not in known for user in node.users):
            name = f"_literal{number}"
            value._ppvi_literal = True  # type: ignore[attr-defined]
            traced.register_buffer(name, value, persistent=False)
            with traced.graph.inserting_before(node):
                constant = traced.graph.get_attr(name)
            constant.meta = dict(node.meta)
            node.replace_all_uses_with(constant)
    sweep(traced, _is_needed)


def without_mutation(traced: GraphModule) -> None:
    """Operations that change their first operand in place, as kernels do with what they have just made, give a new one.

    What comes after them in the trace uses their result, unless it sees the operand by way of a view.
    """
    order = {node: i for i, node in enumerate(traced.graph.nodes)}
    for node in traced.graph.nodes:
        if not (_is_operation(node) and _compat.writes(node.target) and name_of(node).endswith("_")):
            continue
        packet = getattr(torch.ops.aten, name_of(node)[:-1], None)
        if packet is None or _compat.overload_of(node.target) not in packet.overloads():
            continue
        made = node.args[0]
        others = [user for user in made.users if user is not node]
        maker = made.args[0] if made.target is operator.getitem else made  # which may give several
        fresh = _is_operation(maker) and not any(order[n] > order[node] or is_view(n) for n in (maker, made, *others))
        if fresh or torch.Tag.inplace_view in node.target.tags:
            node.target = getattr(packet, _compat.overload_of(node.target))


def refuse_constant(node: Node, value: Any, with_gradient: bool) -> None:
    """What a graph holds is a tensor, and has no gradient where none may have one; or what the program draws by."""
    if isinstance(value, torch.Generator):
        [user, *_] = node.users
        raise own_generator(name_of(user), user.meta.get("where", "unknown"))
    if value.requires_grad and not with_gradient:
        raise EngineError(
            f"a tensor of shape {tuple(value.shape)} requires a gradient and is no parameter of the objective: declare "
            f"it with pyro.param in the model or the guide, a module with pyro.module, or make it a PyroModule."
        )


def own_generator(operation: str, where: str) -> EngineError:
    """What is said of an operation that draws by a generator of the program's own."""
    return EngineError(
        f"{operation} at {where} draws by a torch.Generator of its own, which would begin anew in every run: draw it before, "
        f"or by pyro.sample; or let pyro.param make its initial value by a function, as in pyro.param(name, lambda: ...)."
    )


def refuse_generator(error: Exception, operation: str, where: str) -> None:
    """Where a trace has failed at an operation because no graph may hold a generator, say so."""
    if _compat.holds_no_generator(error):
        raise own_generator(operation, where) from error


def shaped_by_draws(traced: GraphModule) -> Iterator[Node]:
    """Operations that give more entries or fewer from draw to draw."""
    drawn: set[Node] = set()
    for node in traced.graph.nodes:
        if is_random(node) or node.target in (torch.ops.ppvi.draw.default, torch.ops.ppvi.mark.default):
            drawn.add(node)
        elif not drawn.isdisjoint(node.all_input_nodes):
            drawn.add(node)
            if _is_operation(node) and not drawn.isdisjoint(_counted(node)):
                yield node


def hold_sizes(traced: GraphModule) -> None:
    """Have it checked that operations give as many entries as when they were traced, which is a constant of the graph."""
    for node in list(traced.graph.nodes):
        if not _is_operation(node) or torch.Tag.dynamic_output_shape not in node.target.tags:
            continue
        where = node.meta.get("where", "unknown")
        if name_of(node) in ("index", "masked_select") and (masks := _counted(node)):
            with traced.graph.inserting_before(node):
                held = traced.graph.call_function(
                    torch.ops.ppvi.sized.default, (masks[0], masks, *_picked(node), where)
                )
            held.meta = dict(masks[0].meta)
            node.replace_input_with(masks[0], held)
        for result in _results(node) if name_of(node) not in ("index", "masked_select") else ():
            with traced.graph.inserting_after(result):
                held = traced.graph.call_function(
                    torch.ops.ppvi.sized.default, (result, [], 1, len(result.meta["val"]), where)
                )
            held.meta = dict(result.meta)
            result.replace_all_uses_with(held, lambda user, held=held: user is not held)


def _results(node: Node) -> list[Node]:
    """The tensors that an operation gives."""
    return [node] if isinstance(node.meta["val"], torch.Tensor) else list(node.users)


def _picked(node: Node) -> tuple[int, int]:
    """How many entries the indices beside the masks of an operation have, and how many its masks pick, as it was traced.

    A mask counts as indices along one axis, which is broadcast with the last one of the others.
    """
    shape = node.meta["val"].shape
    if name_of(node) == "masked_select":
        x, mask = (operand.meta["val"].shape for operand in node.args)  # type: ignore[union-attr]
        entries = math.prod(torch.broadcast_shapes(x, mask))
        return 1, shape[0] * math.prod(mask) // max(entries, 1)
    indices: Any = node.args[1]
    places, masks = [i for i, x in enumerate(indices) if x is not None], _counted(node)
    others = [shape_of(x) for x in indices if x is not None and x not in masks]
    together = places == list(range(places[0], places[-1] + 1))
    last = (places[0] if together else 0) + max([1, *map(len, others)]) - 1
    return torch.broadcast_shapes((1,), *(other[-1:] for other in others))[0], shape[last]


def share(traced: GraphModule) -> None:
    """Compute once what is computed several times from the same operands, where 1 and 1.0 and True are not the same.

    Only of what is a function: two samplers of one shape give two draws. And not of results, which a caller may change.
    """
    known: dict[Any, Node] = {}
    *nodes, output = traced.graph.nodes
    for node in nodes:
        empty = name_of(node).startswith(("empty", "new_empty"))
        if node.op == "call_function" and is_function(node) and not empty and output not in node.users:
            leaves, tree = tree_flatten((node.args, dict(node.kwargs)))
            first = known.setdefault((node.target, str(tree), *((type(leaf), leaf) for leaf in leaves)), node)
            if first is not node:
                node.replace_all_uses_with(first)
    sweep(traced)


def drop_aliases(traced: GraphModule) -> None:
    """Take out operations that give back what they were given, once nothing is differentiated any more."""
    for node in traced.graph.nodes:
        if name_of(node) in ("detach", "alias") or (
            name_of(node) in ("expand", "view", "reshape") and shape_of(node) == shape_of(node.args[0])
        ):
            node.replace_all_uses_with(node.args[0])
    sweep(traced)


def sweep(traced: GraphModule, is_needed: Callable[[Node], bool] = Node.is_impure) -> None:
    """Take out what nobody uses; as PyTorch's own does, which asks of every operation whether it has an effect."""
    for node in reversed(traced.graph.nodes):
        if not node.users and not is_needed(node):
            traced.graph.erase_node(node)


def same(x: torch.Tensor, other: Any) -> bool:
    """Whether two tensors of whole numbers are equal for all that is known: what is traced is, if computed in the same way."""
    mode, other = get_innermost_proxy_mode(), torch.as_tensor(other)
    if x is other or mode is None:
        return x is other or torch.equal(x, other)
    node, another = (_node_of(tensor, mode.tracer) for tensor in (x, other))
    return _equal(node, another, mode.tracer.root, {})


def is_drawn(x: torch.Tensor) -> bool:
    """Whether a tensor in the graph that is being traced depends on random numbers which are no draw of a site."""
    mode = get_innermost_proxy_mode()
    found, seen = [] if mode is None else [_node_of(x, mode.tracer)], set()
    while found:
        node = found.pop()
        if not isinstance(node, Node) or node in seen or node.target is torch.ops.ppvi.draw.default:
            continue
        if is_random(node):
            return True
        seen.add(node)
        found += node.all_input_nodes
    return False


def _node_of(x: torch.Tensor, tracer: Any) -> Any:
    """What stands for a tensor in the graph that is being traced: the operand of the next operation."""
    x.clone()
    return next(iter(reversed(tracer.graph.nodes))).args[0]


def _equal(node: Any, other: Any, root: torch.nn.Module, known: dict[tuple[Node, Node], bool]) -> bool:
    """Whether two nodes of a graph, or two operands, have equal values, as they are computed in the same way."""
    node, other = _copied(node), _copied(other)
    if not (isinstance(node, Node) and isinstance(other, Node)) or node is other:
        return node is other or (type(node), node) == (type(other), other)
    if node.op == other.op == "get_attr":
        return torch.equal(getattr(root, str(node.target)), getattr(root, str(other.target)))
    if (node, other) in known:
        return known[node, other]
    (leaves, tree), (others, another) = (tree_flatten((n.args, dict(n.kwargs))) for n in (node, other))
    alike = node.op == "call_function" and node.target == other.target and is_function(node) and tree == another
    known[node, other] = alike and all(_equal(*pair, root, known) for pair in zip(leaves, others, strict=True))
    return known[node, other]


def _copied(node: Any) -> Any:
    """What a node, or an operand, is a copy of, if only as whole numbers."""
    while isinstance(node, Node) and is_function(node):
        if name_of(node) not in COPIES and not (
            name_of(node) == "_to_copy" and node.kwargs.get("dtype") == torch.int64
        ):
            break
        node = node.args[0]
    return node


def _counted(node: Node) -> list[Any]:
    """The operands whose values decide how many entries an operation gives: where it picks by a mask, the mask."""
    if torch.Tag.dynamic_output_shape not in node.target.tags:  # type: ignore[union-attr]
        return []
    if name_of(node) != "index":
        return node.args[1:2] if name_of(node) == "masked_select" else node.all_input_nodes  # type: ignore[return-value]
    places: Any = node.args[1]
    return [x for x in places if x is not None and x.meta["val"].dtype in (torch.bool, torch.uint8)]


def _is_needed(node: Node) -> bool:
    """Whether a node stays that nobody uses: what the checks are told of a density is no less true for that."""
    return node.is_impure() or node.target in (torch.ops.ppvi.note.default, torch.ops.ppvi.write.default)


def _is_operation(node: Node) -> bool:
    return node.op == "call_function" and isinstance(node.target, OpOverload)


def is_view(node: Node) -> bool:
    return _is_operation(node) and _compat.is_view(node.target)


def call(target: Any, *args: Any, **kwargs: Any) -> Node:
    """A new operation, placed where the graph inserts, of nodes and numbers and lists of them."""
    leaves, tree = tree_flatten((args, kwargs))
    [graph] = {leaf.graph for leaf in leaves if isinstance(leaf, Node)}
    node = graph.call_function(target, args, kwargs)
    values, named = tree_unflatten([_described(leaf) if isinstance(leaf, Node) else leaf for leaf in leaves], tree)
    node.meta = {"val": target(*values, **named)}
    return node


def _described(node: Node) -> torch.Tensor:
    """A tensor without memory that is laid out like a node's."""
    x = node.meta["val"]
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def shape_of(node: Any) -> Any:
    return getattr(node.meta.get("val"), "shape", None)


def _decided(node: Node, known: dict[Node, Any]) -> bool:
    needed = node.all_input_nodes[1:] if name_of(node) in SHAPED else node.all_input_nodes
    return is_function(node) and (name_of(node) == "lift_fresh_copy" or all(n in known for n in needed))


def is_function(node: Node) -> bool:
    """Whether equal operands give equal results, which nothing changes afterwards."""
    if node.target is operator.getitem:
        return True
    if not _is_operation(node) or node.target.namespace == "ppvi" or is_random(node):  # type: ignore[union-attr]
        return False
    return not any(_is_operation(n) and _compat.writes(n.target) for n in (node, *node.users))


def _values(traced: GraphModule, arguments: Any, known: dict[Node, Any]) -> Any:
    def value(node: Node) -> Any:
        if node in known:
            return known[node]
        if node.op == "get_attr":  # of a `lift_fresh_copy`, which makes it a literal
            return getattr(traced, str(node.target))
        of = node.meta["val"]
        return torch.empty(of.shape, dtype=of.dtype, device=of.device)

    return tree_map_only(Node, value, arguments)
