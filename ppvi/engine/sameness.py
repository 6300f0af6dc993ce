"""Which numbers of a staged run are known to be the same, so that two sites with these for their scales count equally often."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from ppvi._ops import as_numpy
from ppvi.engine.pieces import Staged
from ppvi.ir import Atom, Equation, Literal, Loop


def same_number(atom: Atom, staged: Staged) -> Hashable:
    """Equal where two atoms are the same numbers, as far as is known; a number where all entries are that."""
    made: dict[Atom, tuple[int, Equation]] = {}
    known: dict[Atom, Hashable] = {}
    loops: dict[Equation, Loop] = {}

    def meet(equations: Sequence[Equation]) -> None:
        made.update({var: (i, equation) for equation in equations for i, var in enumerate(equation.outputs)})

    def in_rounds(equation: Equation, i: int, loop: Loop) -> Hashable:
        """Of what a loop stacks, which is a function of what every round is given."""
        carried = {place for _, place in loop.carried}
        if any(i == output for output, _ in loop.carried):
            return equation.outputs[i]
        meet(loop.equations)
        known.update({x: key(equation.inputs[n]) for n, x in enumerate(loop.inputs) if n not in carried})
        found = key(loop.outputs[i])
        return found if isinstance(found, float) else ("in rounds", found)

    def key(atom: Atom) -> Hashable:
        if isinstance(atom, Literal) or atom in staged.constants:
            numbers = as_numpy(atom.value if isinstance(atom, Literal) else staged.constants[atom])
            for axis in range(numbers.ndim):
                first = numbers.take([0], axis)
                numbers = first if (numbers == first).all() else numbers
            return numbers.item() if numbers.size == 1 else (numbers.tobytes(), np.squeeze(numbers).shape)
        if atom in known or atom not in made:
            return known.get(atom, atom)
        i, equation = made[atom]
        meaning = None if equation.meaning is None else equation.meaning()
        if meaning is not None and meaning.moves and len(equation.inputs) == 1:
            return key(equation.inputs[0])  # where an entry counts is found by the axes that a scale lies along
        if meaning is not None and meaning.loop is not None:
            return in_rounds(equation, i, loops.setdefault(equation, meaning.loop()))
        if meaning is None or meaning.key is None:
            return atom
        return (meaning.key, i, *map(key, equation.inputs))

    meet(staged.equations)
    return key(atom)
