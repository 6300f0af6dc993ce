"""Variable elimination: the log of a sum over all values of many finite variables of a product of factors.

    log sum_z prod_f f(z_f)

A variable is summed out of the product of the factors that it is in, which leaves a factor of the others that are in them.
What lies along an axis is many variables and factors at once, one for each entry; once nothing else ties the entries together,
they are multiplied: those in the innermost plates are summed out first (Obermeyer et al. 2019). Where entries are tied to their
neighbours, they are a Markov chain, and an axis is summed out step by step.

Everything is a logarithm but for a variable's own factor, where that is given by probabilities: it weighs the sum over the
variable, so that a probability of zero has its derivative. Zhang and Poole 1996; Baum and Petrie 1966.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ppvi._ops import Array, Ops
from ppvi.compiler.assignments import refuse_large
from ppvi.errors import ProgramError

Axis = Hashable
"""A class of axes of variables and factors that run over the same rows."""


@dataclass(frozen=True, eq=False)
class Variable:
    """A finite variable, for each entry along its axes one of its own."""

    name: str
    where: str
    axes: frozenset[Axis]


class Label(NamedTuple):
    """One of the variables that an entry of a factor is a function of."""

    variable: Variable
    distances: tuple[tuple[Axis, int], ...] = ()
    """How far after the factor's own entry it is, along axes where that is not 0."""

    def along(self, axis: Axis) -> int:
        return dict(self.distances).get(axis, 0)


@dataclass(frozen=True, eq=False)
class Factor:
    """A factor's logarithm at all values of the variables that it is a function of."""

    array: Array
    """`(K, ..., K, *axes)`; of size one along axes where all entries are the same."""
    labels: tuple[Label, ...]
    axes: tuple[Axis, ...]
    weighs: Label | None = None
    """Of which variable these are the probabilities themselves, given the others; None where they are logarithms."""
    names: frozenset[str] = frozenset()
    """The sites that it is made of."""

    def size(self, axis: Axis) -> int:
        return self.array.shape[len(self.labels) + self.axes.index(axis)]


@dataclass
class Work:
    """What was done, for a report."""

    sizes: Mapping[Axis, int]
    order: list[str] = field(default_factory=list)
    """Variables in the order in which they were summed out."""
    largest: float = 0.0
    """Entries of the largest table."""
    names: tuple[str, ...] = ()
    """The variables of that."""

    def met(self, labels: Collection[Label], entries: float, where: Callable[[], str]) -> None:
        """Told of a table with so many entries."""
        if entries > self.largest:
            self.largest, self.names = entries, tuple(dict.fromkeys(label.variable.name for label in labels))
        refuse_large(entries, dict.fromkeys(label.variable.name for label in labels), lambda: f"to sum out {where()}")


def logarithm(ops: Ops, x: Array) -> Array:
    """log x, without a derivative where x is 0."""
    return ops.where(x > 0, ops.log(ops.where(x > 0, x, 1.0)), -math.inf)


# Algebra of factors -------------------------------------------------------------------------------------------------------


def in_logs(ops: Ops, factor: Factor) -> Factor:
    return factor if factor.weighs is None else replace(factor, array=logarithm(ops, factor.array), weighs=None)


def aligned(ops: Ops, factor: Factor, labels: Sequence[Label], axes: Sequence[Axis]) -> Array:
    """A factor's array with these leading axes and axes, of size one where it has none."""
    have = [*factor.labels, *factor.axes]
    wanted = [*labels, *axes]
    order = [have.index(x) for x in wanted if x in have]
    x = ops.transpose(factor.array, order) if order != sorted(order) else factor.array
    sizes = iter(x.shape)
    shape = [next(sizes) if name in have else 1 for name in wanted]
    return x if shape == list(x.shape) else ops.reshape(x, shape)


def union(factors: Iterable[Factor]) -> tuple[list[Label], list[Axis]]:
    factors = list(factors)
    labels = list(dict.fromkeys(label for factor in factors for label in factor.labels))
    return labels, list(dict.fromkeys(axis for factor in factors for axis in factor.axes))


def product(ops: Ops, factors: Sequence[Factor]) -> Factor:
    labels, axes = union(factors)
    arrays = [aligned(ops, in_logs(ops, factor), labels, axes) for factor in factors]
    array = arrays[0]
    for other in arrays[1:]:
        array = array + other
    names = frozenset(name for factor in factors for name in factor.names)
    return Factor(array, tuple(labels), tuple(axes), names=names)


