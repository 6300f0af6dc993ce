"""What the compiler needs to know of JAX's operations: axis maps, linearity, and sums.

One small rule per operation in a table: given the equation and the number of an operand, the axis of the output along
which each axis of the operand lies, or None. An operation without a rule mixes all axes, which is always sound.
Operations with a body get their maps by following each axis through the body.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from ppvi.engine import algebra
from ppvi.ir import Along, AxisMap, Flow

Rule = Callable[[Any, int], AxisMap]

ELEMENTWISE = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e bitcast_convert_type cbrt ceil
    clamp clz conj convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
    igamma igamma_grad_a igammac imag integer_pow is_finite le lgamma log log1p log2 logistic lt max min mul ne neg nextafter
    not one_minus_square or polygamma ppvi_note population_count pow random_gamma_grad real reduce_precision
    regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin
    sinh sqrt square stop_gradient sub tan tanh xor zeta""".split()
)
"""Operations whose output entry is a function of the operands' entries at the same place."""

LINEAR: dict[str, tuple[frozenset[int], ...]] = {
    **algebra.LINEAR,
    **dict.fromkeys(("pad", "dynamic_update_slice"), (frozenset({0, 1}),)),
    **dict.fromkeys(
        "reduce_sum reshape squeeze transpose copy_p slice rev dynamic_slice gather tile".split(), (frozenset({0}),)
    ),
}
"""Operands in which an operation is jointly linear."""

ADDITIVE = frozenset({"add", "sub", "add_any"})


def linear(eqn: Any) -> tuple[frozenset[int], ...]:
    """Groups of operands in which the equation is linear."""
    name, atoms = eqn.primitive.name, (*eqn.invars, *eqn.outvars)
    integers = all(is_number(var) and not is_float(var) for var in atoms)
    if not all(is_number(var) for var in eqn.outvars) or (integers and name in ("div", "dot_general")):
        return ()
    if name in ("concatenate", "stack"):
        return (frozenset(range(len(eqn.invars))),)
    if name == "select_n":
        return (frozenset(range(1, len(eqn.invars))),)
    if name == "convert_element_type" and not is_number(eqn.invars[0]):
        return ()
    if name == "convert_element_type" and is_float(eqn.invars[0]) and not is_float(eqn.outvars[0]):
        return ()
    return LINEAR.get(name, ())


def is_float(var: Any) -> bool:
    """Whether a variable of a jaxpr holds real numbers."""
    return jnp.issubdtype(getattr(var.aval, "dtype", bool), jnp.floating)


def is_number(var: Any) -> bool:
    """Whether a variable of a jaxpr holds real numbers or integers."""
    return is_float(var) or jnp.issubdtype(getattr(var.aval, "dtype", bool), jnp.integer)


def flow(eqn: Any) -> Flow:
    """Axis maps of every operand of an equation without a body, the same for each output."""
    name = eqn.primitive.name
    if name == "optimization_barrier":
        identities = [tuple(range(len(_shape(var)))) for var in eqn.invars]
        return [[axes if i == o else None for i, axes in enumerate(identities)] for o in range(len(eqn.outvars))]
    rule = elementwise if name in ELEMENTWISE else RULES.get(name, joint)
    maps = [rule(eqn, i) for i in range(len(eqn.invars))]
    return [maps] * len(eqn.outvars)


ANY_SIZE = ELEMENTWISE | frozenset(
    """concatenate cumlogsumexp cummax cummin cumprod cumsum dot_general expand_dims reduce_and reduce_max reduce_min reduce_or
    reduce_prod reduce_sum squeeze transpose""".split()
)
"""Operations that say nothing of the sizes of the axes that they leave alone."""


def resized(eqn: Any, shape: tuple[int, ...]) -> Any:
    """The equation for operands of size one along some axes and an output of this shape; None where it has no such form."""
    name, params = eqn.primitive.name, eqn.params
    if name in ANY_SIZE:
        return eqn
    if name == "broadcast_in_dim":
        return eqn.replace(params={**params, "shape": shape})
    if name == "reshape":
        return eqn.replace(params={**params, "new_sizes": shape})
    if name == "gather":
        sizes, numbers, operand = list(params["slice_sizes"]), params["dimension_numbers"], _shape(eqn.invars[0])
        gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
        windows = [axis for axis in range(len(operand)) if axis not in gone]
        for axis, place in zip(windows, numbers.offset_dims, strict=True):
            sizes[axis] = min(sizes[axis], shape[place])
        return eqn.replace(params={**params, "slice_sizes": tuple(sizes)})
    return None


