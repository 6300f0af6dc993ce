"""A graph that is run operation by operation, as quickly as Python calls them.

An overload of ATen is called through a layer of Python and a parser of schemas; PyTorch's own functions of the same names are
compiled for their arguments, and take half as long. On small arrays that is what a gradient takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule

from ppvi.pyro import _compat
from ppvi.pyro._graphs import name_of

_ENTRIES = """abs acos asin atan bitwise_not ceil cos cosh digamma erf erfc erfinv exp expm1 floor isfinite isinf isnan
lgamma log log1p log2 logical_not neg reciprocal relu round rsqrt sigmoid sign sin sinh sqrt square tan tanh trunc"""
_PAIRS = """add atan2 bitwise_and bitwise_or div eq ge gt le logical_and logical_or lt maximum minimum mul ne pow
remainder sub"""
_OTHERS = """addmm.default bmm.default cat.default clamp.default clone.default cumsum.default detach.default dot.default
gather.default index_select.default logsumexp.default masked_fill.Scalar mean.default mm.default mv.default
ones_like.default permute.default reshape.default rsub.Scalar rsub.Tensor scatter_add.default select.int squeeze.dim
squeeze.dims stack.default sum.default sum.dim_IntList t.default transpose.int unsqueeze.default where.self
zeros_like.default"""

METHODS = {"expand.default": "expand", "view.default": "view", "normal_.default": "normal_"}
"""Overloads, and the methods of a tensor that they are."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"{name}.default": getattr(torch, name) for name in _ENTRIES.split()},
    **{
        f"{name}.{kind}": getattr(torch, name)
        for name in _PAIRS.split()
        for kind in ("default", "Tensor", "Scalar", "Tensor_Scalar", "Tensor_Tensor")
    },
    **{overload: getattr(torch, overload.split(".")[0]) for overload in _OTHERS.split()},
    "empty.memory_format": torch.empty,
    "softplus.default": torch.nn.functional.softplus,
}
"""Overloads, and the functions that they are."""


def quick(traced: GraphModule) -> Callable[..., Any]:
    """The function that a graph is."""
    for node in traced.graph.nodes:
        overload = f"{name_of(node)}.{_compat.overload_of(node.target)}" if name_of(node) else ""
        if overload in METHODS:
            node.op, node.target = "call_method", METHODS[overload]
        else:
            node.target = FUNCTIONS.get(overload, node.target)
    traced.recompile()
    vars(traced).update(traced.named_buffers())  # where an attribute is found before modules look for it
    return traced.forward
