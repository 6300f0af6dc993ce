"""What a program states by the primitives of its library, sites, plates and parameters, and what is wrong with that.

A library looks late at what it is given, or not at all. What reaches a run is looked at where the run is told of it. What the
library has failed at shows in the call of its primitive which the error has come through, for that has its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppvi._doors import described, whole
from ppvi._source import Call, last_call
from ppvi.engine.calls import uneven_arguments
from ppvi.engine.distributions import masks
from ppvi.errors import ProgramError


@dataclass(frozen=True)
class Library:
    """What a library's statements are made of."""

    name: str
    code: tuple[str, ...]
    """How the paths of files begin that are not the user's."""
    distribution: type
    constraint: type
    onto: Callable[[Any], Callable[[Any], Any]]
    """From a constraint to a bijection from unconstrained values, or a `NotImplementedError`."""


def constraint_name(constraint: Any) -> str:
    """A constraint as a person names it: `positive`, where the frameworks have `Positive(lower_bound=0.0)`."""
    inner = getattr(constraint, "base_constraint", constraint)
    above = type(inner).__name__.strip("_") in ABOVE and np.all(np.asarray(inner.lower_bound) == 0)
    return "positive" if above else str(constraint)


ABOVE = frozenset({"Positive", "GreaterThan", "SoftplusPositive"})
"""Constraints above a bound, as both frameworks name them."""


Beyond = Callable[[str, Any, str], str | None]
"""What is to be said of a site of this name, distribution, and file and line, if it is drawn beyond the support."""


def failed_statement(error: Exception, role: str, library: Library, beyond: Beyond) -> ProgramError | None:
    """What is wrong with the statement that a program's library has failed at, if it has and that is known."""
    where, calls = last_call(error, library.code)
    if not calls or isinstance(error, Warning) or type(error).__module__.startswith("ppvi."):
        return None
    known = calls[0].locals
    if calls[0].function == "deterministic" and "name" in known:
        return named_otherwise("deterministic site", known["name"], role, where)
    if calls[0].function == "factor" and isinstance(known.get("log_factor"), str | bytes):
        at = f"site {known['name']!r} of the {role} at {where}"
        return named_otherwise("site", known["name"], role, where) or given_text(
            at, {"log_factor": known["log_factor"]}
        )
    if calls[0].function in ("sample", "factor"):
        for call in calls:
            if call.function == "sample" and "fn" in call.locals:
                return _failed_site(error, role, where, call.locals, calls, library, beyond)
    if calls[0].function == "param" and "init_value" in known and isinstance(known["init_value"], library.distribution):
        return no_start(f"parameter {known['name']!r} of the {role} at {where}", known["init_value"])
    if calls[0].function == "param" and "name" in known:
        return named_otherwise("parameter", known["name"], role, where)
    if "plate" in {cls.__name__ for cls in type(known.get("self")).__mro__}:
        return _failed_plate(error, role, where, known)
    with suppress(TypeError):  # of arguments that the distribution does not have
        if problem := uneven_arguments(role, where, calls, library.distribution):
            return problem
    return _failed_distribution(role, where, calls)


def named_otherwise(what: str, name: Any, role: str, where: str) -> ProgramError | None:
    """What is wrong with a name, if anything."""
    if isinstance(name, str):
        return None
    call = {
        "site": "sample(name, distribution)",
        "deterministic site": "deterministic(name, value)",
        "parameter": "param(name, value)",
        "plate": "plate(name, size)",
    }[what]
    return ProgramError(
        f"a {what} of the {role} at {where} is named {described(name)}: names are texts and come first, {call}."
    )


def given_text(at: str, arguments: Mapping[str, Any]) -> ProgramError | None:
    """The error of a statement or a distribution among whose arguments is a text."""
    for name, value in arguments.items():
        if isinstance(value, str | bytes):
            return ProgramError(f"{at} is given {described(value)} as its {name}, where numbers are due.")
    return None


def uneven(at: str, what: str, x: Any, batch: Sequence[int]) -> ProgramError | None:
    """The error of a scale or a mask that does not broadcast with the batch shape of the site that it is around."""
    shape = tuple(getattr(x, "shape", ()))
    try:
        np.broadcast_shapes(shape, tuple(batch))
    except ValueError:
        return ProgramError(
            f"{at}: the {what} around it has shape {shape}, and the site batch shape {tuple(batch)}. Give the {what} an entry "
            f"for each row of the site."
        )
    return None