def without_rows(eqn: Any, rows: Sequence[int]) -> Any:
    """A gather from a table without these axes, which go with the indices' own; None of others."""
    if eqn.primitive.name != "gather":
        return None
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    batching = dict(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True))
    if not set(rows) <= batching.keys():
        return None

    def moved(axes: Sequence[int]) -> tuple[int, ...]:
        return tuple(axis - sum(row < axis for row in rows) for axis in axes)

    left = [axis for axis in numbers.operand_batching_dims if axis not in rows]
    fewer = numbers._replace(
        collapsed_slice_dims=moved(numbers.collapsed_slice_dims),
        start_index_map=moved(numbers.start_index_map),
        operand_batching_dims=moved(left),
        start_indices_batching_dims=tuple(batching[axis] for axis in left),
    )
    kept = tuple(size for axis, size in enumerate(sizes) if axis not in rows)
    return eqn.replace(params={**eqn.params, "dimension_numbers": fewer, "slice_sizes": kept})


def joint(eqn: Any, i: int) -> AxisMap:
    return (None,) * len(_shape(eqn.invars[i]))


def elementwise(eqn: Any, i: int) -> AxisMap:
    # Operands may be scalars, or have axes of size one that the operation broadcasts.
    return _same_size(eqn, i) if _shape(eqn.invars[i]) else ()


def _shape(var: Any) -> tuple[int, ...]:
    return getattr(var.aval, "shape", ())


def _without(eqn: Any, i: int, removed: Sequence[int]) -> AxisMap:
    return tuple(
        None if axis in removed else axis - sum(other < axis for other in removed)
        for axis in range(len(_shape(eqn.invars[i])))
    )


def _except(eqn: Any, i: int, mixed: Sequence[int]) -> AxisMap:
    return tuple(None if axis in mixed else axis for axis in range(len(_shape(eqn.invars[i]))))


def _same_size(eqn: Any, i: int) -> AxisMap:
    """Kept along the axes whose size has not changed."""
    sizes = zip(_shape(eqn.invars[i]), _shape(eqn.outvars[0]), strict=True)
    return tuple(axis if before == after else None for axis, (before, after) in enumerate(sizes))


def _broadcast(eqn: Any, i: int) -> AxisMap:
    if i:
        return joint(eqn, i)
    targets, shape = eqn.params["broadcast_dimensions"], eqn.params["shape"]
    sizes = zip(_shape(eqn.invars[0]), targets, strict=True)
    return tuple(target if size == shape[target] else None for size, target in sizes)


def _reshape(eqn: Any, i: int) -> AxisMap:
    if i:
        return joint(eqn, i)
    before, after = _shape(eqn.invars[0]), _shape(eqn.outvars[0])
    places = {(math.prod(after[:axis]), size): axis for axis, size in enumerate(after)}
    return tuple(places.get((math.prod(before[:axis]), size)) for axis, size in enumerate(before))


def _transpose(eqn: Any, i: int) -> AxisMap:
    permutation = list(eqn.params["permutation"])
    return tuple(permutation.index(axis) for axis in range(len(permutation)))


def _dot_general(eqn: Any, i: int) -> AxisMap:
    contracted, batch = eqn.params["dimension_numbers"]
    ndim = len(_shape(eqn.invars[i]))
    free = [axis for axis in range(ndim) if axis not in contracted[i] and axis not in batch[i]]
    start = len(batch[0]) if i == 0 else len(_shape(eqn.outvars[0])) - len(free)
    places = {axis: place for place, axis in enumerate(batch[i])} | {axis: start + n for n, axis in enumerate(free)}
    return tuple(places.get(axis) for axis in range(ndim))


def _convolution(eqn: Any, i: int) -> AxisMap:
    numbers, ndim = eqn.params["dimension_numbers"], len(_shape(eqn.invars[i]))
    if i == 0 and eqn.params["batch_group_count"] == 1:
        return tuple(numbers.out_spec[0] if axis == numbers.lhs_spec[0] else None for axis in range(ndim))
    if i == 1 and eqn.params["batch_group_count"] == eqn.params["feature_group_count"] == 1:
        return tuple(numbers.out_spec[1] if axis == numbers.rhs_spec[0] else None for axis in range(ndim))
    return (None,) * ndim


def _gather(eqn: Any, i: int) -> AxisMap:
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    ndim = len(_shape(eqn.invars[i]))
    batch = [axis for axis in range(len(_shape(eqn.outvars[0]))) if axis not in numbers.offset_dims]
    if i == 1:
        return (*batch, None)
    shape = _shape(eqn.invars[0])
    windows = [
        a for a in range(ndim) if a not in numbers.collapsed_slice_dims and a not in numbers.operand_batching_dims
    ]
    places: dict[int, int] = {
        axis: place
        for axis, place in zip(windows, numbers.offset_dims, strict=True)
        if sizes[axis] == shape[axis] and axis not in numbers.start_index_map
    }
    for axis, index_axis in zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True):
        places[axis] = batch[index_axis]
    return tuple(places.get(axis) for axis in range(ndim))


