"""What the compiler needs to know of PyTorch's operations: axis maps and linearity.

One small rule per ATen operation in a table: given the call and the number of a tensor operand, the axis of the output
along which each axis of the operand lies, or None. An operation without a rule mixes all axes, which is always sound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ppvi.ir import AxisMap


@dataclass(frozen=True)
class Call:
    """A call of an operation: its arguments by name, with `written.TENSOR` in the place of tensors."""

    name: str
    arguments: dict[str, Any]
    operands: tuple[tuple[int, ...], ...]
    """Shapes of the tensors among the arguments, in order."""
    output: tuple[int, ...]
    results: int = 1
    """How many tensors it returns."""


Rule = Callable[[Call, int], AxisMap]

ELEMENTWISE = frozenset(
    """abs acos acosh add addcdiv addcmul alias asin asinh atan atan2 atanh bernoulli bitwise_and bitwise_not bitwise_or
    bitwise_xor ceil clamp clamp_max clamp_min clone copy copysign cos cosh detach digamma div elu eq erf erfc erfinv exp exp2
    expm1 floor floor_divide fmod ge gelu gt hardtanh hypot isfinite isinf isnan le leaky_relu lerp lgamma lift_fresh_copy log
    log10 log1p log2 log_sigmoid_forward logaddexp logical_and logical_not logical_or logit lt masked_fill maximum minimum mish
    mul nan_to_num ne neg normal polygamma pow reciprocal relu remainder round rsqrt rsub sgn sigmoid sign silu sin
    sinh softplus special_entr special_erfcx special_i0e special_i1e special_log_ndtr special_ndtri special_xlog1py sqrt
    square sub tan tanh threshold trunc where xlogy _to_copy _standard_gamma""".split()
)
"""Operations whose output entry is a function of the operands' entries at the same place, after broadcasting."""

BROADCAST = ELEMENTWISE - frozenset(["bernoulli", "copy", "normal", "_standard_gamma"])
"""Those of them that draw nothing, and write into nothing."""

LINEAR: dict[str, tuple[frozenset[int], ...]] = {
    **dict.fromkeys(("add", "sub", "rsub"), (frozenset({0, 1}),)),
    **dict.fromkeys(
        """neg sum view reshape _unsafe_view expand permute t transpose unsqueeze squeeze select slice clone alias index gather
        cumsum _to_copy div mean trace flip roll""".split(),
        (frozenset({0}),),
    ),
    **dict.fromkeys(("mul", "mm", "bmm", "dot", "mv"), (frozenset({0}), frozenset({1}))),
}
"""Operands in which an operation is jointly linear."""


def linear(name: str, operands: int) -> tuple[frozenset[int], ...]:
    """Sets of its operands in which an operation of so many is jointly linear."""
    if name in ("stack", "cat"):
        return (frozenset(range(operands)),)
    if name == "where":
        return (frozenset({1, 2}),)
    groups = (frozenset(i for i in group if i < operands) for group in LINEAR.get(name, ()))
    return tuple(group for group in groups if group)


ADDITIVE = frozenset({"add", "sub", "rsub"})


def flow(call: Call) -> list[AxisMap | None]:
    """The axis map of every operand."""
    rule = elementwise if call.name in ELEMENTWISE else RULES.get(call.name, joint)
    return [rule(call, i) for i in range(len(call.operands))]


ANY_SIZE = ELEMENTWISE | frozenset(
    """amax amin argmax argmin bmm cat cumsum index logcumsumexp logsumexp mean mm permute prod select stack sum t transpose
    unsqueeze _log_softmax _softmax""".split()
)
"""Operations that say nothing of the sizes of the axes that they leave alone."""

SIZED = frozenset("expand view _unsafe_view reshape".split())
"""Operations of which an argument is the shape of their result."""


def joint(call: Call, i: int) -> AxisMap:
    return (None,) * len(call.operands[i])


def elementwise(call: Call, i: int) -> AxisMap:
    """Along the axis that it is broadcast to, counted from the right."""
    shape, ahead = call.operands[i], len(call.output) - len(call.operands[i])
    if ahead < 0:
        return joint(call, i)
    return tuple(axis + ahead if size == call.output[axis + ahead] else None for axis, size in enumerate(shape))


def _axes(call: Call, name: str, ndim: int) -> list[int]:
    given = call.arguments.get(name)
    if given is None or given == []:
        return list(range(ndim))
    return [axis % ndim for axis in (given if isinstance(given, Sequence) else [given])] if ndim else []


def _reduced(call: Call, i: int) -> AxisMap:
    ndim = len(call.operands[i])
    removed = _axes(call, "dim", ndim)
    if call.arguments.get("keepdim"):
        return tuple(None if axis in removed else axis for axis in range(ndim))
    return tuple(None if a in removed else a - sum(other < a for other in removed) for a in range(ndim))


def _kept(call: Call, i: int) -> AxisMap:
    """All axes stay where they are, and those along `dim` are mixed."""
    ndim = len(call.operands[i])
    mixed = _axes(call, "dim", ndim)
    return tuple(None if axis in mixed else axis for axis in range(ndim))


