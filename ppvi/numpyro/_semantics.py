"""What the checks need to know of JAX's operations: how smooth each is, and what it does to single numbers.

One line per operation in a table. An operation that is in no table has no rule, and what depends on it is not proved.
Operations with a body are read into the equations of the body: `custom_jvp_call` is judged by what it computes, and its
derivative rule, where a user wrote it, by the derivative of what it is the rule of.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Literal as Choice

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from ppvi.engine.algebra import DIGITS, ENTRYWISE, keeps, power, real, smoothness_of, truth, whole
from ppvi.ir import Equation, Literal, Loop, Meaning, Origin, Smoothness
from ppvi.numpyro import _compat, _rules as rules
from ppvi.numpyro._contracts import contract
from ppvi.numpyro._derivatives import wrong_rule

INDEPENDENT, SMOOTH, LIPSCHITZ, JUMP = Smoothness

MOVES = frozenset("broadcast_in_dim reshape squeeze transpose expand_dims copy copy_p".split())
"""Operations that move or repeat entries."""

OF_ONE = frozenset("reduce_sum reduce_prod reduce_max reduce_min slice".split())
"""Operations that of one entry make this entry."""

LONGEST = 32
"""Rounds of a loop that are read one by one."""

NAMES = {"add_any": "add", "reduce_sum": "sum", "reduce_max": "greatest", "reduce_min": "greatest"}
"""JAX's names where the algebra of the checks has another."""

_INDEXED = {
    "gather": 1,
    "dynamic_slice": 1,
    "dynamic_update_slice": 2,
    "scatter": 1,
    "scatter-add": 1,
    "scatter-mul": 1,
    "scatter-max": 1,
    "scatter-min": 1,
    "bcoo_dot_general": 1,
}
"""Operations whose operands from this one on are places; a scatter and a product with a sparse matrix have one of them."""

_ORDERED = {"sort": (0, 0), "top_k": (0, 0), "eigh": (1, 0), "svd": (0, 0)}
"""Operations of which one output alone is continuous, in one operand: entries, eigenvalues and singular values in order."""


def meaning(eqn: Any, call: Any, reader: Callable[[], Any]) -> Meaning:
    """The meaning of an equation of a jaxpr.

    **Arguments**

    - `call`: the equation of the outermost call whose body it is in, or itself.
    - `reader`: makes a fresh reader of jaxprs.
    """
    name, whole = eqn.primitive.name, contract(eqn)
    if whole is not None:
        return Meaning(
            whole,
            smoothness_of(whole),
            ENTRYWISE.get(whole),
            origin=lambda: _origin(call.source_info.traceback),
            key=_key(eqn),
        )
    if name in _compat.ONE_RUN or name in _compat.SPELT:
        body = _compat.body(eqn)
        assert body is not None
        users = name in _compat.RULED and not _is_library(body)
        own = functools.partial(wrong_rule, eqn, body) if users else None
        return Meaning(name, inline=functools.partial(inlined, reader, body), own_rule=own)
    if name == "cond":
        return Meaning(name, inline=functools.partial(_branches, reader, eqn))
    if name == "scan":
        return Meaning(
            name, inline=functools.partial(_unrolled, reader, eqn), loop=functools.partial(_scan, reader, eqn)
        )
    if name == "while":
        return Meaning(name, loop=functools.partial(_while, reader, eqn))
    if name == "bitcast_convert_type" and rules.is_float(eqn.outvars[0]):
        name = "random unit"
    if name == "integer_pow" and _is_complex(eqn):
        name = "polynomial" if eqn.params["y"] >= 0 else "power of a complex number"
    return Meaning(
        NAMES.get(name, name),
        smoothness=_smoothness(eqn, name),
        entrywise=entrywise(eqn),
        moves=_moves(eqn),
        table=_table(eqn),
        keyed=True if name.startswith("random_") else None,
        origin=lambda: _origin(call.source_info.traceback),
        key=_key(eqn),
    )


def _table(eqn: Any) -> Choice["clips"] | None:
    name, params = eqn.primitive.name, eqn.params
    single = name == "dynamic_slice" and math.prod(params["slice_sizes"]) == 1
    if name == "gather":
        fill = params["fill_value"]
        single = eqn.invars[1].aval.shape[-1] == 1 and (fill is None or bool(np.isnan(fill)))
    return "clips" if single else None


def _moves(eqn: Any) -> bool:
    name = eqn.primitive.name
    if name in OF_ONE:
        return math.prod(eqn.invars[0].aval.shape) == math.prod(eqn.outvars[0].aval.shape)
    return name in MOVES or (name == "pad" and not any(map(any, eqn.params["padding_config"])))


