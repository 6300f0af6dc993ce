"""Arguments that a program reads in Python: `len(np.unique(x))`, `range(n)`, `if x.max() > 3`.

Arrays among the arguments are traced, and of a traced array nobody knows the numbers. A NumPy array or a Python float that a
program reads is taken for what it is instead, a constant: its contents are then a part of what the program is staged for. Which
ones these are shows when staging fails, and is found by trying: as few as do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ppvi._doors import was_running
from ppvi._source import UNKNOWN
from ppvi.engine.ambient import refuse_ambient
from ppvi.engine.arguments import Constants, copied
from ppvi.engine.evaluations import evaluate
from ppvi.engine.formula import Formula
from ppvi.engine.sessions import Session
from ppvi.engine.stagings import KINDS
from ppvi.errors import EngineError, PpviError
from ppvi.numpyro import _source as source
from ppvi.numpyro._arguments import Structure, is_array, leaf_name, part
from ppvi.numpyro._compat import HANDLERS, Tracer
from ppvi.numpyro._programs import NumPyroPrograms, scope_of
from ppvi.numpyro._world import Worlds

T = TypeVar("T")

READS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


class ReadError(EngineError):
    """A program reads a traced number in Python."""


class Reading:
    """What is known of how an objective's programs read their arguments."""

    def __init__(self, formula: Formula):
        self.formula = formula
        self.worlds = Worlds(objective=formula.program, model=formula.model, guide=formula.guide)
        self.fixed: dict[Any, frozenset[int]] = {}
        """By the structure of arguments, those of their leaves that are read in Python."""


def called(
    bounds: Sequence[Reading],
    call: Callable[[list[Any], Structure], T],
    params: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> T:
    """`call` of the arguments as arrays and structure, those constant whose numbers the programs read."""
    first = bounds[0]
    leaves, tree, fixed, arrays, constants = parted(first, args, kwargs)
    structure = first.worlds.structure(tree, leaves, constants)
    try:
        found = call(arrays, structure)
    except Exception as error:
        if isinstance(error, PpviError) and not isinstance(error, ReadError):
            raise

        free = frozenset(i for i, x in enumerate(leaves) if isinstance(x, np.ndarray | np.generic | float)) - fixed
        goes = functools.partial(_goes, bounds, params, args, kwargs)
        if not free or not goes(fixed | free):
            raise _refusal(error, bounds, params, args, kwargs) from error
        read = needed(goes, sorted(free), fixed)
        if not read:  # it can be staged, and failed for another reason
            raise
        if len(first.fixed) == KINDS:
            first.fixed.clear()
        first.fixed[tree] = fixed | read
    else:
        first.worlds.settle(constants, structure)
        return found
    return called(bounds, call, params, args, kwargs)


class Parted(NamedTuple):
    """The arguments of a call."""

    leaves: list[Any]
    tree: Any
    fixed: frozenset[int]
    """The leaves that are known to be read."""
    arrays: list[Any]
    """Those that are traced."""
    constants: Constants


def parted(bound: Reading, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Parted:
    refuse_ambient(HANDLERS)
    leaves, tree = jax.tree.flatten((args, dict(kwargs)))
    fixed, programs = bound.fixed.get(tree, frozenset()), (bound.formula.model, bound.formula.guide)
    return Parted(leaves, tree, fixed, *part(leaves, fixed, lambda i: leaf_name(programs, args, kwargs, i)))


def needed(goes: Callable[[Collection[int]], bool], places: Sequence[int], known: frozenset[int]) -> frozenset[int]:
    """A smallest part of the places that goes together with those known, where all of them do (Junker 2004)."""
    if goes(known):
        return frozenset()
    if len(places) == 1:
        return frozenset(places)
    left, right = places[: len(places) // 2], places[len(places) // 2 :]
    later = needed(goes, right, known | frozenset(left))
    return later | needed(goes, left, known | later)


def _goes(
    bounds: Sequence[Reading], params: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], fixed: Collection[int]
) -> bool:
    """Whether the objectives run with these leaves of their arguments constant and the others traced."""
    leaves, tree = jax.tree.flatten((args, dict(kwargs)))
    known = {i: copied(x, {}) for i, x in enumerate(leaves) if not is_array(x) or i in fixed}
    arrays = [x for i, x in enumerate(leaves) if i not in known]

    def run(params: Any, arrays: list[Any]) -> Any:
        rest = iter(arrays)
        args, kwargs = jax.tree.unflatten(tree, [known[i] if i in known else next(rest) for i in range(len(leaves))])

        def start(formula: Formula, **options: Any) -> Session:
            scope = scope_of(jax.random.key(0), plain=True)
            return Session(NumPyroPrograms(), params, formula.strategies, scope, **options)

        formulas = [bound.formula for bound in bounds]
        return [evaluate(of, functools.partial(start, of), args, kwargs)[0] for of in formulas]

    try:
        jax.eval_shape(run, params, arrays)
    except Exception:  # whatever a program does that cannot be done with tracers
        return False
    return True


def _refusal(
    error: Exception, bounds: Sequence[Reading], params: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Exception:
    """The error of a program that reads other numbers than those of NumPy arrays."""
    if not isinstance(error, READS):
        return error
    where, names = source.of_error(error), _read_arrays(bounds, params, args, kwargs)
    if names:
        return ReadError(
            f"the program reads the numbers of argument {', '.join(names)} in Python at {where}, and an array of JAX's is "
            f"traced, so that they are not known. Pass a NumPy array, np.asarray(x), which is a constant where a program reads "
            f"it; or compute with jnp.where, lax.cond or a mask."
        )
    place = was_running(error)
    if where == UNKNOWN and not place:
        return ReadError(
            "the program computes with a traced array of an earlier run, which it has kept in a global, a list or an object: "
            "compute it in every run, or pass it as an argument."
        )
    return ReadError(
        f"the program reads a number in Python at {where}{f' ({place})' if place else ''} that depends on parameters, on "
        f"draws or on a traced array. Keep it an array: jnp.where or lax.cond in place of an if or a while, jnp in place of "
        f"NumPy and math, an array in place of a list that it picks from, jnp.where in place of a mask as an index."
    )


def _read_arrays(bounds: Sequence[Reading], params: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """The names of the JAX arrays among the arguments without whose numbers the objectives do not run."""
    given = jax.tree.map(lambda x: np.asarray(x) if _is_known(x) else x, (args, dict(kwargs)))
    leaves = jax.tree.leaves(given)
    places = [i for i, x in enumerate(leaves) if isinstance(x, np.ndarray | np.generic | float)]
    goes = functools.partial(_goes, bounds, params, *given)
    if not goes(places):
        return []
    programs = (bounds[0].formula.model, bounds[0].formula.guide)
    read = needed(goes, places, frozenset())
    return [leaf_name(programs, args, kwargs, i) for i in sorted(read)]


def _is_known(x: Any) -> bool:
    known = isinstance(x, jax.Array) and not isinstance(x, Tracer)
    return known and not jnp.issubdtype(x.dtype, jax.dtypes.extended)