def _view(call: Call, i: int) -> AxisMap:
    before, after = call.operands[0], call.output
    places = {(math.prod(after[:axis]), size): axis for axis, size in enumerate(after)}
    return tuple(places.get((math.prod(before[:axis]), size)) for axis, size in enumerate(before))


def _permute(call: Call, i: int) -> AxisMap:
    order = [axis % len(call.output) for axis in call.arguments["dims"]]
    return tuple(order.index(axis) for axis in range(len(order)))


def _transpose(call: Call, i: int) -> AxisMap:
    ndim = len(call.output)
    pair = [call.arguments.get(name, default) % ndim for name, default in (("dim0", 0), ("dim1", -1))] if ndim else []
    swap = dict(zip(pair, reversed(pair), strict=True))
    return tuple(swap.get(axis, axis) for axis in range(ndim))


def _unsqueeze(call: Call, i: int) -> AxisMap:
    new = call.arguments["dim"] % len(call.output)
    return tuple(axis + (axis >= new) for axis in range(len(call.operands[i])))


def _squeeze(call: Call, i: int) -> AxisMap:
    shape = call.operands[i]
    removed = [axis for axis in _axes(call, "dim", len(shape)) if shape[axis] == 1]
    return tuple(None if a in removed else a - sum(other < a for other in removed) for a in range(len(shape)))


def _select(call: Call, i: int) -> AxisMap:
    gone = call.arguments.get("dim", 0) % len(call.operands[i])
    return tuple(None if axis == gone else axis - (axis > gone) for axis in range(len(call.operands[i])))


def _slice(call: Call, i: int) -> AxisMap:
    pairs = zip(call.operands[0], call.output, strict=True)
    return tuple(axis if before == after else None for axis, (before, after) in enumerate(pairs))


def _stack(call: Call, i: int) -> AxisMap:
    new = call.arguments.get("dim", 0) % len(call.output)
    return tuple(axis + (axis >= new) for axis in range(len(call.operands[i])))


def _cut(call: Call, i: int) -> AxisMap:
    """Put together or cut along `dim`."""
    along = call.arguments.get("dim", 0) % max(len(call.output), 1)
    return tuple(None if axis == along else axis for axis in range(len(call.operands[i])))


def _index(call: Call, i: int) -> AxisMap:
    """A table read at places: the places' axes lie where the axes that they index were, if those are side by side."""
    table, places = call.operands[0], call.arguments["indices"]
    indexed = [axis for axis, place in enumerate(places) if place is not None]
    if indexed != list(range(indexed[0], indexed[0] + len(indexed))):
        return joint(call, i)
    ndim = max(len(shape) for shape in call.operands[1:])
    if i:
        shape, ahead = call.operands[i], indexed[0] + ndim - len(call.operands[i])
        return tuple(a + ahead if size == call.output[a + ahead] else None for a, size in enumerate(shape))
    shift = ndim - len(indexed)
    return tuple(None if a in indexed else a + (shift if a > indexed[-1] else 0) for a in range(len(table)))


def _gather(call: Call, i: int) -> AxisMap:
    ndim, along = len(call.output), call.arguments["dim"] % max(len(call.output), 1)
    if i:
        return tuple(range(ndim))
    sizes = zip(call.operands[0], call.output, strict=True)
    return tuple(a if a != along and before == after else None for a, (before, after) in enumerate(sizes))


def _searched(call: Call, i: int) -> AxisMap:
    """Values among knots in order, of which there is one list."""
    knots = 1 if call.name == "bucketize" else 0
    return joint(call, i) if i == knots or len(call.operands[knots]) > 1 else tuple(range(len(call.operands[i])))


def _product(call: Call, i: int) -> AxisMap:
    """mm, bmm, mv, dot and addmm: rows of the first and columns of the second."""
    if call.name == "addmm":
        return elementwise(call, 0) if i == 0 else ((0, None), (None, 1))[i - 1]
    return {"mm": ((0, None), (None, 1)), "bmm": ((0, 1, None), (0, None, 2)), "mv": ((0, None), (None,))}[call.name][i]


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        "sum mean logsumexp amax amin prod any all argmax argmin var std max min linalg_vector_norm norm".split(),
        _reduced,
    ),
    **dict.fromkeys("cumsum cumprod logcumsumexp _softmax _log_softmax sort flip".split(), _kept),
    **dict.fromkeys("view reshape _unsafe_view".split(), _view),
    "expand": elementwise,
    "permute": _permute,
    **dict.fromkeys(("t", "transpose"), _transpose),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    **dict.fromkeys(("select", "unbind"), _select),
    "slice": _slice,
    "stack": _stack,
    **dict.fromkeys(("cat", "split", "split_with_sizes", "unsafe_split"), _cut),
    "index": _index,
    "gather": _gather,
    "embedding": lambda call, i: tuple(range(len(call.operands[1]))) if i else (None, len(call.output) - 1),
    **dict.fromkeys(("searchsorted", "bucketize"), _searched),
    **dict.fromkeys(("mm", "bmm", "mv", "addmm"), _product),
}
"""Axis rules of the operations that are not elementwise."""