def _key(eqn: Any) -> Hashable:
    name, params = eqn.primitive.name, tuple(eqn.params.values())
    if name.startswith(("random_", "ppvi_")) or eqn.effects:
        return None
    out = eqn.outvars[0].aval
    try:
        hash(params)
    except TypeError:
        return None
    return name, getattr(out, "shape", None), getattr(out, "dtype", None), params


def _smoothness(eqn: Any, name: str) -> Callable[[int, int], Smoothness] | None:
    if name == "convert_element_type":
        return lambda output, operand: SMOOTH if _keeps(eqn) else JUMP
    if name == "reduce_precision":
        return lambda output, operand: SMOOTH if eqn.params["mantissa_bits"] >= DIGITS else JUMP
    if _compat.applies(eqn):
        return None
    if name in _INDEXED:
        first = _INDEXED[name]
        places = (first,) if name.startswith(("scatter", "bcoo")) else range(first, len(eqn.invars))
        entries = LIPSCHITZ if name in ("scatter-max", "scatter-min") else SMOOTH
        return lambda output, operand: JUMP if operand in places else entries
    if name in _ORDERED:
        # Values in order are continuous; what is carried along, such as their places, is not.
        return lambda output, operand: LIPSCHITZ if (output, operand) == _ORDERED[name] else JUMP
    if name == "custom_linear_solve" and _is_library((solver := _compat.linear_solve(eqn)).solve):
        return lambda output, operand: JUMP if operand < solver.constants else SMOOTH
    return smoothness_of(name)


def _is_complex(eqn: Any) -> bool:
    dtypes = (getattr(var.aval, "dtype", bool) for var in (*eqn.invars, *eqn.outvars))
    return any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in dtypes)


def _keeps(eqn: Any) -> bool:
    return keeps(*map(_digits, (eqn.invars[0].aval.dtype, eqn.outvars[0].aval.dtype)))


def _digits(dtype: Any) -> int | None:
    return jnp.finfo(dtype).nmant if jnp.issubdtype(dtype, jnp.inexact) else None


def entrywise(eqn: Any) -> Callable[..., Any] | None:
    """The operation on single numbers, or None where it is none."""
    name = eqn.primitive.name
    if _is_complex(eqn):
        return None
    if _moves(eqn):
        return np.asarray
    if name == "integer_pow":
        return power(eqn.params["y"])
    if name == "convert_element_type":
        if eqn.outvars[0].aval.dtype == bool:
            return truth
        if not rules.is_float(eqn.outvars[0]):
            return whole
        return real if _keeps(eqn) else None
    return ENTRYWISE.get(name)


# Bodies ---------------------------------------------------------------------------------------------------------------


def inlined(reader: Callable[[], Any], body: Any, operands: Sequence[Any]) -> tuple[Any, Any]:
    inner = reader()
    inner.bind(body, operands)
    inner.read(body.jaxpr)
    return tuple(inner.equations), tuple(inner.atom(var) for var in body.jaxpr.outvars)


def _branches(reader: Callable[[], Any], eqn: Any, operands: Sequence[Any]) -> tuple[Any, Any]:
    """All branches, and a selection among what they return."""
    index, *rest = operands
    equations, results = [], []
    for branch in _compat.branches(eqn):
        inner, returned = inlined(reader, branch, rest)
        equations += inner
        results.append(returned)
    selection = Meaning(
        "select_n", lambda output, operand: SMOOTH if operand else JUMP, entrywise=ENTRYWISE["select_n"]
    )
    outputs = tuple(reader().variable(var) for var in eqn.outvars)
    for var, cases in zip(outputs, zip(*results, strict=True), strict=True):
        equations.append(
            Equation(
                "cond", (index, *cases), (var,), _never, _nowhere(cases, var), lambda: "cond", meaning=lambda: selection
            )
        )
    return tuple(equations), outputs


def _never(*values: Any) -> Any:
    raise AssertionError("an equation of a check is never run")


def _nowhere(cases: Sequence[Any], var: Any) -> Callable[[], Any]:
    same = tuple(range(len(var.shape)))
    return lambda: [[(), *(same for _ in cases)]]


def _unrolled(reader: Callable[[], Any], eqn: Any, operands: Sequence[Any]) -> Any:
    """The rounds of a short loop over constants one after the other, such as those of a polynomial."""
    body, fixed, carried, how = loop = _compat.scan(eqn)
    over = operands[loop.start :]
    if how["length"] > LONGEST or len(eqn.outvars) > carried or not all(isinstance(x, Literal) for x in over):
        return None
    state, equations = list(operands[fixed : loop.start]), []
    rounds = range(how["length"])
    for i in reversed(rounds) if how["reverse"] else rounds:
        entries = [Literal(np.asarray(x.value)[i], x.shape[1:], x.dtype) for x in over]
        inner, state = inlined(reader, body, [*operands[:fixed], *state, *entries])
        equations += inner
    return equations, state


