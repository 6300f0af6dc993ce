"""The log density of a staged program with some of its finite sites summed out."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

from ppvi._ops import Array, Ops
from ppvi.compiler.assignments import Alike, Values
from ppvi.compiler.dependence import Dependence, own_lanes, propagate, site_lanes
from ppvi.compiler.elimination import CrossingError, Factor, Work, aligned, eliminate
from ppvi.compiler.factors import Factors, Part, Sites, live, mixed, outside
from ppvi.errors import ProgramError
from ppvi.ir import Equation, Marginalised, Var


def log_density(
    equations: Sequence[Equation],
    env: Values,
    sites: Sites,
    parts: Sequence[Part],
    ops: Ops,
    shifts: Mapping[str, Array] | None = None,
) -> tuple[Array, Marginalised]:
    """log sum_z prod_f f(z), by the row of the plates that are kept.

    **Arguments**

    - `shifts`: what is added to the logarithms of the summed sites' probabilities, `(*lanes, K)`; the derivative in them is the
      probability of each value given all else. Nothing then counts more than once.

    **Raises** `ProgramError` where that is not feasible, and where it would be a function of a minibatch that is not linear.
    """
    staged, results, work = _eliminated(equations, env, sites, parts, ops, shifts)
    found = [_counted(staged, result) for result in results]
    found += [
        _beside(staged, part)
        for part, (labels, _) in zip(staged.parts, staged.found, strict=True)
        if not labels and part.own is None
    ]
    total = found[0]
    for other in found[1:]:
        total = total + other
    return total, Marginalised(tuple(dict.fromkeys(work.order)), work.largest, work.names)


def pointwise(
    equations: Sequence[Equation], env: Values, sites: Sites, parts: Sequence[Part], data: Collection[str], ops: Ops
) -> dict[str, Array]:
    """The log density of each entry of data, `(*batch)`, given all else but the finite sites, over which it is summed.

        log sum_z p(z, x) p(y_i | z, x) - log sum_z p(z, x)

    **Arguments**

    - `data`: the names of those parts that are.

    **Returns** that of the data of which each entry has finite sites of its own, or none; not of those that share them.
    """
    staged, results, _ = _eliminated(equations, env, sites, parts, ops)
    found = {
        part.name: ops.broadcast(_scale(staged, part) * env[part.atom], part.atom.shape)
        for part, (labels, _) in zip(parts, staged.found, strict=True)
        if part.name in data and not labels
    }
    for result in results:
        members = [(i, part) for i, part in enumerate(parts) if part.name in result.names]
        told = [(i, part) for i, part in members if part.name in data]
        axes = [axis for axis in result.axes if staged.sizes[axis] > 1]
        if len(told) != 1 or not _is_along(staged, *told[0], axes):
            continue
        [(number, part)] = told
        kept = [_class(staged, number, part, axis) for axis in range(len(part.atom.shape))]
        array = _laid(ops, result, kept, part.atom.shape)
        if any(other.own is None for _, other in members if other is not part):
            rest = [factor for i, other in members if other is not part for factor in staged.of(i)]
            for factor in eliminate(ops, rest, Work(staged.sizes)):
                array = array - _laid(ops, factor, kept, part.atom.shape)
        found[part.name] = _scale(staged, part) * array
    return found


def _eliminated(
    equations: Sequence[Equation],
    env: Values,
    sites: Sites,
    parts: Sequence[Part],
    ops: Ops,
    shifts: Mapping[str, Array] | None = None,
) -> tuple[Factors, list[Factor], Work]:
    """The factors, and what is left of those that depend on one another once all variables are summed out."""
    needed = live(equations, parts, sites, env)
    start = {site.outputs[0]: {site: own_lanes(site)} for site in sites}
    dependence: dict[Var, Dependence[Equation]] = propagate(needed, start, lambda site: {})
    apart = mixed(parts, dependence, sites)
    while True:
        staged = Factors(needed, env, sites, parts, apart, ops, Alike(equations), shifts)
        work = Work(staged.sizes)
        try:
            return staged, eliminate(ops, staged.factors(), work), work
        except CrossingError as crossing:
            apart = staged.parted(crossing)


def _is_along(staged: Factors, i: int, part: Part, axes: Collection[Hashable]) -> bool:
    """Whether the entries of a part are those along some axes, one for each."""
    mine = {_class(staged, i, part, axis): size for axis, size in enumerate(part.atom.shape) if size > 1}
    return mine == {axis: staged.sizes[axis] for axis in axes} and len(mine) == sum(x > 1 for x in part.atom.shape)


def _laid(ops: Ops, factor: Factor, axes: Sequence[Hashable], shape: Sequence[int]) -> Array:
    """What is left of factors, along these axes."""
    inside = [axis for axis in factor.axes if axis in axes]
    array = ops.reshape(factor.array, [factor.size(axis) for axis in inside])
    return ops.broadcast(aligned(ops, Factor(array, (), tuple(inside)), (), axes), shape)


def _scale(staged: Factors, part: Part) -> Array | float:
    """How often the entries of a part count."""
    return part.counts * (1.0 if part.scale is None else staged.env[part.scale])


def _beside(staged: Factors, part: Part) -> Array:
    """The part of a site that depends on nothing that is summed out."""
    x = staged.env[part.atom]
    if part.scale is not None:
        x = staged.env[part.scale] * x
    ndim = len(x.shape)
    return _in_order(staged.ops, part.counts * x, [axis % ndim for axis in part.kept] if ndim else [])


def _in_order(ops: Ops, x: Array, kept: Sequence[int]) -> Array:
    x = ops.sum(x, [axis for axis in range(len(x.shape)) if axis not in kept])
    order = [sorted(kept).index(axis) for axis in kept]
    return ops.transpose(x, order) if order != sorted(order) else x


def _counted(staged: Factors, result: Factor) -> Array:
    """What is left of variables that depend on one another, as often as it counts."""
    members = [(i, part) for i, part in enumerate(staged.parts) if part.name in result.names]
    (number, first), *others = members
    for i, other in others:
        if _weight(staged, i, other) != _weight(staged, number, first):
            raise _uneven(first, other)
    axes, array = list(result.axes), result.array
    for i, part in members:
        for axis in part.rows:
            if _size(part, axis) > 1 and _class(staged, i, part, axis) not in axes:
                raise _minibatch(part, [p for _, p in members if p.own is not None])
    array = staged.ops.broadcast(array, [staged.sizes[axis] for axis in axes])
    if staged.shifts is None:
        array = first.counts * (array if first.scale is None else _scaled(staged, array, axes, number, first))
    kept: list[int] = []
    shape: list[int] = []
    for axis in first.kept:
        name = _class(staged, number, first, axis)
        if name in axes:
            kept.append(axes.index(name))
            shape.append(staged.sizes[name])
        elif _size(first, axis) > 1:
            raise outside(first, next(iter(staged.variables.values())).name)
        else:
            shape.append(1)
    return staged.ops.reshape(_in_order(staged.ops, array, kept), shape)


def _class(staged: Factors, i: int, part: Part, axis: int) -> Hashable:
    """The rows that an axis of a part's batch runs over."""
    if part.own is not None:
        return staged.axes.of(("site", part.own, axis))
    return staged.axes.of(("part", i, axis))


