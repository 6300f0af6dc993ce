"""The factors of a staged program's density: each site's log_prob at all values of the sites that are summed out.

How a factor lies along the lanes of these sites is known from the operations that made it, whatever the program says of plates.
Lanes that an operation mixes are variables each of its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ppvi._ops import Array, Ops
from ppvi.compiler.assignments import Label as Place, Table, Values, tabulate
from ppvi.compiler.dependence import Dependence, Lanes, own_lanes, site_lanes, sources_of
from ppvi.compiler.elimination import CrossingError, Factor, Label, Variable, logarithm
from ppvi.errors import ProgramError
from ppvi.ir import Atom, AxisMap, Equation, Lifted, Sited, Var
from ppvi.strategies.alternatives import LIMIT

Sites = Mapping[Equation[Sited], Array]
"""Sites that are summed out, each with its values, `(K, *lanes, *event)`, of size one along lanes where all are the same."""


@dataclass(frozen=True, eq=False)
class Part:
    """The density of one site, as a factor."""

    name: str
    where: str
    atom: Atom
    """Its log_prob, `(*batch)`; of a site that is summed out each value's probability or its logarithm, as `(*lanes, K)`."""
    own: Equation[Sited] | None = None
    """The site itself, where it is summed out."""
    log_probs_axis: int | None = None
    """The axis of the values, where it is the logarithms of the probabilities that a site which is summed out has."""
    is_probability: bool = False
    scale: Atom | None = None
    """How often it counts."""
    alike: Hashable = None
    """Two that are equal count equally often."""
    rate: float = 1.0
    """Of a minibatch: how many rows each stands for."""
    counts: float = 1.0
    """The same for plates that are not kept."""
    kept: tuple[int, ...] = ()
    """The axes of the batch that are plates to be kept, in their order."""
    rows: tuple[int, ...] = ()
    """The axes of the batch that are minibatches."""


def lanes_alone(part: Part) -> AxisMap:
    """Where the axes of what a site that is summed out has lie in its lanes."""
    gone = part.log_probs_axis
    assert gone is not None
    return [None if axis == gone else axis - (axis > gone) for axis in range(len(part.atom.shape))]


Apart = Mapping[Equation, frozenset[int]]
"""The lane axes of sites along which every lane is a variable of its own."""


def live(equations: Sequence[Equation], parts: Sequence[Part], sites: Sites, env: Values) -> list[Equation]:
    """The equations that factors need and that have not been run, other than those that have drawn what is summed out."""
    known = {var: site for site in sites for var in site.outputs}
    touched = _touched(equations, sites)
    wanted: set[Atom] = {atom for part in parts for atom in (part.atom, part.scale) if atom is not None}
    found: list[Equation] = []
    for equation in reversed(equations):
        outputs = wanted.intersection(equation.outputs)
        has_run = touched.isdisjoint(outputs) and all(atom in env for atom in outputs)
        if equation not in sites and outputs and not has_run:
            found.append(equation)
            needed = equation.inputs
            if isinstance(equation.role, Lifted) and not touched.isdisjoint(equation.outputs):
                body, results = equation.role.anew()
                needed = (*results, *(atom for inner in body for atom in inner.inputs))
            wanted.update(atom for atom in needed if atom not in known)
    return found[::-1]


def _touched(equations: Sequence[Equation], sites: Sites) -> set[Atom]:
    """What the sites' values play a part in."""
    found: set[Atom] = {var for site in sites for var in site.outputs}
    for equation in equations:
        if not found.isdisjoint(equation.inputs):
            found.update(equation.outputs)
    return found


def mixed(parts: Sequence[Part], dependence: Mapping[Var, Dependence[Equation]], sites: Sites) -> Apart:
    """The lane axes of sites that a factor mixes."""
    apart = {site: frozenset[int]() for site in sites}
    lanes_of = [sources_of(dependence, part.atom) for part in parts]

    def part_off(site: Equation[Sited], axes: set[int], part: Part) -> bool:
        """Whether that is new."""
        before, apart[site] = apart[site], apart[site] | axes
        _refuse_many(site, apart[site], sites, part)
        return apart[site] != before

    for part, found in zip(parts, lanes_of, strict=True):
        for site, lanes in found.items():
            sizes = site_lanes(site)
            part_off(
                site, {a for a, x in enumerate(lanes) if sizes[a] > 1 and (x is None or math.isinf(x.width))}, part
            )
    again = True
    while again:  # what a site's own probabilities depend on lane by lane is parted with its lanes
        again = False
        for part, found in zip(parts, lanes_of, strict=True):
            gone = frozenset[int]() if part.own is None else apart[part.own]
            for site, lanes in found.items():
                again |= part_off(site, {a for a, x in enumerate(lanes) if x is not None and x.axis in gone}, part)
    return apart