def _scatter(eqn: Any, i: int) -> AxisMap:
    numbers, ndim = eqn.params["dimension_numbers"], len(_shape(eqn.invars[i]))
    operand = _shape(eqn.invars[0])
    batching = dict(zip(numbers.scatter_indices_batching_dims, numbers.operand_batching_dims, strict=True))
    if i == 0:
        return tuple(range(ndim))
    if i == 1:
        return tuple(batching.get(axis) for axis in range(ndim))
    windows = [
        a
        for a in range(len(operand))
        if a not in numbers.inserted_window_dims and a not in numbers.operand_batching_dims
    ]
    update = _shape(eqn.invars[2])
    places: dict[int, int | None] = {
        axis: target
        for axis, target in zip(numbers.update_window_dims, windows, strict=True)
        if update[axis] == operand[target] and target not in numbers.scatter_dims_to_operand_dims
    }
    scattered = [axis for axis in range(ndim) if axis not in numbers.update_window_dims]
    places |= {axis: batching.get(index_axis) for index_axis, axis in enumerate(scattered)}
    return tuple(places.get(axis) for axis in range(ndim))


def _dynamic_update(eqn: Any, i: int) -> AxisMap:
    if i == 0:
        return tuple(range(len(_shape(eqn.invars[0]))))
    return _same_size(eqn, i) if i == 1 else joint(eqn, i)


def _moved(axis: int, places: int) -> Along:
    """Kept along an axis, that many places further on."""
    return Along(axis, -places, -places)


def _slice(eqn: Any, i: int) -> AxisMap:
    strides = eqn.params["strides"] or [1] * len(eqn.params["start_indices"])
    starts = enumerate(zip(eqn.params["start_indices"], strides, strict=True))
    return tuple(_moved(axis, -start) if stride == 1 else None for axis, (start, stride) in starts)


def _concatenate(eqn: Any, i: int) -> AxisMap:
    dimension = eqn.params["dimension"]
    before = sum(_shape(var)[dimension] for var in eqn.invars[:i])
    return tuple(_moved(axis, before if axis == dimension else 0) for axis in range(len(_shape(eqn.invars[i]))))


def _cumulative(eqn: Any, i: int) -> AxisMap:
    first, last = (0, math.inf) if eqn.params["reverse"] else (-math.inf, 0)
    axes = range(len(_shape(eqn.invars[i])))
    return tuple(Along(axis, first, last) if axis == eqn.params["axis"] else axis for axis in axes)


def _stack(eqn: Any, i: int) -> AxisMap:
    return tuple(axis + (axis >= eqn.params["axis"]) for axis in range(len(_shape(eqn.invars[i]))))


def _pad(eqn: Any, i: int) -> AxisMap:
    config = eqn.params["padding_config"]
    return () if i else tuple(_moved(axis, low) if not inner else None for axis, (low, _, inner) in enumerate(config))


def _window(eqn: Any, i: int) -> AxisMap:
    params = eqn.params
    trivial = zip(params["window_dimensions"], params["window_strides"], params["padding"], strict=True)
    return tuple(axis if (w, s, tuple(p)) == (1, 1, (0, 0)) else None for axis, (w, s, p) in enumerate(trivial))


def _dynamic_slice(eqn: Any, i: int) -> AxisMap:
    return joint(eqn, i) if i else _same_size(eqn, i)


def _matrix(eqn: Any, i: int) -> AxisMap:
    """A function of the trailing two axes, batched over the others."""
    ndim = len(_shape(eqn.invars[i]))
    return tuple(axis if axis < ndim - 2 else None for axis in range(ndim))


RULES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": lambda eqn, i: _without(eqn, i, eqn.params["dimensions"]),
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
    "gather": _gather,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update,
    "concatenate": _concatenate,
    "stack": _stack,
    "tile": _same_size,
    "pad": _pad,
    "sort": lambda eqn, i: _except(eqn, i, [eqn.params["dimension"]]),
    "split": lambda eqn, i: _except(eqn, i, [eqn.params["axis"]]),
    "rev": lambda eqn, i: _except(eqn, i, eqn.params["dimensions"]),
    "top_k": lambda eqn, i: _except(eqn, i, [len(_shape(eqn.invars[i])) - 1]),
    "cholesky": _matrix,
    "triangular_solve": _matrix,
    "random_gamma": lambda eqn, i: elementwise(eqn, i) if i else tuple(range(len(_shape(eqn.invars[0])))),
    **{
        name: lambda eqn, i: _without(eqn, i, eqn.params["axes"])
        for name in """reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax
        argmin""".split()
    },
    **dict.fromkeys("cumsum cumprod cummax cummin cumlogsumexp".split(), _cumulative),
    **dict.fromkeys(("scatter", "scatter-add", "scatter-mul", "scatter-min", "scatter-max"), _scatter),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min"), _window),
}
"""Axis rules of the operations that are not elementwise."""
