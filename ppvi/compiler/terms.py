"""Terms: the objective as a sum of terms, each credited on its own.

    output = constant + sum(term_1) + ... + sum(term_m),    term = coefficient * part + ... + coefficient * part

Expectation commutes with sums, so each term needs the sites, and the lanes, that it depends on and no others:
Rao-Blackwellisation by program analysis. Parts that depend on the same sites and lanes make one term; the coefficients
are the gradient of the objective's linear *tail* in the parts, which is constant. The walk goes back from the output
through operations that are linear in everything site-dependent, and only where going on separates sites or lanes; a sum
over lanes and other axes at once is taken in two steps, so that a likelihood summed over pixels is one term per image
and not one per pixel. Densities and estimates that need no credit are parted off too; a constant that is part of a
density stays with it.

A part that is a site's own log_prob at its own draw has an explicit gradient of mean zero, E[d log q(z)] = 0, given
everything before it; the surrogate drops that gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ppvi.compiler.dependence import Dependence, breadth, push, sources_of
from ppvi.ir import Atom, Density, Equation, Estimate, Program, Sited, Summed, Var

Sites = Dependence[Equation[Sited]]
"""Dependence of a variable on sites, each the equation that draws it."""


@dataclass(frozen=True, eq=False)
class Part:
    """A variable in which the objective is linear."""

    atom: Atom
    own_log_prob: bool
    """The log_prob of a site at its own draw."""


@dataclass(frozen=True, eq=False)
class Term:
    """Parts of one shape that depend on the same sites and lanes."""

    parts: tuple[Part, ...]
    shape: tuple[int, ...]
    dependence: Sites
    """The sites whose draws it depends on, also by way of other draws that follow them in a loop."""
    reach: Sites
    """How it is a function of each site's lanes, the others held."""


@dataclass(frozen=True)
class Decomposition:
    """`output = tail(parts of terms)`; the equations are the program's, with sums over lanes taken in two steps."""

    equations: tuple[Equation, ...]
    terms: tuple[Term, ...]
    tail: tuple[Equation, ...]


def decompose(program: Program, dependence: dict[Var, Sites]) -> Decomposition:
    """Part the objective into terms. Variables that a split introduces are added to `dependence`."""
    pending = [equation.without_notes() for equation in program.equations]
    gainful, own = _separable(pending, dependence)
    wanted: set[Atom] = {program.output}
    parts: list[Part] = []
    tail: list[Equation] = []
    equations: list[Equation] = []
    while pending:
        equation = pending.pop()
        found = [var for var in equation.outputs if var in wanted]
        wanted.difference_update(found)
        if gainful.isdisjoint(found):
            parts.extend(Part(var, var in own) for var in found)
        else:
            steps = _split_lanes(equation, dependence)
            if steps is not None:
                inner, equation = steps
                pending.append(inner)
                if any(atom in gainful or atom in own for atom in inner.inputs):
                    gainful.update(inner.outputs)
            tail.append(equation)
            wanted.update(atom for atom in equation.inputs if isinstance(atom, Var) and dependence.get(atom))
        equations.append(equation)
    parts.extend(Part(atom, False) for atom in wanted)
    return Decomposition(tuple(reversed(equations)), _grouped(parts, dependence), tuple(reversed(tail)))


def _grouped(parts: list[Part], dependence: dict[Var, Sites]) -> tuple[Term, ...]:
    groups: dict[object, list[Part]] = {}
    for part in parts:
        groups.setdefault((part.atom.shape, frozenset(sources_of(dependence, part.atom).items())), []).append(part)
    found = ((tuple(group), sources_of(dependence, group[0].atom)) for group in groups.values())
    return tuple(Term(parts, parts[0].atom.shape, sites, sites) for parts, sites in found)


def _separable(equations: Sequence[Equation], dependence: dict[Var, Sites]) -> tuple[set[Atom], set[Atom]]:
    """Variables behind which a linear walk finds something more finely separated, and sites' own log_probs.

    In sum_i l_i(z_i) - log q(z) + log p(y | theta), with theta a parameter, the difference and the sum are gainful: behind the
    one is a number that depends on no draw, behind the other a vector whose entry i depends on lane i alone. log q(z) is the
    site's own, and log p(y | theta) is *fixed*: a density that no draw reaches, which is parted off with no weight of theirs.
    """
    gainful: set[Atom] = set()
    own: set[Atom] = set()
    fixed: set[Atom] = set()
    for equation in equations:
        parted = not fixed.isdisjoint(equation.inputs)
        if isinstance(equation.role, Density) and equation.role.at == "credited draw":
            own.update(equation.outputs)
        elif _linear_operands(equation, dependence):
            before = any(atom in gainful or atom in own for atom in equation.inputs)
            if before or (equation.additive and parted) or _separates(equation, dependence):
                gainful.update(equation.outputs)
        elif isinstance(equation.role, Density | Estimate) or (equation.linear and parted):
            fixed.update(var for var in equation.outputs if not dependence.get(var))
    return gainful, own


def _linear_operands(equation: Equation, dependence: dict[Var, Sites]) -> frozenset[int]:
    """The site-dependent operands, if the operation is linear in them together; else nothing."""
    depends = frozenset(i for i, atom in enumerate(equation.inputs) if isinstance(atom, Var) and dependence.get(atom))
    return depends if any(depends <= group for group in equation.linear) else frozenset()


def _separates(equation: Equation, dependence: dict[Var, Sites]) -> bool:
    """Whether one step back through this linear equation parts sites or lanes."""
    operands = _linear_operands(equation, dependence)
    (output,) = equation.outputs
    return any(_finer(dependence.get(equation.inputs[i], {}), dependence[output]) for i in operands)  # type: ignore[arg-type]


def _finer(operand: Sites, output: Sites) -> bool:
    return operand.keys() != output.keys() or any(
        breadth(lanes) < breadth(output[site]) for site, lanes in operand.items()
    )


def _split_lanes(equation: Equation, dependence: dict[Var, Sites]) -> tuple[Equation, Equation] | None:
    """A sum that separates lanes, as a sum over the other axes followed by the sum over lanes."""
    operand = equation.inputs[0]
    if not isinstance(equation.role, Summed) or not isinstance(operand, Var):
        return None
    depends = dependence.get(operand, {})
    steps = equation.role.split(
        frozenset(place.axis for lanes in depends.values() for place in lanes if place is not None)
    )
    if steps is not None:
        ((axes,),) = steps[0].flow()
        assert axes is not None
        dependence[steps[0].outputs[0]] = push(depends, axes)
    return steps
