"""Products with rows that repeat, in a graph in which nothing is differentiated any more.

Where a program looks at the values of a site side by side, a network takes a row for each value and each entry of the data,
`[x, z]`, of which x is the same for all values of z. Then `[x, z] W = x W_x + z W_z`, and the first product is taken once; and
the slope of `W_x` is `x' (sum over values of the rows' slopes)`. Both are the same sums in another order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.fx import GraphModule, Node

from ppvi.pyro._graphs import call, name_of, shape_of, sweep

aten = torch.ops.aten

WORTH = 64
"""Columns that are to repeat at least: to add two arrays of results takes about as long as so many products for each entry."""


class Joined(NamedTuple):
    """Rows `(times * rows, columns)` that are put together from parts, of which one repeats."""

    parts: Sequence[Node]
    """Each of `(..., columns)`."""
    repeating: int
    few: Node
    """What repeats, before it does, `(..., columns)`."""
    times: int
    rows: int

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Where the columns of each part lie."""
        ends = [0]
        for part in self.parts:
            ends.append(ends[-1] + shape_of(part)[-1])
        return list(itertools.pairwise(ends))

    def matrices(self) -> Iterator[tuple[tuple[int, int], Node, bool]]:
        """Of each part its columns, its rows, and whether these repeat."""
        for i, ((begin, end), part) in enumerate(zip(self.bounds, self.parts, strict=True)):
            repeats = i == self.repeating
            rows = self.rows if repeats else self.rows * self.times
            yield (begin, end), call(aten.reshape.default, self.few if repeats else part, [rows, end - begin]), repeats


def split_products(traced: GraphModule) -> None:
    """Take products with what repeats once."""
    for node in list(traced.graph.nodes):
        if name_of(node) not in ("mm", "addmm") or node.kwargs:
            continue
        *bias, x, y = node.args
        if any(len(shape_of(b)) == 2 and shape_of(b)[0] > 1 for b in bias):
            continue
        with traced.graph.inserting_before(node):
            if (joined := _joined(x)) is not None:
                found = _applied(joined, y, *bias)
            elif not bias and (joined := _joined(y)) is not None:
                found = call(aten.cat.default, [call(aten.mm.default, *pair) for pair in _slopes(joined, x)], 1)
            elif not bias and name_of(x) == "t" and (joined := _joined(x.args[0])) is not None:
                pairs = _slopes(joined, _turned(y))
                found = call(aten.cat.default, [call(aten.mm.default, _turned(b), _turned(a)) for a, b in pairs], 0)
            else:
                continue
        node.replace_all_uses_with(found)
    sweep(traced)


def _applied(joined: Joined, weights: Node, *bias: Node) -> Node:
    """Rows times weights."""
    once: Any = None
    each: Any = None
    for (begin, end), x, repeats in joined.matrices():
        mine = call(aten.slice.Tensor, weights, 0, begin, end)
        if repeats:
            once = call(aten.addmm.default, *bias, x, mine) if bias else call(aten.mm.default, x, mine)
        else:
            each = call(aten.mm.default, x, mine) if each is None else call(aten.addmm.default, each, x, mine)
    width = shape_of(weights)[1]
    spread = call(aten.reshape.default, each, [joined.times, joined.rows, width])
    return call(aten.reshape.default, call(aten.add.Tensor, spread, once), [joined.times * joined.rows, width])


def _slopes(joined: Joined, slopes: Node) -> Iterator[tuple[Node, Node]]:
    """Slopes `(width, times * rows)` and the rows that they are multiplied by, for each part."""
    for _, x, repeats in joined.matrices():
        if repeats:
            spread = call(aten.reshape.default, _turned(slopes), [joined.times, joined.rows, shape_of(slopes)[0]])
            yield _turned(call(aten.sum.dim_IntList, spread, [0])), x
        else:
            yield slopes, x


def _turned(x: Node) -> Node:
    return x.args[0] if name_of(x) == "t" else call(aten.t.default, x)  # type: ignore[return-value]


def _joined(x: Any) -> Joined | None:
    """How a matrix is put together, if it is worth it to multiply its parts one by one."""
    inner = x
    while name_of(inner) in ("view", "_unsafe_view", "reshape"):
        inner = inner.args[0]
    parts: Any = inner.args[0] if name_of(inner) == "cat" else ()
    shape = shape_of(inner)
    if len(parts) < 2 or len(inner.args) < 2 or inner.args[1] % len(shape) != len(shape) - 1:
        return None
    rows = math.prod(shape[:-1])
    if tuple(shape_of(x)) != (rows, shape[-1]) or any(y.meta["val"].dtype != x.meta["val"].dtype for y in parts):
        return None
    for i, part in enumerate(parts):
        few: Any = part.args[0] if name_of(part) == "expand" else None
        if few is not None and (once := _rows_of(few, shape_of(part))) is not None and once < rows:
            saved = shape_of(part)[-1] * (1 - once / rows)
            if saved >= WORTH * (len(parts) - 1):
                return Joined(parts, i, few, rows // once, once)
    return None


def _rows_of(few: Node, shape: Sequence[int]) -> int | None:
    """How many rows there are of what repeats as a whole, along axes in front."""
    short = list(shape_of(few))
    while short and short[0] == 1 and len(short) > 1:
        del short[0]
    return math.prod(short[:-1]) if short == list(shape)[len(shape) - len(short) :] else None
