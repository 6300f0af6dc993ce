"""Operations that are alike, computed as one.

    y_1 = f(x_1), ..., y_n = f(x_n)    ->    y = vmap(f)(x)

A program of fifty sites of a number each is unrolled into fifty copies of all that a site takes: folds of keys, random bits,
the inverse of a cumulative distribution, log densities, and the gradient of each. XLA makes kernels of each copy, which takes
the most of a first call, and calls them one by one in every later one. Copies that do not depend on each other are one
operation here, on an array with an axis more, as compilers put numbers side by side in the registers of a processor (Larsen
and Amarasinghe 2000, superword-level parallelism). Which they are is seen in the traced program alone. Numbers stay the same:
what is put side by side is entrywise, and keys of JAX's default kind give the same bits one by one and side by side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppvi.numpyro import _compat
from ppvi.numpyro._compat import ClosedJaxpr, Literal, bind

T = TypeVar("T")

DRAWING = frozenset("random_bits random_fold_in random_split random_wrap random_unwrap threefry2x32".split())
ALIKE = DRAWING | frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type broadcast_in_dim cbrt ceil clamp
    convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite
    le lgamma log log1p logistic lt max min mul ne neg nextafter not or pow reduce_and reduce_max reduce_min reduce_or
    reduce_sum rem reshape round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh slice
    sqrt square squeeze stop_gradient sub tan tanh transpose xor""".split()
)
"""Operations that can be computed side by side with the same numbers, at no more cost than one by one; a product of matrices is
none, nor is a loop."""
SMALL = 256
"""Entries of the largest array that is put side by side with others: to copy a larger one takes longer than a call."""
FEW = 8
"""So many operations that are alike are worth two moves of arrays; five, under `vmap`, compile no faster than they did."""
GAIN = 600
"""A program that would have so many operations fewer is changed: one of ten sites or so, of which a call takes no longer."""


class Value:
    """A value of a program whose calls are inlined."""

    __slots__ = ("aval",)

    def __init__(self, aval: Any):
        self.aval = aval


class Number:
    """A number in the text of a program; equal ones are one object."""

    __slots__ = ("aval", "val")

    def __init__(self, literal: Literal):
        self.aval: Any = literal.aval
        self.val = literal.val


Atom = Value | Number


class Operation(NamedTuple):
    """An equation, with the values that it takes and makes."""

    eqn: Any
    operands: tuple[Atom, ...]
    results: tuple[Value, ...]

    @property
    def name(self) -> str:
        return self.eqn.primitive.name


class Program(NamedTuple):
    """The operations of a traced program, without calls."""

    inputs: Sequence[Value]
    operations: Sequence[Operation]
    outputs: Sequence[Atom]
    constants: dict[Value, Any]


class Place(NamedTuple):
    """Where a value is among those that are computed side by side."""

    pack: int
    row: int


class Schedule(NamedTuple):
    """What is computed one after the other: each of a group is computed with the others, side by side."""

    groups: Sequence[Sequence[Operation]]
    places: dict[Value, Place]


def as_one(function: Callable[..., T]) -> Callable[..., T]:
    """The function with operations that are alike computed as one."""

    def run(*args: Any) -> T:
        leaves, structure = jax.tree.flatten(args)

        def flat(*leaves: Any) -> T:
            return function(*jax.tree.unflatten(structure, leaves))

        traced, shapes = jax.make_jaxpr(flat, return_shape=True)(*leaves)
        return jax.tree.unflatten(jax.tree.structure(shapes), _run(traced, leaves))

    return run


def _run(traced: ClosedJaxpr, leaves: Sequence[Any]) -> Sequence[Any]:
    if not traced.effects:
        program = distinct(inlined(traced))
        found = schedule(program)
        if sum(len(group) - 1 for group in found.groups) >= GAIN:
            return Run(program, found, leaves).outputs()
    return _compat.jaxpr_as_fun(traced)(*leaves)


# What is alike -----------------------------------------------------------------------------------------------------------