def sum_out(ops: Ops, factors: Sequence[Factor], gone: Collection[Label], work: Work) -> list[Factor]:
    """Sum variables out of a product of factors, the cheapest first of those whose own factors have not been met."""
    factors = list(factors)
    sizes: dict[Hashable, int] = {name: n for f in factors for name, n in zip(f.labels, f.array.shape, strict=False)}
    sizes |= {axis: work.sizes.get(axis, 1) for f in factors for axis in f.axes}
    scopes = [(frozenset[Hashable]((*f.labels, *f.axes)), f.weighs) for f in factors]
    for label, entries in in_order(scopes, sizes, gone):
        mine = [factor for factor in factors if label in factor.labels]
        work.met(union(mine)[0], entries, lambda: f"site {label.variable.name!r} at {label.variable.where}")  # noqa: B023
        work.order.append(label.variable.name)
        factors = [factor for factor in factors if label not in factor.labels]
        factors.append(_summed(ops, mine, label))
    return factors


Scope = tuple[frozenset[Hashable], Hashable]
"""What a factor is a function of, and which variable's probabilities it has, if it has any."""

V = TypeVar("V", bound=Hashable)


def in_order(
    scopes: Iterable[Scope], sizes: Mapping[Any, int], gone: Collection[V], depth: Callable[[V], int] = lambda label: 0
) -> Iterator[tuple[V, float]]:
    """Variables in the order in which they are summed out, each with the entries of the table that this takes.

    The next is one of those in most plates, for which fewest probabilities of others have to be made logarithms, and of these
    the cheapest.
    """
    scopes = list(scopes)
    of: dict[Hashable, set[int]] = {
        label: {i for i, (scope, _) in enumerate(scopes) if label in scope} for label in gone
    }

    def union_of(label: V) -> frozenset[Hashable]:
        return frozenset[Hashable]((label,)).union(*(scopes[i][0] for i in of[label]))

    def cost(label: V) -> tuple[int, int, float]:
        others = sum(scopes[i][1] not in (None, label) for i in of[label])
        return -depth(label), others, float(math.prod(sizes[name] for name in union_of(label)))

    costs = {label: cost(label) for label in gone}
    while costs:
        label = min(costs, key=costs.__getitem__)
        yield label, costs.pop(label)[2]
        scope, used = union_of(label) - {label}, of.pop(label)
        scopes.append((scope, None))
        for name in scope & of.keys():
            of[name] = of[name] - used | {len(scopes) - 1}
            costs[name] = cost(name)  # type: ignore[index]


def _summed(ops: Ops, factors: Sequence[Factor], label: Label) -> Factor:
    weights = [factor for factor in factors if factor.weighs == label]
    others = [factor for factor in factors if factor.weighs != label]
    names = frozenset(name for factor in factors for name in factor.names)
    labels, axes = union(factors)
    labels = [label, *(x for x in labels if x != label)]
    if not weights:
        array = ops.log_sum(aligned(ops, product(ops, others), labels, axes), None)
    else:
        [w] = (aligned(ops, factor, labels, axes) for factor in weights)
        x = aligned(ops, product(ops, others), labels, axes) if others else None
        array = logarithm(ops, ops.sum(w, [0])) if x is None else ops.log_sum(x, w)
    return Factor(array, tuple(labels[1:]), tuple(axes), names=names)


def multiplied(ops: Ops, factor: Factor, over: Collection[Axis], work: Work) -> Factor:
    """The product of a factor's entries along some axes."""
    axes = [axis for axis in factor.axes if axis in over]
    repeats = math.prod(work.sizes[axis] for axis in axes if factor.size(axis) == 1)
    summed = ops.sum(factor.array, [len(factor.labels) + factor.axes.index(axis) for axis in axes])
    kept = tuple(axis for axis in factor.axes if axis not in over)
    return replace(factor, array=summed if repeats == 1 else repeats * summed, axes=kept)


# Plates -------------------------------------------------------------------------------------------------------------------


class CrossingError(Exception):
    """Variables along different axes meet in a factor that runs over both, so that no sum comes before a product."""

    def __init__(self, variables: Sequence[Variable], factor: Factor):
        super().__init__()
        self.variables, self.factor = variables, factor


