"""Which of a program's operations go lane by lane: at alternatives of one lane after another they need to run once only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ppvi.compiler.dependence import Lanes, own_lanes, propagate, site_lanes
from ppvi.ir import Along, Atom, Equation, Var


@dataclass(frozen=True)
class Split:
    """The rest of a program after a site, parted where some of the site's lanes meet."""

    near: int
    """Equations whose results belong to one lane each, or to none, as a bit set."""
    far: int
    """The others."""
    frontier: Mapping[Var, Lanes | None]
    """The site's value, and what the far ones, and whoever asks for results, take from the near ones: how it lies, None if the
    site plays no part."""


def split(
    site: Equation, equations: Sequence[Equation], schedule: int, axes: Collection[int], results: Collection[Atom]
) -> Split:
    """Part a schedule of equations after a site by where these lane axes of the site meet.

    What is made from a result in which lanes meet is beyond that too, though it may belong to one lane again: of a loop the
    carry mixes all rounds and each round's own output does not, and both are results of one operation.
    """
    after = {i: equation for i, equation in enumerate(equations) if schedule >> i & 1}
    found = propagate([site, *after.values()], {}, lambda e: {site: own_lanes(e)} if e is site else {})
    lanes = {var: dependence[site] for var, dependence in found.items() if dependence}
    sizes = {axis: site_lanes(site)[axis] for axis in axes}
    used = {atom for equation in after.values() for atom in equation.inputs} | set(results)
    near: set[int] = set()
    beyond: set[Atom] = set()
    for i, equation in after.items():
        apart = all(_is_apart(var, lanes.get(var), sizes) for var in equation.outputs if var in used)
        if apart and beyond.isdisjoint(equation.inputs):
            near.add(i)
        else:
            beyond.update(equation.outputs)
    far = after.keys() - near
    wanted = {atom for i in far for atom in after[i].inputs} | set(results)
    found_near = [var for i in sorted(near) for var in after[i].outputs if var in wanted]
    return Split(
        near=sum(1 << i for i in near),
        far=sum(1 << i for i in far),
        frontier={var: lanes.get(var) for var in (*site.outputs, *found_near)},
    )


def _is_apart(var: Var, lanes: Lanes | None, sizes: Mapping[int, int]) -> bool:
    """Whether an entry for every lane of these axes depends on that lane only."""

    def alone(place: Along | None, size: int) -> bool:
        return place is not None and place.first == place.last == 0 and var.shape[place.axis] == size

    return lanes is None or all(alone(lanes[axis], size) for axis, size in sizes.items())


def laid(chosen: np.ndarray, lanes: Lanes, axes: Collection[int], ndim: int) -> np.ndarray:
    """Which entries of a variable with so many axes belong to marked lanes, `(C, *lanes)` along these axes."""
    places = {axis: place.axis for axis in axes if isinstance(place := lanes[axis], Along)}
    order = sorted(places, key=lambda axis: places[axis])
    rows = np.moveaxis(chosen, [1 + axis for axis in order], range(1, 1 + len(order)))
    sizes = [1] * ndim
    for axis in order:
        sizes[places[axis]] = chosen.shape[1 + axis]
    return rows.reshape(len(chosen), *sizes)
