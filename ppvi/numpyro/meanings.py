"""What the checks need to know of JAX's operations: how smooth each is, and what it does to single numbers.

One line per operation in a table. An operation that is in no table has no rule, and what depends on it is not proved.
Operations with a body are read into the equations of the body: `custom_jvp_call` is judged by what it computes, and its
derivative rule, where a user wrote it, by finite differences.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpyro
from scipy import special

from ppvi.compiler.ir import Equation, Literal, Loop, Meaning, Origin, Smoothness
from ppvi.numpyro import rules
from ppvi.numpyro.derivatives import wrong_rule

INDEPENDENT, SMOOTH, LIPSCHITZ, JUMP = Smoothness

ENTRYWISE: dict[str, Callable[..., Any]] = {
    "abs": np.abs, "acos": np.arccos, "acosh": np.arccosh, "add": np.add, "add_any": np.add, "and": np.logical_and,
    "asin": np.arcsin, "asinh": np.arcsinh, "atan": np.arctan, "atan2": np.arctan2, "atanh": np.arctanh,
    "cbrt": np.cbrt, "ceil": np.ceil, "clamp": lambda low, x, high: np.minimum(np.maximum(low, x), high),
    "copy": np.array, "copy_p": np.array, "cos": np.cos, "cosh": np.cosh, "digamma": special.digamma, "div": np.divide,
    "eq": np.equal, "erf": special.erf, "erf_inv": special.erfinv, "erfc": special.erfc, "exp": np.exp, "exp2": np.exp2,
    "expm1": np.expm1, "floor": np.floor, "ge": np.greater_equal, "gt": np.greater, "is_finite": np.isfinite,
    "le": np.less_equal, "lgamma": special.gammaln, "log": np.log, "log1p": np.log1p, "logistic": special.expit,
    "lt": np.less, "max": np.maximum, "min": np.minimum, "mul": np.multiply, "ne": np.not_equal, "neg": np.negative,
    "not": np.logical_not, "or": np.logical_or, "pow": np.power, "rem": np.fmod, "round": np.round,
    "rsqrt": lambda x: 1 / np.sqrt(x), "select_n": lambda which, *cases: np.choose(np.asarray(which, int), cases),
    "sign": np.sign, "sin": np.sin, "sinh": np.sinh, "sqrt": np.sqrt, "square": np.square, "stop_gradient": np.array,
    "sub": np.subtract, "tan": np.tan, "tanh": np.tanh, "xor": np.logical_xor,
    "ppvi_log_prob": lambda x, *bounds: x, "ppvi_estimate": np.array, "ppvi_because": np.array,
}  # fmt: skip
"""Operations on single numbers, in double precision."""

MOVES = frozenset("broadcast_in_dim reshape squeeze transpose expand_dims copy copy_p".split())
"""Operations that move or repeat entries."""

LONGEST = 32
"""Rounds of a loop that are read one by one."""

NAMES = {"add_any": "add", "reduce_sum": "sum", "reduce_max": "greatest", "reduce_min": "greatest"}
"""JAX's names where the algebra of the checks has another."""

_SMOOTH = frozenset(
    """acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e broadcast_in_dim cbrt cholesky concatenate
    conv_general_dilated copy copy_p cos cosh cumlogsumexp cumprod cumsum digamma div dot_general erf erf_inv erfc exp
    exp2 expand_dims expm1 fft igamma igammac imag integer_pow lgamma log log1p logistic lu mul neg not or pad
    polygamma pow qr random_gamma_grad real reduce_and reduce_or reduce_precision reduce_prod reduce_sum reduce_window_sum
    regularized_incomplete_beta reshape rev rsqrt select_and_gather_add sin sinh slice split sqrt square squeeze stack
    stop_gradient sub tan tanh tile transpose triangular_solve xor zeta ppvi_estimate ppvi_because ppvi_log_prob
    optimization_barrier random_gamma""".split()
)
_LIPSCHITZ = frozenset(
    "abs clamp cummax cummin max min reduce_max reduce_min reduce_window_max reduce_window_min".split()
)
_JUMP = frozenset(
    """argmax argmin bitcast_convert_type ceil clz eq floor ge gt le lt ne nextafter population_count rem round
    shift_left shift_right_arithmetic shift_right_logical sign eq_to le_to lt_to""".split()
)
_CLASSES = {name: s for names, s in ((_SMOOTH, SMOOTH), (_LIPSCHITZ, LIPSCHITZ), (_JUMP, JUMP)) for name in names}

_INDEXED = {
    "gather": 1,
    "dynamic_slice": 1,
    "dynamic_update_slice": 2,
    "scatter": 1,
    "scatter-add": 1,
    "scatter-mul": 1,
}
"""Operations whose operands from this one on are places; a scatter has one of them."""


def meaning(eqn: Any, call: Any, reader: Callable[[], Any]) -> Meaning:
    """The meaning of an equation of a jaxpr.

    **Arguments**

    - `call`: the equation of the outermost call whose body it is in, or itself.
    - `reader`: makes a fresh reader of jaxprs.
    """
    name = eqn.primitive.name
    if name in ("custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint"):
        body = rules.body(eqn)
        assert body is not None
        users = name.startswith("custom") and not any(
            path in body.jaxpr.debug_info.func_src_info for path in _LIBRARIES
        )
        own = functools.partial(wrong_rule, eqn, body) if users else None
        return Meaning(name, inline=functools.partial(_inlined, reader, body), own_rule=own)
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
    return Meaning(
        NAMES.get(name, name),
        smoothness=_smoothness(eqn),
        entrywise=entrywise(eqn),
        moves=name in MOVES,
        origin=lambda: _origin(call.source_info.traceback),
    )