def _size(part: Part, axis: int) -> int:
    return (part.atom.shape if part.own is None else site_lanes(part.own))[axis]


def _weight(staged: Factors, i: int, part: Part) -> tuple[Hashable, ...]:
    """How often a part counts; equal for two that count equally often."""
    return (part.rate, part.alike, *(rows for rows in _rows(staged, i, part) if rows is not None))


def _rows(staged: Factors, i: int, part: Part) -> list[Hashable]:
    """The rows that a part's scale is not the same for, by the axes of its batch; None where it has but one."""
    sizes = () if part.scale is None else part.scale.shape
    return [_class(staged, i, part, axis) if size > 1 else None for axis, size in enumerate(sizes)]


def _scaled(staged: Factors, array: Array, axes: Sequence[Hashable], i: int, part: Part) -> Array:
    scale = staged.env[part.scale]  # type: ignore[index]
    found = {name: axis for axis, name in enumerate(_rows(staged, i, part)) if name is not None}
    if not found.keys() <= set(axes):
        raise ProgramError(
            f"site {part.name!r} at {part.where} has a scale that is not the same for all that is summed over together: "
            f"what is multiplied by a scale is the log of the sum. Give the scale to the plate that all of it is in."
        )
    order = [found[axis] for axis in axes if axis in found]
    scale = staged.ops.transpose(scale, [*order, *(n for n in range(len(scale.shape)) if n not in order)])
    return array * staged.ops.reshape(scale, [staged.sizes[axis] if axis in found else 1 for axis in axes])


def _uneven(one: Part, other: Part) -> ProgramError:
    if one.rate != other.rate:
        inner, outer = (one, other) if one.rate != 1 and (other.rate == 1 or other.own) else (other, one)
        return _minibatch(inner, [outer])
    return ProgramError(
        f"sites {one.name!r} at {one.where} and {other.name!r} at {other.where} are summed over together, and have different "
        f"scales: what is multiplied by a scale is the log of the sum. Put the same scale around both, or draw the site that "
        f"is summed out in the guide."
    )


def _minibatch(part: Part, summed: Sequence[Part]) -> ProgramError:
    names = ", ".join(dict.fromkeys(repr(each.name) for each in summed))
    return ProgramError(
        f"site {part.name!r} at {part.where} is on a minibatch, and depends on {names}, summed out and outside of "
        f"the minibatch: the log of the sum over all rows is not estimated without bias from some. Move the summed site into "
        f"the plate, use all rows, or draw it in the guide."
    )
