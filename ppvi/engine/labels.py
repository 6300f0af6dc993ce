"""Names of the axes of arrays, and labels along them: those of plates, of `dims=` and of `coords=`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppvi._doors import close_to, described, listed
from ppvi.engine._arviz import SAMPLE, Variable
from ppvi.engine.sites import Layout
from ppvi.errors import ProgramError

Shapes = Mapping[str, tuple[int, ...]]


class Labels:
    """What a user calls axes and entries.

    **Arguments**

    - `dims`: site -> the names of all its axes, or of those that no plate names.
    - `coords`: name of an axis, such as that of a plate -> labels.
    """

    def __init__(self, dims: Any, coords: Any):
        self.dims, self.coords = _texts(dims), _labels(coords)
        self.met: set[str] = set()
        self.fitted: set[str] = set()
        self.sizes: dict[str, set[int]] = {}

    def axes(
        self, layouts: Mapping[str, Layout], rows: Mapping[str, int], shapes: Shapes, pointwise: bool = False
    ) -> dict[str, tuple[str, ...]]:
        """The names of the axes of arrays of these shapes, by site; `rows` are the sizes of plates."""
        self.met |= shapes.keys()
        taken = {*SAMPLE, *layouts, *shapes}
        found = {}
        for name, shape in shapes.items():
            if name in layouts:
                places = _places(layouts[name], shape, rows, pointwise)
            else:  # an argument, whose rows are those of the only plate that has as many
                alike = [plate for plate, size in rows.items() if shape[:1] == (size,)]
                places = [(alike[0], 0)] if len(alike) == 1 else []
            event = (layouts[name].event or 0) if pointwise and name in layouts else 0
            named = self._own(name, shape, {axis: plate for plate, axis in places}, event)
            found[name] = tuple(f"{dim}_dim" if dim in taken else dim for dim in named)
        return found

    def _own(self, name: str, shape: tuple[int, ...], plates: Mapping[int, str], gone: int) -> list[str]:
        """The names of an array's axes, those of `dims=` before those of plates.

        **Arguments**

        - `gone`: how many axes of events there were after these, which `dims=` names too.
        """
        own, ndim = self.dims.get(name, ()), len(shape) + gone
        rest = [axis for axis in range(ndim) if axis not in plates]
        if len(own) == ndim:
            return list(own[: len(shape)])
        if own and len(own) != len(rest):
            sizes = f", of sizes {shape}," if not gone else ""
            others = f"name all of them, or the {len(rest)} others" if rest else "name all of them, or none"
            raise ProgramError(
                f"dims={{{name!r}: {list(own)}}}: {name!r} has {ndim} axes{sizes} of which plates name {len(plates)}: {others}."
            )
        others = dict(zip(rest, own, strict=False))
        return [plates.get(axis) or others.get(axis, f"{name}_dim_{axis}") for axis in range(len(shape))]

    def coords_of(self, variables: Mapping[str, Variable]) -> dict[str, Any]:
        """The labels that fit the axes of these variables."""
        sizes = {dim: size for v in variables.values() for dim, size in zip(v.dims, np.shape(v.values), strict=True)}
        for dim, size in sizes.items():
            self.sizes.setdefault(dim, set()).add(size)
        fitting = {dim: x for dim, x in self.coords.items() if sizes.get(dim) == len(x)}
        self.fitted |= fitting.keys()
        return fitting

    def refuse_unused(self) -> None:
        """Names of no site, and labels of no axis, or of one that has another size."""
        for name in self.dims:
            if name not in self.met:
                raise ProgramError(
                    f"dims= names the axes of {name!r}, which is no site: there are {listed(sorted(self.met))}."
                    f"{close_to(name, self.met)}"
                )
        for dim, labels in self.coords.items():
            if dim not in self.sizes:
                raise ProgramError(
                    f"coords= labels the axis {dim!r}, which nothing has: there are {listed(sorted(self.sizes))}."
                    f"{close_to(dim, self.sizes)} Axes are named by plates, or by dims=."
                )
            if dim not in self.fitted:
                sizes = " or ".join(map(str, sorted(self.sizes[dim])))
                raise ProgramError(f"coords= has {len(labels)} labels of {dim!r}, whose size is {sizes}.")


def _places(layout: Layout, shape: tuple[int, ...], rows: Mapping[str, int], pointwise: bool) -> list[tuple[str, int]]:
    """Which axis is which plate's. How many axes an event of a deterministic site has, its plates' sizes alone say."""
    plates = [(plate.name, plate.dim) for plate in layout.plates if plate.dim is not None]
    known = 0 if pointwise else layout.event
    for event in range(len(shape)) if known is None else (known,):
        found = [(name, len(shape) - event + dim) for name, dim in plates]
        fitting = [(name, axis) for name, axis in found if axis >= 0 and shape[axis] == rows.get(name)]
        if len(fitting) == len(plates) or known is not None:
            return fitting
    return []


def _texts(dims: Any) -> dict[str, tuple[str, ...]]:
    if dims is None:
        return {}
    if not isinstance(dims, Mapping):
        raise ProgramError(f"dims= is a dict from a site to the names of its axes, not {described(dims)}.")
    found = {name: (names,) if isinstance(names, str) else tuple(names) for name, names in dims.items()}
    for name, names in found.items():
        if not all(isinstance(dim, str) for dim in names):
            raise ProgramError(f"dims={{{name!r}: {list(names)}}}: the names of axes are texts.")
    return found


def _labels(coords: Any) -> dict[str, Sequence[Any]]:
    if coords is None:
        return {}
    if not isinstance(coords, Mapping):
        raise ProgramError(f"coords= is a dict from the name of an axis to its labels, not {described(coords)}.")
    for dim, labels in coords.items():
        if isinstance(labels, str) or not hasattr(labels, "__len__"):
            raise ProgramError(f"coords={{{dim!r}: ...}} is a list of labels, not {described(labels)}.")
    return dict(coords)
