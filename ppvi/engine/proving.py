"""What is said of an objective that has been staged: its explanation, the static check, and mistakes that show at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ppvi._ops import Array
from ppvi._source import warn_at
from ppvi.compiler.plan import Plan
from ppvi.engine.protocol import Params
from ppvi.engine.stagings import uncollected
from ppvi.errors import BiasWarning, ProgramError
from ppvi.ir import Atom, Program as StagedProgram, Var
from ppvi.proofs.examine import examine
from ppvi.proofs.explain import Explanation, explain
from ppvi.proofs.findings import Finding, StaticReport
from ppvi.proofs.numbers import Numbers


@dataclass(frozen=True)
class Staged:
    """An objective that was staged, at the parameters and arguments of a call."""

    plan: Plan
    names: Mapping[Var, str]
    """Of the parameters, by their variables."""
    values: Mapping[Var, Array]
    """Of the program's inputs, less its key."""
    drawing: Callable[[int], AbstractContextManager[Array]]
    """In the context the program draws from a seed, which is given to it in this way."""
    like: Callable[..., Array]
    """NumPy's numbers as an array of the kind of another, of those that the checks run the program with."""

    @uncollected()
    def prove(self) -> StaticReport:
        numbers = Numbers(self.plan.program, self.plan.edges, self.values, self.drawing, self.like)
        return examine(self.plan, self.names, numbers)

    def explain(self) -> Explanation:
        return explain(self.plan, self.prove())


def warn_of_bias(findings: Iterable[Finding], where: str) -> None:
    """Say at an objective's first use, which is there in the user's files, what a check would find of its minibatches."""
    for finding in findings:
        warn_at(where, f"the objective is biased.\n{finding}", BiasWarning)


def refuse_constant(program: StagedProgram, params: Params) -> None:
    """An objective that depends on no parameter is a mistake."""
    depends: set[Atom] = set(program.params)
    for equation in program.equations:
        if any(atom in depends for atom in equation.inputs):
            depends.update(equation.outputs)
    if params and program.output not in depends:
        raise constant(params)


def warn_of_motionless(still: Collection[str], reads: Mapping[str, str], params: Params) -> None:
    """The same of one that is replayed, in which these parameters have no gradient; it is a slip where Python reads them.

    **Arguments**

    - `reads`: where numbers are read that depend on them.
    """
    said = {
        where: f"parameter {name!r} is read as a number, compared or rounded at {where}, and has no gradient: keep it a "
        f"tensor, without float() and .item(), or declare no parameter."
        for name, where in reads.items()
    }
    if params and len(still) == len(params):
        raise constant(params, *said.values())
    for where, what in said.items():
        warn_at(where, what, BiasWarning)


def constant(params: Params, *reasons: str) -> ProgramError:
    """The error of an objective that depends on no parameter."""
    found = next(iter(reasons), "did it return the value that it computed?")
    return ProgramError(
        f"the objective does not depend on any parameter of {sorted(params)}, so its gradient is zero everywhere: {found}"
    )