# Sites ------------------------------------------------------------------------------------------------------------------------


def _failed_site(
    error: Exception,
    role: str,
    where: str,
    known: Mapping[str, Any],
    calls: Sequence[Call],
    library: Library,
    beyond: Beyond,
) -> ProgramError | None:
    name, fn, at = known["name"], known["fn"], f"site {known['name']!r} of the {role} at {where}"
    if problem := named_otherwise("site", name, role, where):
        return problem
    if not isinstance(fn, library.distribution):
        if isinstance(fn, type) and issubclass(fn, library.distribution):
            return ProgramError(f"{at} is given {described(fn)}: call it, as in dist.{fn.__name__}(...).")
        home = type(fn).__module__.partition(".")[0]
        foreign = f" of {home}" if home in ("torch", "pyro", "numpyro") and not hasattr(fn, "dtype") else ""
        return ProgramError(
            f"{at} is given {described(fn)}{foreign} where a distribution of {library.name} is due, such as "
            f"dist.Normal(0.0, 1.0) of {library.name.lower()}.distributions."
        )
    if isinstance(known.get("obs"), str | bytes | Mapping | set):
        return ProgramError(f"{at} observes {described(known['obs'])} where numbers are due.")
    if not isinstance(known.get("infer"), Mapping | None):
        return ProgramError(
            f"{at}: infer= is a dict, as in infer={{'strategy': Reparam()}}, not {described(known['infer'])}."
        )
    if any(call.is_ours for call in calls):
        said = beyond(name, fn, where)
        return ProgramError(said) if said else None
    msg: Mapping[str, Any] = next((call.locals["msg"] for call in reversed(calls) if "msg" in call.locals), {})
    frames: Sequence[Any] = msg.get("cond_indep_stack", ())
    for frame in frames:
        if problem := _no_axis(frame.name, frame.dim, role, where):
            return problem
    rows = {frame.dim: frame.size for frame in frames if frame.dim is not None}
    plates = tuple(rows.get(axis, 1) for axis in range(min(rows, default=0), 0))
    for mask, _ in masks(msg.get("fn")):
        if problem := uneven(at, "mask", mask, plates):
            return problem
    around = listed_plates((frame.name, frame.size, frame.dim) for frame in frames)
    return ProgramError(
        f"{at}, a {kind_of(fn)} of batch shape {tuple(fn.batch_shape)} and event shape {tuple(fn.event_shape)}, does not fit "
        f"what is around it{around}: {_first_line(error)}"
    )


def kind_of(fn: Any) -> str:
    """What a person calls a distribution, whatever has been put around it."""
    while type(fn).__name__ in ("ExpandedDistribution", "MaskedDistribution", "Independent"):
        fn = fn.base_dist
    return type(fn).__name__


def listed_plates(plates: Iterable[tuple[str, Any, Any]]) -> str:
    """Plates around a site, by name, size and axis, as a clause of a sentence."""
    found = [f"{name!r} of {size} rows along axis {dim}" for name, size, dim in plates if dim is not None]
    return f", plate{'s' * (len(found) > 1)} {' and '.join(found)}" if found else ""


def _first_line(error: Exception) -> str:
    line = str(error).partition("\n")[0] or type(error).__name__
    return line if len(line) <= 160 else f"{line[:160]}..."


def _failed_distribution(role: str, where: str, calls: Sequence[Call]) -> ProgramError | None:
    """A library that looks at the arguments of a distribution has found one that it cannot take."""
    known = calls[-1].locals
    if not {"self", "param", "value", "constraint"} <= known.keys() or bool(np.isnan(np.asarray(known["value"])).any()):
        return None  # what is NaN is looked for in the data
    return ProgramError(
        f"{type(known['self']).__name__} of the {role} at {where}: its {known['param']} is outside of its constraint, "
        f"{constraint_name(known['constraint'])}. {_INSIDE}"
    )


def refuse_impossible(name: str, fn: Any, role: str, where: str) -> None:
    """Refuse a distribution with an argument that is known to be beyond the bounds of its constraint."""
    if argument := argument_outside(fn, _beyond):
        raise ProgramError(f"site {name!r} of the {role} at {where}, {kind_of(fn)}: {argument}. {_INSIDE}")


