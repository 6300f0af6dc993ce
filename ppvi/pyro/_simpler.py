"""A graph with fewer operations and the same numbers, once nothing is differentiated any more.

Derivatives are written for any operand, and so they raise to the power 1, negate twice, transpose twice, and give every entry
of a sum the same slope. A small operation takes as long as its call, and a large one as long as its bytes take to pass:
both are saved by rules that are exact in floating-point arithmetic, but for the sign of a zero. The one rule that is not is of
products (`_products`), which adds up in another order.

What is returned stays an array of its own, which a caller may change.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ppvi.pyro import _compat
from ppvi.pyro._graphs import call, is_function, is_view, name_of, shape_of, sweep
from ppvi.pyro._products import split_products

aten = torch.ops.aten


def simplify(traced: GraphModule) -> None:
    """Apply the rules until there is nothing left to do for them."""
    if not _is_plain(traced):
        return
    split_products(traced)
    while _passed(traced):
        sweep(traced)
    sweep(traced)
    for node in traced.graph.nodes:
        # Strides are others now, as of what is not repeated in memory.
        if name_of(node) in ("view", "_unsafe_view"):
            node.target = aten.reshape.default


def _passed(traced: GraphModule) -> bool:
    """Go through the graph once; whether something was found."""
    returned, found = set(_returned(traced)), False
    for node in traced.graph.nodes:
        rule = RULES.get(name_of(node))
        if rule is None or not node.users or not is_function(node):
            continue
        with traced.graph.inserting_before(node):
            other = rule(node)
        if other is not None and _alike(other, node) and (node not in returned or _is_fresh(node, other)):
            node.replace_all_uses_with(other)
            found = True
    return found


def _is_plain(traced: GraphModule) -> bool:
    """Whether nothing looks at how arrays lie in memory, or writes but into what has just been made and nobody else has."""
    for node in traced.graph.nodes:
        if name_of(node).startswith(("as_strided", "view_as", "_reshape_alias")) or node.target is aten.view.dtype:
            return False
        if name_of(node) and _compat.writes(node.target):
            made = node.args[0]
            if not isinstance(made, Node) or not name_of(made) or is_view(made) or len(made.users) > 1:
                return False
    return True


def _returned(traced: GraphModule) -> Iterator[Node]:
    """What is returned, and what that is a view of."""
    for node in traced.graph.output_node().all_input_nodes:
        while isinstance(node, Node):
            yield node
            node = node.args[0] if is_view(node) or node.target is operator.getitem else None


def _is_fresh(node: Node, other: Node) -> bool:
    """Whether what is to be returned in the place of a node is an array that nobody else has."""
    if is_view(other) or not name_of(other):
        return False
    while other.users and other is not node:
        if len(other.users) > 1:
            return False
        [other] = other.users  # as what is transposed between two transpositions
    return other.op != "output"


# Rules ----------------------------------------------------------------------------------------------------------------


def _alike(x: Any, node: Node) -> bool:
    """Whether a node has the shape and the dtype of another."""
    if not isinstance(x, Node):
        return False
    one, other = x.meta.get("val"), node.meta.get("val")
    return (
        isinstance(one, torch.Tensor)
        and isinstance(other, torch.Tensor)
        and one.shape == other.shape
        and one.dtype == other.dtype
        and (not name_of(x) or is_function(x))  # nothing is written into what is given
    )


def _number(x: Any) -> Any:
    """The number that an operand is in every entry, if that is known."""
    if not isinstance(x, Node):
        return x
    value = getattr(x.graph.owning_module, str(x.target), None) if x.op == "get_attr" else None
    if not isinstance(value, torch.Tensor) or not getattr(value, "_ppvi_literal", False) or not value.numel():
        return None
    first = value.flatten()[0]
    return first.item() if bool((value == first).all()) else None


def _moves_sign(x: Any, node: Node) -> bool:
    """Whether what is negated may be so later, in a node: whole numbers wrap round, and of bools there is no difference."""
    if not isinstance(x, Node):
        return False
    dtype = x.meta["val"].dtype
    return dtype == node.meta["val"].dtype and (dtype.is_floating_point or dtype.is_complex)


def _under(x: Any, name: str) -> Any:
    """The first operand of an operation of this name, if a node is one."""
    return x.args[0] if isinstance(x, Node) and name_of(x) == name and is_function(x) else None


def _neutral(number: float, *places: int) -> Callable[[Node], Node | None]:
    """An operation that gives an operand where another, at one of these places, is this number."""

    def rule(node: Node) -> Node | None:
        if len(node.args) != 2 or node.kwargs:
            return None
        for place in places:
            value: Any = node.args[1 - place]
            known = _number(node.args[place])
            if known is not None and known == number and _alike(value, node):
                return value
        return None

    return rule


def _first(*rules: Callable[[Node], Node | None]) -> Callable[[Node], Node | None]:
    """What the first rule gives that applies."""
    return lambda node: next((found for rule in rules if (found := rule(node)) is not None), None)


def _negated(node: Node) -> Node | None:
    """- -x = x; -(-x * y) = x * y, and so for quotients; of what is repeated, once."""
    [x] = node.args
    if _alike(inner := _under(x, "neg"), node):
        return inner
    if isinstance(x, Node) and is_function(x) and name_of(x) in ("mul", "div") and len(x.args) == 2 and not x.kwargs:
        for i in (0, 1):
            if _moves_sign(bare := _under(x.args[i], "neg"), node):
                return call(x.target, *((bare, x.args[1]) if i == 0 else (x.args[0], bare)))
    if isinstance(few := _under(x, "expand"), Node):
        return call(aten.expand.default, call(node.target, few), list(shape_of(node)))
    return None


def _added(node: Node) -> Node | None:
    """x + -y = x - y, and -x + y = y - x."""
    if len(node.args) != 2 or node.kwargs or not all(_moves_sign(x, node) for x in node.args):
        return None
    x, y = node.args
    if isinstance(bare := _under(y, "neg"), Node):
        return call(aten.sub.Tensor, x, bare)
    if isinstance(bare := _under(x, "neg"), Node):
        return call(aten.sub.Tensor, y, bare)
    return None


def _subtracted(node: Node) -> Node | None:
    """x - -y = x + y."""
    bare = _under(node.args[1], "neg")
    return call(aten.add.Tensor, node.args[0], bare) if _moves_sign(bare, node) and not node.kwargs else None


def _broadcast(node: Node) -> Node | None:
    """What is repeated to the shape of the result need not be: functions of entries repeat by themselves."""
    inputs = [x for x in node.args if isinstance(x, Node)]
    kinds = {x.meta["val"].dtype for x in inputs[name_of(node) == "where" :]}
    args = [few if isinstance(few := _under(x, "expand"), Node) else x for x in node.args]
    shapes = [shape_of(x) for x in args if isinstance(x, Node)]
    # Of several dtypes the result's depends on which operands have axes.
    if len(kinds) > 1 or args == list(node.args) or torch.broadcast_shapes(*shapes) != shape_of(node):
        return None
    return call(node.target, *args, **node.kwargs)


def _expanded(node: Node) -> Node | None:
    """A single number is repeated at once, whatever axes it was given first."""
    x: Any = node.args[0]
    few = x
    while isinstance(few, Node) and name_of(few) in ("expand", "unsqueeze", "view") and is_function(few):
        few = few.args[0]
    if few is not x and isinstance(few, Node) and shape_of(few) == ():
        return call(node.target, few, list(shape_of(node)))
    return None


def _transposed(node: Node) -> Node | None:
    x = _under(node.args[0], "t")
    return x if _alike(x, node) else None


def _summed(node: Node) -> Node | None:
    """A sum of what has no axes, and of what was negated."""
    x: Any = node.args[0]
    if node.target is aten.sum.default and not node.kwargs and shape_of(x) == () and _alike(x, node):
        return x
    bare = _under(x, "neg")
    if _moves_sign(bare, node) and len(x.users) == 1 and not node.kwargs and _alike(bare, x):
        return call(aten.neg.default, call(node.target, bare, *node.args[1:]))
    return None


def _viewed(node: Node) -> Node | None:
    """A sum that keeps its axes, which are dropped at once."""
    x: Any = node.args[0]
    if not isinstance(x, Node) or x.target is not aten.sum.dim_IntList or len(x.users) > 1 or len(x.args) != 3:
        return None
    inner, dims, kept = x.args
    shape: Sequence[int] = shape_of(inner)
    if not kept or not dims or not shape or x.kwargs:
        return None
    gone = {dim % len(shape) for dim in dims}  # type: ignore[union-attr]
    left = [size for i, size in enumerate(shape) if i not in gone]
    return call(x.target, inner, dims) if list(shape_of(node)) == left else None


def _power(node: Node) -> Node | None:
    x, power = node.args
    return x if power == 1 and _alike(x, node) else None  # type: ignore[return-value]


def _permuted(node: Node) -> Node | None:
    x, dims = node.args
    return x if list(dims) == list(range(len(dims))) and _alike(x, node) else None  # type: ignore


_either = _neutral(False, 0, 1)

RULES: dict[str, Callable[[Node], Node | None]] = {
    "neg": _negated,
    "add": _first(_neutral(0, 0, 1), _added, _broadcast),
    "sub": _first(_neutral(0, 1), _subtracted, _broadcast),
    "mul": _first(_neutral(1, 0, 1), _broadcast),
    "div": _first(_neutral(1, 1), _broadcast),
    "where": _broadcast,
    "bitwise_or": _either,
    "logical_or": _either,
    "expand": _expanded,
    "pow": _power,
    "permute": _permuted,
    "t": _transposed,
    "sum": _summed,
    "view": _viewed,
}
"""By ATen's name: what gives the same as a node, or None."""
