"""What is wrong with a call of a user's program, or of a distribution in it, where it has failed: arguments that it does not
take, or that do not go together, or a guide of a library that cannot be made of the model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ppvi._doors import listed
from ppvi._options import meant, options_called, options_of
from ppvi._source import Call
from ppvi.engine.names import Said
from ppvi.errors import ProgramError

_INNER = {"AutoGuide": "model", "Messenger": "fn", "ReparamHandler": "fn", "Module": "forward"}
"""By the names of classes, in which attribute is that which they call with the arguments that they get."""


def misfit(fn: Callable[..., Any], role: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ProgramError | None:
    """What is wrong with the arguments of a program, if anything."""
    called = _called(fn)
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        takes_all = any(x.kind is x.VAR_KEYWORD for x in signature.parameters.values())
        unknown = [name for name in kwargs if name not in signature.parameters and not takes_all]
        name, options = name_of(called), options_called()
        said = role if role.endswith(f" {name}") else f"{role} {name}"
        missing = [x for x in signature.parameters.values() if x.default is x.empty and x.name in options]
        if missing and missing[0].name not in kwargs:
            return ProgramError(
                f"the {said}{signature} cannot be called with these arguments: {error}. "
                f"{missing[0].name!r} is the name of an option too: give the programs their arguments by objective.on(...)."
            )
        problem = f"it has no argument {unknown[0]!r}" if unknown else f"{error}"
        hint = meant(unknown[0], options) if unknown else ""
        hint = hint or " What follows the key, or the params, is passed to both programs: give them what both take."
        return ProgramError(f"the {said}{signature} cannot be called with these arguments: {problem}.{hint}")
    return None


def taken_by(fn: Callable[..., Any]) -> set[str]:
    """The names of the arguments of a program."""
    return {x.name for x in parameters_of(fn) if x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)}


def parameters_of(fn: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    """What a program takes, in order; nothing where it does not say."""
    try:
        return tuple(inspect.signature(_called(fn)).parameters.values())
    except (TypeError, ValueError):
        return ()


def own_options(objectives: Iterable[Any], called: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """The options among what a verb was called with.

    **Raises** `ProgramError` for one that the programs have an argument of the name of: nobody knows whose it is.
    """
    verb, defaults = function.__name__, options_of(function)
    given = {name for name, default in defaults.items() if called[name] is not default}
    for bound in objectives:
        for role in ("model", "guide"):
            taken = given & taken_by(getattr(bound, role)) if not (bound.args or bound.kwargs) else set()
            for name in sorted(taken):
                raise ProgramError(
                    f"{verb}: {name}= is an option of {verb} and an argument of the {role} {name_of(getattr(bound, role))}: "
                    f"give the programs their data by {_on_data(verb)}, so that {name}= is the option alone."
                )
    return {name: called[name] for name in defaults}


def _on_data(verb: str) -> str:
    return "objective.on(...).check(key, params)" if verb == "check" else f"{verb}(objective.on(...), ...)"


def model_of(fn: Callable[..., Any]) -> Callable[..., Any] | None:
    """The model that a guide of a library is made of by itself."""
    model = getattr(fn, "model", None) if "AutoGuide" in _kinds(fn) else None
    if (
        isinstance(model, functools.partial) and model.args and "InitMessenger" in _kinds(model.args[0])
    ):  # around it on Pyro
        return model.args[1]
    return model


def refuse_laplace(guide: Callable[..., Any]) -> None:
    """What is fitted of a Laplace approximation is its mode, and draws of that are not draws of the approximation."""
    if "AutoLaplaceApproximation" in _kinds(guide):
        raise ProgramError(
            "posterior: AutoLaplaceApproximation is a point while it is fitted, and its normal distribution is made "
            "afterwards, by guide.sample_posterior(key, fit.params) of NumPyro or guide.laplace_approximation(*args) of Pyro. "
            "Draw from that, or fit AutoMultivariateNormal."
        )


def left_out(guide: Callable[..., Any], discrete: Mapping[str, Said]) -> ProgramError:
    """The error of a guide that is made of a model with discrete sites."""
    name, kind = next(iter(discrete)), type(guide).__name__
    others = f"{kind}(block(model, hide=[{listed(discrete)}]))"
    what_to_do = f"{draw_by_hand()[:-1]}, which may call {others} for the others."
    if all(said.finite for said in discrete.values()):
        what_to_do = (
            f"Let {others} guide the others, and these are summed out of the model, exactly. Or d{draw_by_hand()[1:]}"
        )
    return ProgramError(
        f"{kind} is a guide of continuous sites, and the model samples {listed(discrete)} from a discrete distribution, "
        f"{name!r} {discrete[name]}. {what_to_do}"
    )


def draw_by_hand() -> str:
    """What to do about discrete sites that no guide draws."""
    return "Draw discrete sites in a guide of your own, by a strategy such as Enumerate() or LeaveOneOut()."


def without_beginning(guide: Callable[..., Any]) -> ProgramError:
    """The error of a guide that is made of a model and finds no point to begin at."""
    kind = type(guide).__name__
    return ProgramError(
        f"{kind} finds no point at which its model has a density and a gradient. While it looks, sites that block hides are "
        f"drawn once; where some draws of these leave the data impossible, hide the data too, {kind}(block(model, "
        f"hide=[those sites and the observed ones])), for the guide needs neither. Or begin elsewhere, by init_loc_fn."
    )


def name_of(fn: Any) -> str:
    """What a person calls a program."""
    return name_of(fn.func) if isinstance(fn, functools.partial) else getattr(fn, "__name__", type(fn).__name__)


def _called(fn: Any) -> Any:
    if isinstance(fn, functools.partial) and any("Messenger" in _kinds(x) for x in fn.args[:1]):
        return _called(fn.args[1])  # Pyro's handlers
    for kind, inner in _INNER.items():
        if kind in _kinds(fn) and callable(getattr(fn, inner, None)):
            return _called(getattr(fn, inner))
    return fn


def _kinds(fn: Any) -> set[str]:
    return {cls.__name__ for cls in type(fn).__mro__}


def uneven_arguments(role: str, where: str, calls: Sequence[Call], distribution: type) -> ProgramError | None:
    """The error of a distribution whose arguments do not broadcast."""
    made = (call.locals for call in calls if call.function == "__call__" and isinstance(call.locals.get("cls"), type))
    known = next((x for x in made if issubclass(x["cls"], distribution)), None)
    if known is None:
        return None
    given, rules = (
        known["cls"].__signature__.bind(*known["args"], **known["kwargs"]).arguments,
        known["cls"].arg_constraints,
    )
    shapes = {name: tuple(x.shape) for name, x in given.items() if name in rules and hasattr(x, "shape")}
    try:
        np.broadcast_shapes(*(x[: len(x) - getattr(rules[name], "event_dim", 0)] for name, x in shapes.items()))
    except ValueError:
        told = " and ".join(f"{name} has shape {shape}" for name, shape in shapes.items())
        what = f"{known['cls'].__name__} of the {role} at {where}"
        return ProgramError(f"{what}: {told}, which do not go together. Give them one shape, or axes of size 1.")
    return None