def eliminate(ops: Ops, factors: Sequence[Factor], work: Work) -> list[Factor]:
    """The log of the sum, as a sum of arrays that lie along the axes which nothing ties together."""
    left, results = list(factors), []
    while left:
        variables = {label.variable for factor in left for label in factor.labels}
        innermost = max(variables, key=lambda v: len(v.axes)).axes
        local = {v for v in variables if v.axes == innermost}
        touched = [factor for factor in left if any(label.variable in local for label in factor.labels)]
        left = [factor for factor in left if factor not in touched]
        for group in components(touched, local):
            for factor in group:
                if not innermost.issuperset(factor.axes):
                    others = [x.variable for x in factor.labels if not innermost.issuperset(x.variable.axes)]
                    raise CrossingError([*others, *(v for v in local if v.axes)], factor)
            for message in _contracted(ops, group, local, innermost, work):
                outer = frozenset(axis for label in message.labels for axis in label.variable.axes)
                found = multiplied(ops, message, set(message.axes) - outer, work) if message.labels else message
                (left if message.labels else results).append(found)
    return results


def components(factors: Sequence[Factor], local: Collection[Variable]) -> list[list[Factor]]:
    """Factors that share some of these variables."""
    groups: list[tuple[set[Variable], list[Factor]]] = []
    for factor in factors:
        mine, members = {x.variable for x in factor.labels if x.variable in local}, [factor]
        for group in [group for group in groups if group[0] & mine]:
            groups.remove(group)
            mine, members = mine | group[0], group[1] + members
        groups.append((mine, members))
    return [members for _, members in groups]


def _contracted(
    ops: Ops, group: Sequence[Factor], local: Collection[Variable], axes: frozenset[Axis], work: Work
) -> list[Factor]:
    """A component with its local variables summed out."""
    labels = [label for label in union(group)[0] if label.variable in local]
    chains = {axis for axis in axes if _is_chain(group, labels, axis, work)}
    if not chains:
        return sum_out(ops, group, labels, work)
    if len(chains) > 1:
        names = ", ".join(sorted({repr(label.variable.name) for label in labels}))
        raise ProgramError(
            f"sites {names} depend on their neighbours along two axes at once, as on a grid, of which no sum is feasible: draw "
            f"them in the guide, or let them depend on one axis only."
        )
    return [chain(ops, group, local, chains.pop(), work)]


def _is_chain(group: Sequence[Factor], labels: Sequence[Label], axis: Axis, work: Work) -> bool:
    """Whether entries of variables along an axis are tied together, or lie beside those of factors."""
    sizes = {factor.size(axis) for factor in group if axis in factor.axes} - {1}
    return any(label.along(axis) for label in labels) or not sizes <= {work.sizes[axis]}


# Chains -------------------------------------------------------------------------------------------------------------------


def chain(ops: Ops, group: Sequence[Factor], local: Collection[Variable], axis: Axis, work: Work) -> Factor:
    """A component along an axis with its variables summed out, from one end to the other.

        B_t(z_{t-1}, ...) = sum_{z_t} f_t(z_t, z_{t-1}, ...) B_{t+1}(z_t, ...)

    Or the other way round, where variables depend on those after them.
    """
    _refuse_within(group, local, axis)
    ahead = [x.along(axis) for f in group if f.weighs is not None for x in f.labels if x.variable in local]
    flip = sum(x > 0 for x in ahead) > sum(x < 0 for x in ahead)
    steps = [_step(factor, local, axis, flip) for factor in group]
    length = work.sizes[axis]
    first = min(0, *(start for _, start in steps))
    last = max(length, *(start + factor.size(axis) for factor, start in steps))
    laid = [_laid(ops, factor, start, axis, (first, last, length)) for factor, start in steps]
    variables = list(dict.fromkeys(x.variable for x in union(laid)[0] if x.variable in local))
    values = {label.variable: size for f in laid for label, size in zip(f.labels, f.array.shape, strict=False)}
    if (first, last) != (0, length):
        laid += [_there(ops, laid[0], v, values[v], axis, (first, last, length)) for v in variables]
    labels, axes = union(laid)
    depth = {v: max(x.along(axis) for x in labels if x.variable is v) for v in variables}
    state = [Label(v, _lag(axis, lag)) for v in variables for lag in range(1, depth[v] + 1)]
    others = [label for label in labels if label.variable not in local]
    rest = [a for a in axes if a != axis]
    sizes = [max(f.size(a) for f in laid if a in f.axes) for a in rest]
    shape = [*(values[label.variable] for label in (*state, *others)), *sizes]
    fixed, moving = [f for f in laid if axis not in f.axes], [f for f in laid if axis in f.axes]
    here = tuple(Label(label.variable, _lag(axis, label.along(axis) - 1)) for label in state)

    def step(message: Array, entries: Sequence[Array]) -> Array:
        after = Factor(message, (*here, *others), tuple(rest))
        now = [
            replace(factor, array=x, axes=tuple(a for a in factor.axes if a != axis))
            for factor, x in zip(moving, entries, strict=True)
        ]
        found = sum_out(ops, [after, *fixed, *now], [Label(v) for v in variables], work)
        return ops.broadcast(aligned(ops, product(ops, found), [*state, *others], rest), shape)

    entries = [ops.moveaxis(f.array, len(f.labels) + f.axes.index(axis), 0) for f in moving]
    found = ops.scan(step, ops.zeros(shape, laid[0].array), entries, last - first, not flip)
    names = frozenset(name for factor in group for name in factor.names)
    # Before the first entry there is nothing, whose only value is the first.
    return Factor(found[(0,) * len(state)], tuple(others), tuple(rest), names=names)


