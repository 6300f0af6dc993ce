"""A staged program as the checks read it: bodies inlined, every operation once and with its meaning.

The compiler leaves operations with a body of their own (a custom derivative, a branch) as they are; a check looks into
them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ppvi.ir import Atom, Equation, Literal, Meaning, Smoothness, Var, is_real, straight


@dataclass(frozen=True, eq=False)
class Step:
    """One operation."""

    equation: Equation
    meaning: Meaning
    inputs: tuple[Atom, ...]
    outputs: tuple[Var, ...]
    where: Callable[[], str]


@dataclass(frozen=True)
class Flat:
    """A program's steps, what each of the program's own variables is called in them, and which step makes what."""

    steps: tuple[Step, ...]
    renamed: Mapping[Var, Atom]
    makers: Mapping[Var, Step]
    rules: tuple[Step, ...]
    """Operations with a derivative rule of the user's, which were inlined all the same."""

    def atom(self, atom: Atom) -> Atom:
        return self.renamed.get(atom, atom) if isinstance(atom, Var) else atom

    def same(self, atom: Atom) -> Atom:
        """What an atom is a copy of, entry by entry."""
        while isinstance(atom, Var) and (step := self.makers.get(atom)) is not None and is_copy(step):
            atom = step.inputs[0]
        return atom

    def constant(self, atom: Atom) -> float | None:
        """The value of an atom that is one number of the program, repeated or cast perhaps."""
        while isinstance(atom, Var):
            step = self.makers.get(atom)
            if step is None or not (step.meaning.moves or step.meaning.name == "convert_element_type"):
                return None
            atom = step.inputs[0]
        return float(atom.value) if is_real(atom) and atom.shape == () else None


def is_copy(step: Step) -> bool:
    """Whether it leaves all entries where they are, and as they are."""
    if step.meaning.name != "copy" and not (step.meaning.moves and step.outputs[0].shape == step.inputs[0].shape):
        return False
    return straight(step.equation.flow()[0][0] or ()) == tuple(range(len(step.inputs[0].shape)))


SITE = Meaning("site", lambda output, operand: Smoothness.SMOOTH)


def flatten(
    equations: Iterable[Equation],
    sinks: Sequence[Atom],
    fresh: Callable[[Equation], bool],
    constants: Mapping[Var, Any],
) -> Flat:
    """The steps behind the sinks.

    **Arguments**

    - `fresh`: the sites whose value is looked at as if it came from nowhere, whatever is behind it.
    """
    wanted = _behind(tuple(equations), sinks, fresh)
    renamed: dict[Var, Atom] = {var: Literal(value, var.shape, var.dtype) for var, value in constants.items()}
    steps: list[Step] = []
    rules: list[Step] = []
    made: dict[Hashable, Sequence[Var]] = {}

    def read(equations: Iterable[Equation], where: Callable[[], str] | None) -> None:
        for equation in equations:
            inputs = tuple(renamed.get(atom, atom) if isinstance(atom, Var) else atom for atom in equation.inputs)
            meaning = SITE if equation.is_site else _meaning(equation)
            line = where or equation.where
            body = meaning.inline(inputs) if meaning.inline is not None else None
            if meaning.own_rule is not None:
                rules.append(Step(equation, meaning, inputs, equation.outputs, line))
            if body is not None:
                inner, results = body
                read(inner, line)
                for var, atom in zip(equation.outputs, results, strict=True):
                    renamed[var] = renamed.get(atom, atom) if isinstance(atom, Var) else atom
            elif (before := made.setdefault(_key(equation, meaning, inputs), equation.outputs)) is not equation.outputs:
                renamed.update(zip(equation.outputs, before, strict=True))
            else:
                steps.append(Step(equation, meaning, inputs, equation.outputs, line))

    read(wanted, None)
    return Flat(tuple(steps), renamed, {var: step for step in steps for var in step.outputs}, tuple(rules))


def _key(equation: Equation, meaning: Meaning, inputs: Sequence[Atom]) -> Hashable:
    """Equal where two operations return the same numbers."""
    if meaning.key is None:
        return equation
    numbers = (
        (x.dtype, float(x.value)) if isinstance(x, Literal) and x.shape == () and is_real(x) else x for x in inputs
    )
    return (meaning.key, *numbers)


def _meaning(equation: Equation) -> Meaning:
    """What it means, or its name alone where an engine has no rules."""
    return Meaning(equation.op) if equation.meaning is None else equation.meaning()


def _behind(
    equations: tuple[Equation, ...], sinks: Sequence[Atom], fresh: Callable[[Equation], bool]
) -> list[Equation]:
    needed: set[Atom] = set(sinks)
    found = []
    for equation in reversed(equations):
        if any(var in needed for var in equation.outputs):
            found.append(equation)
            if not equation.is_site:
                needed.update(equation.inputs)
                continue
            needed.update(equation.inputs[i] for i in equation.role.info.bounds)
            if not fresh(equation):
                needed.add(equation.inputs[0])
    return found[::-1]