def argument_outside(fn: Any, is_outside: Callable[[Any, Any], Any] | None = None) -> str | None:
    """Which argument of a distribution, or of one that it is made of, is outside of its constraint, as a clause of a sentence;
    none of what masks leave out."""
    is_outside, found = is_outside or _outside, None
    while fn is not None:
        if type(fn).__name__ == "MaskedDistribution":
            return None
        for argument, constraint in getattr(fn, "arg_constraints", {}).items():
            if argument in vars(fn) and "Dependent" not in type(constraint).__name__:
                with suppress(Exception):  # of an argument that is traced, or is no array, nothing is said
                    if bool(is_outside(getattr(fn, argument), constraint).any()):
                        found = found or f"its {argument} is outside of its constraint, {constraint_name(constraint)}"
        fn = vars(fn).get("base_dist")
    return found


def _outside(value: Any, constraint: Any) -> Any:
    """Where a value is outside of its constraint, and not NaN."""
    return ~getattr(constraint, "check", constraint)(value) & (value == value)


def _beyond(value: Any, constraint: Any) -> Any:
    """Where a value is beyond the bounds of its constraint, and not only by rounding."""
    constraint = getattr(constraint, "base_constraint", constraint)
    ends = (getattr(constraint, end, None) for end in ("lower_bound", "upper_bound"))
    value, lower, upper = (x if x is None or hasattr(x, "detach") else np.asarray(x) for x in (value, *ends))
    value = value + 0.0  # of PyTorch as it is; of JAX by NumPy, for which nothing is compiled
    beyond = value < -math.inf
    beyond = beyond if lower is None else beyond | (value < lower - ROUNDING)
    return beyond if upper is None else beyond | (value > upper + ROUNDING)


ROUNDING = 1e-5
_INSIDE = "Functions such as exp, softplus and softmax lead inside, and a parameter keeps to a constraint= of its own."


def axes_counted_often(batch: Sequence[int], value: Sequence[int], plates: Container[int]) -> list[int]:
    """The axes of a log_prob along which data are broadcast that nobody has meant to be.

    Either no plate is along the axis, and the data are of more than one number; or one is of as many rows as the data have
    along another axis, which no plate is along.

    **Arguments**

    - `batch`, `value`: the shapes of the log_prob, and of the data without the axes of an event.
    - `plates`: the axes that plates are along.
    """
    sizes = {i: value[i] for i in range(-len(value), 0)}
    rows = {size for i, size in sizes.items() if i not in plates}
    lacks = [i for i in range(-len(batch), 0) if batch[i] > 1 and sizes.get(i, 1) == 1]
    return [i for i in lacks if math.prod(value) > 1 and (i not in plates or batch[i] in rows)]


def counted_often(
    name: str, fn: Any, shape: Sequence[int], batch: Sequence[int], axes: Sequence[int], role: str, where: str
) -> str:
    """What is to be said of data that broadcasting counts many times."""
    return (
        f"site {name!r} of the {role} at {where} observes a value of shape {tuple(shape)} under {kind_of(fn)} of batch shape "
        f"{tuple(batch)}, so that each datum counts {math.prod(batch[i] for i in axes)} times, along axis "
        f"{', '.join(map(str, axes))}. Take away an axis that is too many, as by loc.squeeze(-1), or put a plate around the "
        f"site for one that is meant."
    )


# Plates -----------------------------------------------------------------------------------------------------------------------


def refuse_plate(name: Any, size: Any, count: Any, role: str, where: str, dim: Any = None) -> None:
    """Refuse a plate of no whole number of rows, or with an axis that is none."""
    at = f"plate {name!r} of the {role} at {where}"
    if problem := named_otherwise("plate", name, role, where):
        raise problem
    if (rows := whole(size)) is None or rows < 1:
        raise ProgramError(f"{at}: its size must be an int of at least 1, not {described(size)}.")
    if count is not None and not 1 <= (whole(count) or 0) <= rows:
        raise ProgramError(f"{at}: its subsample_size must be an int from 1 to {size}, not {described(count)}.")
    if problem := _no_axis(name, dim, role, where):
        raise problem


