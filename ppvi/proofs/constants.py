"""Constants: the numbers of what depends on nothing, such as the identity matrix of `jnp.eye(3)`.

They are computed where a rule asks for them: by the operation itself, or where that does not run outside of a program by what
it does to single numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppvi._ops import as_numpy
from ppvi.analysis.inlined import Step
from ppvi.ir import Atom, Literal, Var, is_real, straight

MOST = 4096
"""Numbers that are computed at most of a constant."""


@dataclass
class Constants:
    """Of a program with these operations."""

    makers: Mapping[Var, Step]
    found: dict[Atom, Any] = field(default_factory=dict)
    """As their framework has them."""

    def of(self, atom: Atom) -> np.ndarray | None:
        value = self._native(atom)
        return None if value is None else as_numpy(value)

    def _native(self, atom: Atom) -> Any:
        if isinstance(atom, Literal):
            return atom.value if is_real(atom) else None
        if atom not in self.found:
            self.found[atom] = self._made(atom)
        return self.found[atom]

    def _made(self, atom: Var) -> Any:
        step = self.makers.get(atom)
        random = step is None or step.equation.is_site or step.meaning.keyed is not None
        if step is None or random or np.prod(atom.shape) > MOST or not is_real(atom):
            return None
        values = [self._native(x) for x in step.inputs]
        if any(value is None for value in values):
            return None
        if step.meaning.entrywise is not None and not step.meaning.moves:
            return np.broadcast_to(step.meaning.entrywise(*map(np.asarray, values)), atom.shape)
        try:
            return step.equation.run(*values)[step.outputs.index(atom)]
        except (
            Exception
        ):  # an operation that runs on its framework's own arrays only, or not at all outside of a program
            return moved(as_numpy(values[0]), step) if step.meaning.moves else None


def moved(value: np.ndarray, step: Step) -> np.ndarray | None:
    """Numbers along other axes, and repeated; None where an axis is cut or joined to another."""
    places, shape = straight(step.equation.flow()[0][0] or ()), step.outputs[0].shape
    if any(place is None and size > 1 for place, size in zip(places, value.shape, strict=True)):
        return None
    kept = sorted((place, axis) for axis, place in enumerate(places) if place is not None)
    sizes = {place: value.shape[axis] for place, axis in kept}
    lost = [axis for axis, place in enumerate(places) if place is None]
    laid = np.transpose(value, [axis for _, axis in kept] + lost)
    return np.broadcast_to(laid.reshape([sizes.get(axis, 1) for axis in range(len(shape))]), shape)
