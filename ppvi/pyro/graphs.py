"""Graphs of ATen operations, made smaller."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_map_only

SHAPED = frozenset("empty_like full_like ones_like zeros_like new_empty new_full new_ones new_zeros fill copy".split())
"""Operations that take no more than the shape and dtype of their first operand."""


def name_of(node: Node) -> str:
    """An operation's name in ATen, without its overload."""
    return node.target._schema.name.removeprefix("aten::") if _is_operation(node) else ""  # type: ignore[union-attr]


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
    traced.graph.eliminate_dead_code()


def drop_aliases(traced: GraphModule) -> None:
    """Take out operations that give back what they were given, once nothing is differentiated any more."""
    for node in traced.graph.nodes:
        if name_of(node) in ("detach", "alias") or (
            name_of(node) in ("expand", "view", "reshape") and _shape(node) == _shape(node.args[0])
        ):
            node.replace_all_uses_with(node.args[0])
    traced.graph.eliminate_dead_code()


def _is_operation(node: Node) -> bool:
    return node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)


def _shape(node: Any) -> Any:
    return getattr(node.meta.get("val"), "shape", None)


def _decided(node: Node, known: dict[Node, Any]) -> bool:
    if node.target is operator.getitem:
        return node.args[0] in known
    if not _is_operation(node) or node.target.namespace == "ppvi":  # type: ignore[union-attr]
        return False
    if torch.Tag.nondeterministic_seeded in node.target.tags:  # type: ignore[union-attr]
        return False
    if any(_is_operation(n) and n.target._schema.is_mutable for n in (node, *node.users)):  # type: ignore[union-attr]
        return False
    needed = node.all_input_nodes[1:] if name_of(node) in SHAPED else node.all_input_nodes
    return name_of(node) == "lift_fresh_copy" or all(n in known for n in needed)


def _values(traced: GraphModule, arguments: Any, known: dict[Node, Any]) -> Any:
    def value(node: Node) -> Any:
        if node in known:
            return known[node]
        if node.op == "get_attr":  # of a `lift_fresh_copy`, which makes it a literal
            return getattr(traced, str(node.target))
        of = node.meta["val"]
        return torch.empty(of.shape, dtype=of.dtype, device=of.device)

    return tree_map_only(Node, value, arguments)