def inlined(closed: ClosedJaxpr) -> Program:
    """The operations of a program and of the bodies that it calls once, whose derivatives have been taken."""
    operations: list[Operation] = []
    constants: dict[Value, Any] = {}
    numbers: dict[Hashable, Number] = {}

    def read(body: ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
        atoms = dict(zip(body.jaxpr.invars, arguments, strict=True))
        for var, constant in zip(body.jaxpr.constvars, body.consts, strict=True):
            atoms[var] = Value(var.aval)
            constants[atoms[var]] = constant

        def atom(var: Any) -> Atom:
            if isinstance(var, Literal):
                return numbers.setdefault((var.aval, np.asarray(var.val).tobytes()), Number(var))
            return atoms[var]

        for eqn in body.jaxpr.eqns:
            operands = tuple(map(atom, eqn.invars))
            inner = _compat.body(eqn) if eqn.primitive.name in _compat.INLINED | {"custom_jvp_call"} else None
            if inner is None:
                results: Sequence[Any] = tuple(Value(var.aval) for var in eqn.outvars)
                operations.append(Operation(eqn, operands, tuple(results)))
            else:
                results = read(inner, operands)
            atoms.update(zip(eqn.outvars, results, strict=True))
        return [atom(var) for var in body.jaxpr.outvars]

    inputs = [Value(var.aval) for var in closed.jaxpr.invars]
    outputs = read(closed, inputs)
    return Program(inputs, operations, outputs, constants)


def distinct(program: Program) -> Program:
    """The program with what it computes twice computed once."""
    same: dict[Any, Any] = {}
    known: dict[Hashable, Operation] = {}
    kept = []
    for operation in program.operations:
        operation = operation._replace(operands=tuple(same.get(x, x) for x in operation.operands))
        key = (_kind(operation), operation.operands)
        if key[0] is None:
            kept.append(operation)
        elif key in known:
            same.update(zip(operation.results, known[key].results, strict=True))
        else:
            known[key] = operation
            kept.append(operation)
    return program._replace(operations=kept, outputs=[same.get(x, x) for x in program.outputs])


def schedule(program: Program) -> Schedule:
    """Operations in an order in which each comes after what it takes, those that are alike together.

    The level of an operation is the length of the longest chain that leads to it, so that none of a level depends on another
    of it. Alike are those of a kind of which each takes what is of the same groups, or of none: arrays are moved only where a
    group begins or ends.
    """
    levels: dict[Value, int] = {}
    by_level: defaultdict[int, list[Operation]] = defaultdict(list)
    for operation in program.operations:
        level = 1 + max((levels.get(x, 0) for x in operation.operands if isinstance(x, Value)), default=0)
        levels.update(dict.fromkeys(operation.results, level))
        by_level[level].append(operation)
    groups: list[Sequence[Operation]] = []
    places: dict[Value, Place] = {}
    packs = 0
    for level in sorted(by_level):
        for found in _of_a_level(by_level[level], places):
            groups.append(found)
            if len(found) > 1:
                for results in zip(*(operation.results for operation in found), strict=True):
                    places.update((value, Place(packs, row)) for row, value in enumerate(results))
                    packs += 1
    return Schedule(groups, places)


def _of_a_level(operations: Sequence[Operation], places: dict[Value, Place]) -> Iterator[Sequence[Operation]]:
    found: defaultdict[Hashable, list[Operation]] = defaultdict(list)
    for operation in operations:
        kind = _kind(operation) if _is_small(operation) else None
        origins = tuple(_origin(x, places) for x in operation.operands)
        if operation.name == "slice":
            kind, origins = _slices(operation), ()
        found[operation if kind is None else (kind, origins)].append(operation)
    for group in found.values():
        if len(group) >= FEW:
            yield sorted(group, key=lambda operation: _order(operation, places))
        else:
            yield from ([operation] for operation in group)


def _order(operation: Operation, places: dict[Value, Place]) -> tuple[int, ...]:
    """The order in which the first operand that is in a group needs no move; of slices that of their array."""
    if operation.name == "slice":
        return tuple(operation.eqn.params["start_indices"])
    first = (places[x].row for x in operation.operands if x in places)
    return (next(first, 0),)


def _kind(operation: Operation) -> Hashable:
    """What all operations of a kind share; None of what is of none."""
    eqn, name = operation.eqn, operation.name
    operands = [x.aval for x in operation.operands]
    if name not in ALIKE or eqn.effects or not operands or any(_compat.is_split(aval) for aval in operands):
        return None
    if name in DRAWING and not _compat.are_threefry([*operands, *(var.aval for var in eqn.outvars)]):
        return None
    kind = (name, tuple(sorted(eqn.params.items())), tuple(operands))
    try:
        hash(kind)
    except TypeError:
        return None
    return kind


def _is_small(operation: Operation) -> bool:
    values = operation.results if operation.name == "slice" else (*operation.operands, *operation.results)
    return all(x.aval.size <= SMALL for x in values)


def _slices(operation: Operation) -> Hashable:
    """What slices share that are one entry of an axis each, of one array."""
    array, params = operation.operands[0], operation.eqn.params
    starts, ends = params["start_indices"], params["limit_indices"]
    single = [i for i, (a, b, n) in enumerate(zip(starts, ends, array.aval.shape, strict=True)) if b - a == 1 < n]
    if _kind(operation) is None or not _is_small(operation) or params["strides"] is not None or len(single) != 1:
        return None
    axis = single[0]
    return "slice", array, axis, starts[:axis], starts[axis + 1 :], ends[:axis], ends[axis + 1 :]


def _origin(x: Any, places: dict[Value, Place]) -> Hashable:
    return "number" if isinstance(x, Number) else places[x].pack if x in places else "alone"


# A run -------------------------------------------------------------------------------------------------------------------


class Run:
    """A run of a program by its schedule."""

    def __init__(self, program: Program, schedule: Schedule, leaves: Sequence[Any]):
        self.program, self.schedule = program, schedule
        self.values: dict[Value, Any] = {**program.constants, **dict(zip(program.inputs, leaves, strict=True))}
        self.packs: list[Any] = []
        self.apart: dict[int, Any] = {}

    def outputs(self) -> list[Any]:
        for group in self.schedule.groups:
            first = group[0]
            if len(group) > 1:
                self.packs.extend(self._sliced(group) if first.name == "slice" else self._computed(group))
            else:
                found = bind(first.eqn, [self.value(x) for x in first.operands])
                self.values.update(zip(first.results, found, strict=True))
        return [self.value(x) for x in self.program.outputs]

    def value(self, x: Any) -> Any:
        if isinstance(x, Number):
            return x.val
        if x not in self.values:
            place = self.schedule.places[x]
            if place.pack not in self.apart:
                self.apart[place.pack] = _finished(self.packs[place.pack])
            self.values[x] = lax.index_in_dim(self.apart[place.pack], place.row, keepdims=False)
        return self.values[x]

    def _computed(self, group: Sequence[Operation]) -> Sequence[Any]:
        columns = [self._column(column) for column in zip(*(operation.operands for operation in group), strict=True)]
        several = [i for i, (_, is_stack) in enumerate(columns) if is_stack]

        def one(*rows: Any) -> Sequence[Any]:
            operands = [x for x, _ in columns]
            for i, row in zip(several, rows, strict=True):
                operands[i] = row
            return bind(group[0].eqn, operands)

        return jax.vmap(one)(*(columns[i][0] for i in several))

    def _column(self, column: Sequence[Any]) -> tuple[Any, bool]:
        """An operand of all operations of a group, and whether it is another for each of them."""
        first = column[0]
        if len(set(column)) == 1:
            return self.value(first), False
        if isinstance(first, Number):
            return jnp.asarray(np.stack([np.asarray(x.val, x.aval.dtype) for x in column])), True
        if first in self.schedule.places:
            pack, rows = self.packs[self.schedule.places[first].pack], [self.schedule.places[x].row for x in column]
            return _taken(pack, rows, 0), True
        return jnp.stack([self.value(x) for x in column]), True

    def _sliced(self, group: Sequence[Operation]) -> Sequence[Any]:
        array, params = self.value(group[0].operands[0]), group[0].eqn.params
        starts = np.array([operation.eqn.params["start_indices"] for operation in group])
        axis = int(np.argmax(starts[0] != starts[-1]))
        low, high = list(params["start_indices"]), list(params["limit_indices"])
        low[axis], high[axis] = 0, array.shape[axis]
        rows = _taken(lax.slice(array, low, high), starts[:, axis].tolist(), axis)
        return [jnp.expand_dims(jnp.moveaxis(rows, axis, 0), axis + 1)]


def _taken(array: Any, rows: list[int], axis: int) -> Any:
    """These entries of an axis."""
    if rows == list(range(rows[0], rows[0] + len(rows))):
        return lax.slice_in_dim(array, rows[0], rows[0] + len(rows), axis=axis)
    return jnp.take(array, np.array(rows), axis, mode="clip")


def _finished(pack: Any) -> Any:
    """The values of a group for those who take them one by one. XLA would compute each of them anew for each who does, within
    kernels that are as many as if there were no group."""
    return pack if jnp.issubdtype(pack.dtype, jax.dtypes.prng_key) else lax.optimization_barrier(pack)