def _smoothness(eqn: Any) -> Callable[[int, int], Smoothness] | None:
    name = eqn.primitive.name
    if (name in ("eq", "ne") and eqn.invars[0] is eqn.invars[1]) or name == "is_finite":
        return lambda output, operand: INDEPENDENT  # whether it is NaN
    if name == "convert_element_type":
        cut = rules.is_float(eqn.invars[0]) and not rules.is_float(eqn.outvars[0])
        return lambda output, operand: JUMP if cut else SMOOTH
    if name == "select_n":
        return lambda output, operand: SMOOTH if operand else JUMP
    if name in _INDEXED:
        first = _INDEXED[name]
        places = (first,) if name.startswith("scatter") else range(first, len(eqn.invars))
        return lambda output, operand: JUMP if operand in places else SMOOTH
    if name in ("sort", "top_k"):
        # Values in order are continuous; what is carried along, such as their places, is not.
        return lambda output, operand: LIPSCHITZ if output == operand == 0 else JUMP
    found = _CLASSES.get(name)
    return None if found is None else lambda output, operand: found


def entrywise(eqn: Any) -> Callable[..., Any] | None:
    """The operation on single numbers, or None where it is none."""
    name = eqn.primitive.name
    if name in MOVES:
        return np.asarray
    if name == "integer_pow":
        return _power(eqn.params["y"])
    if name == "convert_element_type":
        if eqn.outvars[0].aval.dtype == bool:
            return _truth
        return _real if rules.is_float(eqn.outvars[0]) else _whole
    return ENTRYWISE.get(name)


# One function for each of them, so that formulas can be compared.
@functools.cache
def _power(y: int) -> Callable[[Any], Any]:
    return lambda x: np.power(np.asarray(x, float), y)


def _truth(x: Any) -> Any:
    return np.asarray(x) != 0


def _real(x: Any) -> Any:
    return x * 1.0


def _whole(x: Any) -> Any:
    return np.trunc(x * 1.0)


# Bodies ---------------------------------------------------------------------------------------------------------------


def _inlined(reader: Callable[[], Any], body: Any, operands: Sequence[Any]) -> tuple[Any, Any]:
    inner = reader()
    inner.bind(body, operands)
    inner.read(body.jaxpr)
    return tuple(inner.equations), tuple(inner.atom(var) for var in body.jaxpr.outvars)


def _branches(reader: Callable[[], Any], eqn: Any, operands: Sequence[Any]) -> tuple[Any, Any]:
    """All branches, and a selection among what they return."""
    index, *rest = operands
    equations, results = [], []
    for branch in eqn.params["branches"]:
        inner, returned = _inlined(reader, branch, rest)
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
    fixed, carry = eqn.params["num_consts"], eqn.params["num_carry"]
    over = operands[fixed + carry :]
    if eqn.params["length"] > LONGEST or len(eqn.outvars) > carry or not all(isinstance(x, Literal) for x in over):
        return None
    state, equations = list(operands[fixed : fixed + carry]), []
    rounds = range(eqn.params["length"])
    for i in reversed(rounds) if eqn.params["reverse"] else rounds:
        entries = [Literal(np.asarray(x.value)[i], x.shape[1:], x.dtype) for x in over]
        inner, state = _inlined(reader, eqn.params["jaxpr"], [*operands[:fixed], *state, *entries])
        equations += inner
    return equations, state


def _scan(reader: Callable[[], Any], eqn: Any) -> Any:
    constants, carry = eqn.params["num_consts"], eqn.params["num_carry"]
    return _loop(reader, eqn.params["jaxpr"], [(i, constants + i) for i in range(carry)], ())


def _while(reader: Callable[[], Any], eqn: Any) -> Any:
    """The body, to which the constants of the test are added as inputs that it does not use."""
    tested, constants = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    loop = _loop(reader, eqn.params["body_jaxpr"], [], ())
    unused = tuple(reader().variable(var) for var in eqn.invars[:tested])
    start = tested + constants
    carried = tuple((i, start + i) for i in range(len(eqn.outvars)))
    test = tuple(i if i < tested else i + constants for i in _read_by(eqn.params["cond_jaxpr"].jaxpr))
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

_SESSION, _SITES = (str(Path(__file__).with_name(name)) for name in ("session.py", "distributions.py"))
_LIBRARIES = tuple(f"{Path(module.__file__ or '').parent}/" for module in (jax, numpyro))


_DISTRIBUTIONS = f"{_LIBRARIES[1]}distributions/"
_SPECIAL = (f"{_LIBRARIES[0]}_src/scipy/special.py", f"{_LIBRARIES[0]}_src/lax/special.py")


def _origin(traceback: Any) -> Origin:
    """Whose code it is.

    Of densities only those of sites vouch for something: one that a user asks by hand cuts off what it is given. A sampler may
    call other code, a network for one, which vouches for nothing.
    """
    origin, density, sampler = Origin.OTHER, False, True
    for frame in traceback.frames if traceback else ():
        path = frame.file_name
        if path.endswith(_SPECIAL):
            origin |= Origin.SPECIAL
        if path.startswith(_LIBRARIES):
            density = density or path.startswith(_DISTRIBUTIONS)
            sampler = sampler and path.startswith((_LIBRARIES[0], _DISTRIBUTIONS))
            continue
        if sampler and path == _SITES and frame.function_name.endswith(("rsample", "icdf")):
            return origin | Origin.SAMPLER
        if density:
            return origin | (Origin.DENSITY if path == _SESSION else Origin.OTHER)
        sampler = False
    return origin