def _scan(reader: Callable[[], Any], eqn: Any) -> Any:
    body, fixed, carried, _ = _compat.scan(eqn)
    return _loop(reader, body, [(i, fixed + i) for i in range(carried)], ())


def _while(reader: Callable[[], Any], eqn: Any) -> Any:
    """The body, to which the constants of the test are added as inputs that it does not use."""
    condition, tested, body, constants = _compat.while_loop(eqn)
    loop = _loop(reader, body, [], ())
    unused = tuple(reader().variable(var) for var in eqn.invars[:tested])
    start = tested + constants
    carried = tuple((i, start + i) for i in range(len(eqn.outvars)))
    test = tuple(i if i < tested else i + constants for i in _read_by(condition.jaxpr))
    return type(loop)((*unused, *loop.inputs), loop.equations, loop.outputs, carried, test)


def _read_by(jaxpr: Any) -> list[int]:
    """The inputs that a test reads."""
    needed = set(map(id, jaxpr.outvars))
    for eqn in reversed(jaxpr.eqns):
        if any(id(var) in needed for var in eqn.outvars):
            needed.update(map(id, eqn.invars))
    return [i for i, var in enumerate(jaxpr.invars) if id(var) in needed]


def _loop(reader: Callable[[], Any], body: Any, carried: Sequence[tuple[int, int]], test: tuple[int, ...]) -> Any:
    inner = reader()
    inputs = tuple(inner.variable(var) for var in body.jaxpr.invars)
    inner.bind(body, inputs)
    inner.read(body.jaxpr)
    outputs = tuple(inner.atom(var) for var in body.jaxpr.outvars)
    return Loop(inputs, tuple(inner.equations), outputs, tuple(carried), test)


# Whose code it is -----------------------------------------------------------------------------------------------------

_PROGRAMS, _SITES = (str(Path(__file__).with_name(name)) for name in ("_programs.py", "_distributions.py"))
_EDGES, _OPS = (str(Path(__file__).with_name(name)) for name in ("_edges.py", "_ops.py"))
_LIBRARIES = tuple(f"{Path(module.__file__ or '').parent}/" for module in (jax, numpyro))


_PPVI = f"{Path(__file__).parents[1]}/"
_LENT = ("custom_derivatives.py", "solves.py")
"""Files of JAX whose functions call those of a user."""


def _is_library(body: Any) -> bool:
    """Whether a function is a library's own."""
    _, path = _compat.written_at(body)
    return path.startswith(_LIBRARIES) and not path.endswith(_LENT)


_DISTRIBUTIONS = f"{_LIBRARIES[1]}distributions/"
_SPECIAL = (f"{_LIBRARIES[0]}_src/scipy/special.py", f"{_LIBRARIES[0]}_src/lax/special.py")


def is_of_a_distribution(eqn: Any) -> bool:
    """Whether a distribution of NumPyro's has asked for it, and no program."""
    traceback = eqn.source_info.traceback
    paths = (frame.file_name for frame in (traceback.frames if traceback else ()))
    return next((path for path in paths if not path.startswith(_LIBRARIES[0])), "").startswith(_DISTRIBUTIONS)


DRAWING = ("sample", "samples", "noise", "pick")
"""By what a strategy, be it a user's own, draws what carries no gradient."""


def _origin(traceback: Any) -> Origin:
    """Whose code it is.

    Of densities only those of sites vouch for something: one that a user asks by hand cuts off what it is given. A sampler may
    call other code, a network for one, which vouches for nothing.
    """
    origin, density, sampler, ours = Origin.OTHER, False, True, True
    for frame in traceback.frames if traceback else ():
        path = frame.file_name
        if path == _EDGES:  # in place of NumPyro's
            continue
        ours = ours and path.startswith((*_LIBRARIES, _PPVI))
        drawn = path == _SITES and frame.function_name.rpartition(".")[2] in DRAWING
        if ours and (drawn or path.startswith(f"{_PPVI}strategies/")):
            origin |= Origin.STRATEGY
        if path == _OPS and frame.function_name.endswith("cancelling"):
            origin |= Origin.SUM
        if path.endswith(_SPECIAL):
            origin |= Origin.SPECIAL
        if path.startswith(_LIBRARIES):
            density = density or path.startswith(_DISTRIBUTIONS)
            sampler = sampler and path.startswith((_LIBRARIES[0], _DISTRIBUTIONS))
            continue
        if sampler and path == _SITES and frame.function_name.endswith(("rsample", "icdf")):
            return origin | Origin.SAMPLER
        if density:
            return origin | (Origin.DENSITY if path == _PROGRAMS else Origin.OTHER)
        sampler = False
    return origin