def _refuse_many(site: Equation[Sited], axes: frozenset[int], sites: Sites, part: Part) -> None:
    lanes = math.prod(site_lanes(site)[axis] for axis in axes)
    runs = float(len(sites[site])) ** lanes
    if runs > LIMIT:
        info = site.role.info
        raise ProgramError(
            f"site {info.name!r} ~ {info.distribution} at {info.where} cannot be summed out: the density of {part.name!r} at "
            f"{part.where} is a function of {lanes} of its entries at once, of {runs:.3g} assignments, more than {LIMIT}. Draw "
            f"the site in the guide; or let each entry of {part.name!r} depend on few of its entries, that are near."
        )


H = TypeVar("H", bound=Hashable)


class Classes:
    """Classes of what is the same, as axes that run over the same rows."""

    def __init__(self) -> None:
        self.same: dict[Hashable, Hashable] = {}

    def of(self, axis: Hashable) -> Hashable:
        while axis in self.same:
            axis = self.same[axis]
        return axis

    def join(self, one: Hashable, other: Hashable) -> None:
        one, other = self.of(one), self.of(other)
        if one != other:
            self.same[other] = one

    def join_all(self, members: Sequence[Hashable]) -> None:
        for other in members[1:]:
            self.join(members[0], other)

    def groups(self, members: Iterable[H]) -> list[list[H]]:
        """Those that are of one class."""
        found: dict[Hashable, list[H]] = {}
        for member in members:
            found.setdefault(self.of(member), []).append(member)
        return list(found.values())


