"""What an objective is made of: three programs, and what else is given in their place."""

from __future__ import annotations

import inspect
from typing import Any

from ppvi import objectives
from ppvi._doors import described
from ppvi.engine.calls import name_of
from ppvi.errors import ProgramError


def refuse_no_programs(program: Any, model: Any, guide: Any) -> None:
    """Refuse what is no objective program, no model or no guide."""
    _refuse_loss(program)
    for what, fn in (("objective program", program), ("model", model), ("guide", guide)):
        if not callable(fn) or isinstance(fn, type) or hasattr(fn, "as_loss"):
            raise ProgramError(f"the {what} must be a function, not {described(fn)}. {_function_hint(what, fn)}")
    _refuse_other_arguments(program)


def _function_hint(what: str, given: Any) -> str:
    if isinstance(given, str):
        program = given.lower() if given.lower() in vars(objectives) else "elbo"
        such = f"ppvi.objectives.{program}" if what == "objective program" else "AutoNormal(model)" * (what == "guide")
        return f"Pass the function itself{f', such as {such}' * bool(such)}."
    if hasattr(given, "as_loss"):
        return "An objective has its programs already: pass those, such as objective.model."
    if isinstance(given, type):
        return "Pass an instance."
    return f"Pass the {what} itself, and not what it returns."


def _refuse_loss(program: Any) -> None:
    """Losses of the frameworks' own SVI are no objective programs."""
    kind = program if isinstance(program, type) else type(program)
    if any(cls.__name__ == "ELBO" and cls.__module__.startswith(("numpyro.", "pyro.")) for cls in kind.__mro__):
        raise ProgramError(
            f"the objective program is given {kind.__name__}, a loss of the SVI of {kind.__module__.partition('.')[0]}: write "
            f"ppvi.objectives.elbo, or iwelbo(particles)."
        )


def _refuse_other_arguments(program: Any) -> None:
    """A program takes two handles; what takes something else probably makes a program of it."""
    try:
        signature = inspect.signature(program)
    except ValueError:
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise ProgramError(
            f"the objective program takes two arguments, the model and the guide, but {name_of(program)!r} takes "
            f"({', '.join(signature.parameters)}): if it makes an objective, call it first, as in "
            f"objective(iwelbo(5), model, guide)."
        ) from None
