"""An objective as an engine sees it: three programs, the strategies of their sites, and a direction."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from ppvi._ops import Array
from ppvi.engine.calls import name_of
from ppvi.errors import ProgramError
from ppvi.objectives.families import equal
from ppvi.program import Program
from ppvi.strategies import Strategy

ObjectiveProgram = Callable[[Program, Program], Array]


@dataclass(frozen=True, eq=False)
class Formula:
    """E over the draws of the programs of what the first of them returns, of which an engine estimates the gradient."""

    program: ObjectiveProgram
    model: Callable[..., Any]
    guide: Callable[..., Any]
    strategies: dict[str, Strategy] = field(default_factory=dict)
    """Site -> strategy."""
    maximize: bool = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Formula) and equal(list(vars(self).values()), list(vars(other).values()))

    def __hash__(self) -> int:
        return hash((*map(_hash, (self.program, self.model, self.guide)), *sorted(self.strategies)))

    def refuse_no_params(self, found: Collection[str]) -> None:
        """An objective without parameters has nothing to fit."""
        if not found:
            raise ProgramError(
                f"neither the guide {name_of(self.guide)!r} nor the model {name_of(self.model)!r} declares a parameter, as the "
                f"objective runs them, so there is nothing to fit or check: declare one with `param`, use an autoguide such as "
                f"AutoNormal(model), or have the objective run the guide, as by q.simulate()."
            )


def _hash(program: Any) -> int:
    try:
        return hash(program)
    except TypeError:
        return 0
