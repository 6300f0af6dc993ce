"""Options of the public functions, and what somebody meant who calls one by another name."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from ppvi.errors import CallError

F = TypeVar("F", bound=Callable[..., Any])

_CALLED: ContextVar[Callable[..., Any] | None] = ContextVar("called", default=None)
"""The public function that runs, the innermost of them."""

_DRAWS = "n_samples num_samples samples n_draws num_draws draws"
_HABITS = {
    "optimizer": "lr learning_rate step_size stepsize optim opt",
    "num_steps": "steps n_steps iterations num_iterations n_iter num_iters epochs num_epochs",
    "key": "seed rng rng_key random_state",
    "batches": "batch batch_size dataloader data_loader",
    "progress": "verbose progress_bar disable_progbar",
    "draws": _DRAWS,
    "num_samples": _DRAWS,
    "particles": f"k K num_particles n_particles {_DRAWS}",
    "num_warmup": "warmup n_warmup warmup_steps tune",
    "num_chains": "chains n_chains",
}
"""What other libraries call the options that have these names here."""

_PLACES = {
    "optimizer": "The optimizer goes to fit",
    "num_steps": "The number of steps goes to fit",
    "batches": "Batches go to fit",
    "key": "The key is given by position, in front of the data",
    "particles": "The number of particles goes to the objective program, as in iwelbo(10)",
    "strategies": "Strategies go to vi.objective",
    "maximize": "The direction goes to vi.objective",
    "draws": "A number of draws goes to posterior, or to nuts as num_samples=",
    "num_samples": "A number of draws goes to posterior, or to nuts as num_samples=",
    "loss": "The objective program comes first, as in vi.objective(elbo, model, guide)",
}
"""Where options belong."""

_VALUES = {"optimizer": "optimizer=0.1, the step size of Adam"}


def door(function: F) -> F:
    """A public function, which says of a call that does not fit it what was meant."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        token = _CALLED.set(function)
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # the function has not begun
                raise _unfit(function, args, kwargs) from None
            raise
        finally:
            _CALLED.reset(token)

    return cast(F, called)


def options_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The options of a public function, with their defaults."""
    found = inspect.signature(function).parameters.values()
    return {x.name: x.default for x in found if x.kind is x.KEYWORD_ONLY}


def options_called() -> set[str]:
    """The names of the options of the public function that runs."""
    function = _CALLED.get()
    return set() if function is None else set(options_of(function))


def meant(name: str, options: set[str]) -> str:
    """What a name that is none of these options was to be, as a sentence with a space in front; empty where nobody knows."""
    habits = [*(option for option, names in _HABITS.items() if name in names.split()), name]
    for option in habits:
        if option in options:
            return f" Did you mean {_VALUES.get(option, f'{option}=')}?"
    for option in habits:
        if option in _PLACES:
            return f" {_PLACES[option]}."
    close = difflib.get_close_matches(name, sorted(options), 1)
    return f" Did you mean {close[0]}=?" if close else ""


def _unfit(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CallError:
    """The error of a call that does not fit the signature of a public function."""
    signature = inspect.signature(function)
    found = [x for x in signature.parameters.values() if x.name != "self"]
    ahead = [x.name for x in found if x.kind is x.POSITIONAL_ONLY]
    named = {x.name for x in found if x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY)}
    takes_all = any(x.kind is x.VAR_KEYWORD for x in found)
    unknown = [name for name in kwargs if name not in named and not takes_all]
    hint = "".join(meant(name, named) for name in unknown)
    if given := [name for name in ahead if name in kwargs]:
        hint = f" Give {' and '.join(given)} by position, in front, and not by name."
    try:
        signature.bind(*args, **kwargs)
        problem = "the arguments do not fit"
    except TypeError as error:
        problem = f"there is no argument {unknown[0]!r}" if unknown else str(error)
    shown = ", ".join(_shown(x) for x in found)
    return CallError(f"{function.__name__}({shown}): {problem}.{hint}")


def _shown(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    return f"{stars}{parameter.name}{'=' * (parameter.default is not parameter.empty)}"