def _no_axis(name: str, dim: Any, role: str, where: str) -> ProgramError | None:
    if dim is None or (whole(dim) or 0) < 0:
        return None
    return ProgramError(
        f"plate {name!r} of the {role} at {where}: its dim must be an int below zero, which counts the batch axes from the "
        f"right, such as -1, not {described(dim)}."
    )


def refuse_plates(names: Sequence[Any], site: str, role: str, where: str) -> None:
    """Refuse plates around a site that have no name, or the same."""
    for i, name in enumerate(names):
        if problem := named_otherwise("plate", name, role, where):
            raise problem
        if name in names[:i]:
            raise ProgramError(
                f"site {site!r} of the {role} at {where} is in plate {name!r} twice: give plates around each other different "
                f"names."
            )


def _failed_plate(error: Exception, role: str, where: str, known: Mapping[str, Any]) -> ProgramError:
    stated = {name: getattr(known["self"], name, None) for name in ("name", "size", "dim")} | dict(known)
    name, size, dim = (stated[x] for x in ("name", "size", "dim"))
    try:
        refuse_plate(name, size, stated.get("subsample_size"), role, where, dim)
    except ProgramError as problem:
        return problem
    axis = "" if dim is None else f", along axis {dim},"
    return ProgramError(
        f"plate {name!r} of the {role} at {where} of {size} rows{axis} does not fit the plates around it: give each a name and "
        f"a dim of its own, such as dim=-2 ({_first_line(error)})."
    )


# Parameters -------------------------------------------------------------------------------------------------------------------


class DiscreteParameterError(ProgramError, NotImplementedError):
    """A parameter's constraint has no transform, as that of a point of a discrete site has none."""


def refuse_parameter(
    name: Any, value: Any, constraint: Any, role: str, where: str, leaves: Callable[[Any], Any], library: Library
) -> None:
    """Refuse what a parameter cannot be declared with; a function makes its value later."""
    if problem := named_otherwise("parameter", name, role, where):
        raise problem
    at = f"parameter {name!r} of the {role} at {where}"
    if not isinstance(constraint, library.constraint | None):
        raise ProgramError(
            f"{at}: its constraint must be one of {library.name.lower()}.distributions.constraints, such as "
            f"constraints.positive or constraints.interval(0.0, 1.0), not {described(constraint)}."
        )
    try:
        if constraint is not None:
            library.onto(constraint)
    except NotImplementedError:
        raise DiscreteParameterError(
            f"{at}: its constraint, {constraint}, has no transform, and a gradient moves a parameter continuously: make it "
            f"real, positive, in an interval, a simplex or another constraint that has one."
        ) from None
    if not callable(value) or isinstance(value, library.distribution):
        refuse_initial(at, value, leaves)


def refuse_initial(at: str, value: Any, leaves: Callable[[Any], Any]) -> None:
    """Refuse an initial value that has no gradient."""
    if isinstance(value, list | tuple) and all(isinstance(x, int | float) for x in value):
        raise no_start(at, value, "make an array of its numbers")
    for leaf in leaves(value):
        kind = str(getattr(leaf, "dtype", type(leaf).__name__)).removeprefix("torch.")
        if not kind.startswith(("float", "bfloat")):
            whole = kind.startswith(("int", "uint", "bool"))
            raise no_start(at, leaf, "a whole number has no gradient, so write 1.0 for 1" if whole else None)


def no_start(at: str, value: Any, remedy: str | None = None) -> ProgramError:
    """The error of an initial value that is none."""
    return ProgramError(
        f"{at} starts from {described(value)}: {remedy or 'an initial value is real numbers, in an array'}."
    )


def refuse_start(
    at: str, value: Sequence[np.ndarray] | None, there: Sequence[np.ndarray] | None, constraint: Any
) -> None:
    """Refuse an initial value that is not finite or outside of its constraint.

    **Arguments**

    - `value`: its arrays; None where they are traced.
    - `there`: the values in the constraint that stand for it; None where it is known to be inside.
    """
    for i, x in enumerate(value or ()):
        if not np.isfinite(x).all():
            raise ProgramError(f"{at} starts from NaN or infinity: give it a finite value.")
        if there is not None and not np.allclose(x, there[i], rtol=1e-3, atol=1e-3):
            raise ProgramError(
                f"{at} starts outside of its constraint, {constraint_name(constraint)}: give its initial value on the "
                f"constrained scale, such as 1.0 and not log(1.0) of a scale."
            )