def _refuse_within(group: Sequence[Factor], local: Collection[Variable], axis: Axis) -> None:
    for factor in group:
        for label in factor.labels:
            if label.variable not in local and axis in label.variable.axes:
                name, chained = label.variable.name, next(iter(local)).name
                raise ProgramError(
                    f"site {name!r} at {label.variable.where} and {chained!r}, which is in a plate that {name!r} is not in, "
                    f"both depend on their neighbours along an axis: no sum is feasible. Draw one of them in the guide."
                )


def _step(factor: Factor, local: Collection[Variable], axis: Axis, flip: bool) -> tuple[Factor, int]:
    """A factor of a chain with its labels by how many steps later they are summed out than the first of them; and at which
    step that is for its first entry."""
    sign = -1 if flip else 1
    found = [sign * label.along(axis) for label in factor.labels if label.variable in local]
    most = max(found, default=0)

    def moved(label: Label) -> Label:
        at_home = label.variable not in local
        return label if at_home else Label(label.variable, _lag(axis, most - sign * label.along(axis)))

    weighs = factor.weighs and moved(factor.weighs)
    return replace(factor, labels=tuple(map(moved, factor.labels)), weighs=weighs), sign * most


def _lag(axis: Axis, lag: int) -> tuple[tuple[Axis, int], ...]:
    return ((axis, lag),) if lag else ()


def _laid(ops: Ops, factor: Factor, start: int, axis: Axis, extent: tuple[int, int, int]) -> Factor:
    """A factor with an entry for each step, which is 1 where it has none; or without the axis, where all entries are one."""
    first, last, length = extent
    if axis not in factor.axes:
        return factor
    place = len(factor.labels) + factor.axes.index(axis)
    if factor.size(axis) == 1 and length > 1:
        if (start, first, last) == (0, 0, length):
            array = factor.array[(slice(None),) * place + (0,)]
            return replace(factor, array=array, axes=tuple(a for a in factor.axes if a != axis))
        shape = list(factor.array.shape)
        shape[place] = length
        factor = replace(factor, array=ops.broadcast(factor.array, shape))
    rows = ops.moveaxis(factor.array, place, 0)
    nothing = ops.zeros(rows.shape[1:], rows)[None]
    one = nothing if factor.weighs is None else nothing + 1
    before, after = start - first, last - start - rows.shape[0]
    rows = ops.concatenate([*[one] * before, rows, *[one] * after])
    return replace(factor, array=ops.moveaxis(rows, 0, place))


def _there(ops: Ops, like: Factor, variable: Variable, values: int, axis: Axis, extent: tuple[int, int, int]) -> Factor:
    """1 for all values of a variable where it is there, and for the first alone where it is not."""
    first, last, length = extent
    absent = np.zeros((values, last - first))
    absent[1:, [t for t in range(last - first) if not 0 <= t + first < length]] = -math.inf
    array = ops.zeros(absent.shape, like.array) + ops.array(absent)
    return Factor(array, (Label(variable),), (axis,), names=frozenset({variable.name}))