class Factors:
    """Factors at all values of the sites."""

    def __init__(
        self,
        live: Sequence[Equation],
        env: Values,
        sites: Sites,
        parts: Sequence[Part],
        apart: Apart,
        ops: Ops,
        alike: Callable[[Atom], Collection[int]],
        shifts: Mapping[str, Array] | None = None,
    ):
        self.sites, self.parts, self.apart, self.ops, self.env, self.shifts = sites, parts, apart, ops, env, shifts
        first = {site.outputs[0]: self._first(site) for site in sites}
        self.tables, done = tabulate(first, live, [part.atom for part in parts], env, ops, alike)
        for equation in live:
            if equation not in done:
                self._refuse(equation)
        self.axes = Classes()
        self.variables: dict[tuple[Equation, tuple[int, ...]], Variable] = {}
        self.found = [self._labels(part) for part in parts]
        for i, (part, (labels, _)) in enumerate(zip(parts, self.found, strict=True)):
            own = [] if part.own is None else [Place(part.own, self._own_lanes(part.own))]
            for label in (*labels, *own):
                for axis, place in enumerate(label.lanes):
                    if place is not None:
                        self.axes.join(("site", label.site, axis), ("part", i, place.axis))
        self.sizes = {
            self.axes.of(("site", site, axis)): size for site in sites for axis, size in enumerate(site_lanes(site))
        }

    def _first(self, site: Equation[Sited]) -> Table:
        """A site's value at all values of its entries, each alike or, along axes that factors mix, each on its own."""
        lanes, values, axes = site_lanes(site), self.sites[site], sorted(self.apart[site])
        if not axes:
            return Table(self.ops.constant(values, site.outputs[0].dtype), (Place(site, self._own_lanes(site)),))
        count, event = len(values), values.shape[1 + len(lanes) :]
        places = list(itertools.product(*(range(lanes[axis]) for axis in axes)))
        shape = [lanes[axis] if axis in axes else 1 for axis in range(len(lanes))]
        array = np.empty((*[count] * len(places), *shape, *event), values.dtype)
        for number, place in enumerate(places):
            at = dict(zip(axes, place, strict=True))
            index = tuple(at.get(axis, 0) for axis in range(len(lanes)))
            laid = values.reshape((*[count if i == number else 1 for i in range(len(places))], *event))
            array[(*[slice(None)] * len(places), *index)] = laid
        labels = tuple(Place(site, self._own_lanes(site), place) for place in places)
        return Table(self.ops.constant(array, site.outputs[0].dtype), labels)

    def _own_lanes(self, site: Equation[Sited]) -> Lanes:
        """Where the lanes of a variable of a site lie in it."""
        return tuple(None if axis in self.apart[site] else place for axis, place in enumerate(own_lanes(site)))

    def _refuse(self, equation: Equation) -> None:
        behind = {site for atom in equation.inputs if isinstance(atom, Var) for site in self._behind(atom)}
        names = ", ".join(sorted(repr(site.role.info.name) for site in behind)) or "a site"
        raise ProgramError(
            f"{names} cannot be summed out: {equation.op} at {equation.where()} mixes "
            f"its entries with those of earlier rounds or rows in a way that is not followed. Draw the site in the guide."
        )

    def _behind(self, atom: Var) -> set[Equation[Sited]]:
        return {label.site for label in self.tables[atom].labels} if atom in self.tables else set()

    def _labels(self, part: Part) -> tuple[tuple[Place, ...], Array]:
        """What a part's array is a function of, and it, with the alternatives in front."""
        table = self.tables.get(part.atom) if isinstance(part.atom, Var) else None  # type: ignore[arg-type]
        labels, array = (table.labels, table.array) if table is not None else ((), self.env[part.atom])
        if part.log_probs_axis is None:
            return labels, array
        labels = tuple(there for label in labels if (there := label.moved(lanes_alone(part))) is not None)
        return labels, self.ops.exp(self.ops.moveaxis(array, len(labels) + part.log_probs_axis, -1))

    # Factors ------------------------------------------------------------------------------------------------------------

    def variable(self, site: Equation[Sited], part: tuple[int, ...]) -> Variable:
        if (site, part) not in self.variables:
            lanes = [i for i, size in enumerate(site_lanes(site)) if size > 1 and i not in self.apart[site]]
            axes = frozenset(self.axes.of(("site", site, axis)) for axis in lanes)
            info = site.role.info
            if len(axes) < len(lanes):
                raise ProgramError(
                    f"site {info.name!r} at {info.where} cannot be summed out: other sites depend on its entries along one "
                    f"axis as along another. Draw it in the guide."
                )
            self.variables[site, part] = Variable(info.name, info.where, axes)
        return self.variables[site, part]

    def factors(self) -> list[Factor]:
        """Those that depend on what is summed out."""
        return [factor for i in range(len(self.parts)) for factor in self.of(i)]

    def of(self, i: int) -> list[Factor]:
        """Those that a part makes."""
        part, (labels, array), shape = self.parts[i], self.found[i], self.parts[i].atom.shape
        if part.own is not None:
            return self._own(i, part, labels, array)
        return [self._factor(i, part, labels, array, {n: n for n in range(len(shape))}, shape)] if labels else []

    def _own(self, i: int, part: Part, labels: tuple[Place, ...], array: Array) -> list[Factor]:
        """The factors of a site that is summed out, one for each variable that it is."""
        site, ahead = part.own, len(labels)
        assert site is not None
        lanes = site_lanes(site)
        axes, found = sorted(self.apart[site]), []
        for place in itertools.product(*(range(lanes[axis]) for axis in axes)):
            at = dict(zip(axes, place, strict=True))
            narrow = [array.shape[ahead + axis] == 1 for axis in range(len(lanes))]
            index = tuple((0 if narrow[a] else at[a]) if a in at else slice(None) for a in range(len(lanes)))
            mine = array[(*[slice(None)] * ahead, *index)]
            if self.shifts is not None:
                shift = self.shifts[part.name][tuple(at.get(axis, slice(None)) for axis in range(len(lanes)))]
                mine = (logarithm(self.ops, mine) if part.is_probability else mine) + shift
            mine = self.ops.moveaxis(mine, len(mine.shape) - 1, ahead)
            kept = {axis: n for n, axis in enumerate(a for a in range(len(lanes)) if a not in at)}
            own = Place(site, self._own_lanes(site), place)
            shape = tuple(size for a, size in enumerate(lanes) if a not in at)
            found.append(self._factor(i, part, (*labels, own), mine, kept, shape, own))
        return found

    def _factor(
        self,
        i: int,
        part: Part,
        places: Sequence[Place],
        array: Array,
        axes: Mapping[int, int],
        shape: Sequence[int],
        own: Place | None = None,
    ) -> Factor:
        """A factor from an array with these places in front; its axes are those of the part, less those that are gone."""
        ahead = len(places)
        labels, along = self.placed(places, axes)
        if len(set(along.values())) < len(along):
            raise ProgramError(
                f"site {part.name!r} at {part.where} depends on a site that is summed out along two of its axes as along one. "
                f"Draw that in the guide."
            )
        for number, axis in ((n, a) for a, n in axes.items() if n not in along):
            if axis in part.kept and shape[number] > 1:
                raise outside(part, labels[0].variable.name)
        free = [number for number in range(len(shape)) if number not in along]
        repeats = math.prod(shape[n] for n in free if array.shape[ahead + n] == 1)
        if free:
            array = self.ops.sum(array, [ahead + n for n in free])
            array = array if repeats == 1 else repeats * array
        order = [n for n in range(len(shape)) if n in along]
        names = frozenset({part.name})
        weighs = labels[-1] if own is not None and part.is_probability and self.shifts is None else None
        found = tuple(along[n] for n in order)
        wide = self._full(array, ahead, [shape[n] for n in order], found)
        return Factor(wide, tuple(labels), found, weighs, names)

    def placed(self, places: Sequence[Place], axes: Mapping[int, int]) -> tuple[list[Label], dict[int, Hashable]]:
        """The variables at these places, and which rows they have along the axes of a factor."""
        along: dict[int, Hashable] = {}
        labels = []
        for label in places:
            distances = []
            for lane, place in enumerate(label.lanes):
                if place is not None:
                    axis = self.axes.of(("site", label.site, lane))
                    if along.setdefault(axes[place.axis], axis) != axis:
                        raise AssertionError("axes of one place are joined")
                    if place.first:
                        distances.append((axis, int(place.first)))
            labels.append(Label(self.variable(label.site, label.part), tuple(distances)))
        return labels, along

    def _full(self, array: Array, ahead: int, shape: Sequence[int], axes: Sequence[Hashable]) -> Array:
        """An array that is narrow at most along axes on which it has as many entries as the sites."""
        for n, (size, axis) in enumerate(zip(shape, axes, strict=True)):
            if size == 1 and self.sizes[axis] > 1:  # of one lane, and not of all alike: of the others it is 1
                rows = self.ops.moveaxis(array, ahead + n, 0)
                nothing = self.ops.zeros(rows.shape, rows)
                rows = self.ops.concatenate([rows, *[nothing] * (self.sizes[axis] - 1)])
                array = self.ops.moveaxis(rows, 0, ahead + n)
        shape = [self.sizes[axis] if size == 1 else size for size, axis in zip(shape, axes, strict=True)]
        sizes = [
            have if have == 1 and size == self.sizes[axis] else size
            for have, size, axis in zip(array.shape[ahead:], shape, axes, strict=True)
        ]
        wanted = (*array.shape[:ahead], *sizes)
        return array if wanted == tuple(array.shape) else self.ops.broadcast(array, wanted)

    def parted(self, crossing: CrossingError) -> Apart:
        """With every lane of one axis of a site a variable of its own, where variables along different axes meet."""
        options = []
        for (site, _), variable in self.variables.items():
            if variable in crossing.variables:
                for axis, size in enumerate(site_lanes(site)):
                    if size > 1 and axis not in self.apart[site]:
                        lanes = size * math.prod(site_lanes(site)[a] for a in self.apart[site])
                        options.append((float(len(self.sites[site])) ** lanes, site.role.info.name, site, axis))
        cost, name, site, axis = min(options, key=lambda option: option[0])
        if cost > LIMIT:
            names = ", ".join(sorted({repr(variable.name) for variable in crossing.variables}))
            common = ", ".join(sorted(map(repr, crossing.factor.names)))
            raise ProgramError(
                f"sites {names} cannot be summed out: they are in plates that cross, and {common} depends on all, so that "
                f"every entry of one depends on every entry of the other. The least that a sum takes is {cost:.3g} values of "
                f"{name!r}, more than {LIMIT}. Draw one of them in the guide."
            )
        return {**self.apart, site: self.apart[site] | {axis}}


def outside(part: Part, name: str) -> ProgramError:
    return ProgramError(
        f"log density per plate: site {part.name!r} lies in the plate and depends on {name!r}, which is summed out and lies "
        f"outside, so that it is no product over the rows. Leave `per` out."
    )
