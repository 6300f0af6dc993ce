"""Linearity: unbiased estimates of expectations, and the operations that make them biased.

The expectation of a function of an estimate is the function of its expectation if the function is linear, and by Jensen's
inequality it is not otherwise: a log-sum-exp of densities on a minibatch is no log-sum-exp of densities.
"""

from __future__ import annotations

from collections.abc import Mapping

from ppvi.analysis.inlined import Flat, Step
from ppvi.ir import Atom, Density, Estimate


def misused(flat: Flat) -> dict[Step, Step]:
    """For each estimate that is used nonlinearly, the operation that does so first."""
    found: dict[Step, Step] = {}
    estimates: dict[Atom, frozenset[Step]] = {}
    noise = _noise(flat)
    for step in flat.steps:
        carried = [estimates.get(atom, frozenset()) for atom in step.inputs]
        if step.equation.is_site:
            carried = carried[:1]
        every = frozenset[Step]().union(*carried)
        if every and not _keeps(step, carried, noise):
            for estimate in every:
                found.setdefault(estimate, step)
            every = frozenset()
        if isinstance(step.equation.role, Estimate):
            every = every | {step}
        if every:
            estimates.update(dict.fromkeys(step.outputs, every))
    return found


def _keeps(step: Step, carried: list[frozenset[Step]], noise: Mapping[Step, int]) -> bool:
    """Whether the operation is linear in the estimates, or a product of independent ones."""
    if step.meaning.moves or isinstance(step.equation.role, Density | Estimate):
        return True
    holders = frozenset(i for i, held in enumerate(carried) if held)
    groups = step.equation.linear
    if any(holders <= group for group in groups):
        return True
    apart = step.meaning.name in ("mul", "dot_general") and len(holders) == 2
    return apart and not any(noise[a] & noise[b] for a in carried[0] for b in carried[1])


def _noise(flat: Flat) -> dict[Step, int]:
    """For each estimate the random operations behind it, as a bit set; draws of sites are not its own noise.

    Two functions of a key with equal operands, such as the rows of one minibatch that model and guide each ask for, are one.
    """
    behind: dict[Atom, int] = {}
    numbers: dict[object, int] = {}
    found: dict[Step, int] = {}
    for step in flat.steps:
        needs = 0
        if not step.equation.is_site:
            for atom in step.inputs:
                needs |= behind.get(atom, 0)
            if step.meaning.keyed is not None:
                operands = (step.meaning.name, needs, *(flat.constant(atom) for atom in step.inputs))
                needs |= 1 << numbers.setdefault(operands if step.meaning.keyed else step, len(numbers))
        behind.update(dict.fromkeys(step.outputs, needs))
        if isinstance(step.equation.role, Estimate):
            found[step] = needs
    return found
