"""What to cite: the papers behind an objective, its strategies and what a fit has done."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from ppvi import objectives
from ppvi._doors import described
from ppvi._references import METHOD, METHODS, OBJECTIVES, OPTIMIZERS, STRATEGIES, entries
from ppvi.errors import ProgramError
from ppvi.fit import Fit
from ppvi.objective import Objective
from ppvi.proofs.explain import Explanation


def cite(what: Any, *, file: TextIO | None = None) -> None:
    """Print the papers behind an objective or a fit, as BibTeX; see `ppvi.cite`."""
    if not isinstance(what, Objective | Fit):
        raise ProgramError(f"cite takes an objective or a fit, not {described(what)}.")
    found = of_fit(what) if isinstance(what, Fit) else of_objective(what)
    print("\n\n".join(entries()[key] for key in dict.fromkeys(found)), file=file)


def of_fit(fit: Fit) -> Iterator[str]:
    """Keys of the papers behind a fit: of its objectives, with the strategies that its sites have had, and of its methods."""
    for objective in fit.objectives:
        data = (objective.args, objective.kwargs) if objective.args or objective.kwargs else (fit.args, fit.kwargs)
        bare = objective.on()
        yield from of_objective(objective, _explained(bare, fit.params, *data), stepped=fit.approximated is None)
    for name in dict.fromkeys(line.partition(":")[0] for line in fit.moved):
        yield from OPTIMIZERS.get(name, ())
    if fit.approximated is not None:
        yield from METHODS["approximate"]
        if len(fit.approximated.weights) > 1:
            yield from METHODS["mixture"]
        if len(fit.approximated.weights) > fit.approximated.modes:
            yield from METHODS["windows"]
        if "non-centred" in (fit.approximated.version or ""):
            yield from METHODS["non-centred"]
    if fit.averages is not None:
        yield from METHODS["averages"]


def of_objective(objective: Objective, explained: Explanation | None = None, stepped: bool = True) -> Iterator[str]:
    """Keys of the papers behind an objective: with the strategies that are named, and those of what was explained of it.

    Where no step has been taken by its gradient (`stepped`), no strategy has been of use.
    """
    yield from METHOD
    yield from OBJECTIVES.get(name_of(objective.program) or "", ())
    used = [str(strategy) for strategy in objective.strategies.values()]
    if explained is not None and stepped:
        used += [site.strategy for site in explained.sites]
    if explained is not None and explained.summed:
        yield from METHODS["summed out"]
    for word in re.findall(r"\w+", " ".join(used)):
        yield from STRATEGIES.get(word, ())


def name_of(program: Callable[..., Any]) -> str | None:
    """The name under which the library has an objective program, or its family; None of what is a user's own."""
    made_by = getattr(program, "_family", program)
    return next((name for name in OBJECTIVES if getattr(objectives, name) is made_by), None)


def _explained(objective: Objective, params: Any, args: tuple[Any, ...], kwargs: Any) -> Explanation | None:
    """What the compiler saw; None of a fit from a file, which does not know its data, so that programs fail as they may."""
    try:
        return objective.on(*args, **kwargs).explain(params)
    except Exception:
        return None
