"""The algebra that the checks know: how smooth each operation is, and what it does to single numbers.

One line per operation in a table, by JAX's name for it where JAX has one. An operation that is in no table has no rule, and
what depends on it is not proved.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from ppvi.ir import Smoothness

INDEPENDENT, SMOOTH, LIPSCHITZ, JUMP = Smoothness

ENTRYWISE: dict[str, Callable[..., Any]] = {
    "abs": np.abs, "acos": np.arccos, "acosh": np.arccosh, "add": np.add, "add_any": np.add, "and": np.logical_and,
    "asin": np.arcsin, "asinh": np.arcsinh, "atan": np.arctan, "atan2": np.arctan2, "atanh": np.arctanh,
    "cbrt": np.cbrt, "ceil": np.ceil, "clamp": lambda low, x, high: np.minimum(np.maximum(low, x), high),
    "copy": np.array, "copy_p": np.array, "cos": np.cos, "cosh": np.cosh, "digamma": special.digamma, "div": np.divide,
    "eq": np.equal, "erf": special.erf, "erf_inv": special.erfinv, "erfc": special.erfc, "exp": np.exp, "exp2": np.exp2,
    "expm1": np.expm1, "floor": np.floor, "ge": np.greater_equal, "gt": np.greater, "is_finite": np.isfinite,
    "le": np.less_equal, "log": np.log, "log1p": np.log1p, "logistic": special.expit,
    "lt": np.less, "max": np.maximum, "min": np.minimum, "mul": np.multiply, "ne": np.not_equal, "neg": np.negative,
    "not": np.logical_not, "or": np.logical_or, "pow": np.power, "rem": np.fmod, "round": np.round,
    "rsqrt": lambda x: 1 / np.sqrt(x), "select_n": lambda which, *cases: np.choose(np.asarray(which, int), cases, mode="clip"),
    "sign": np.sign, "sin": np.sin, "sinh": np.sinh, "sqrt": np.sqrt, "square": np.square, "stop_gradient": np.array,
    "sub": np.subtract, "tan": np.tan, "tanh": np.tanh, "xor": np.logical_xor,
    "logaddexp": np.logaddexp, "softplus": lambda x: np.logaddexp(0, x), "trunc": np.trunc, "xlogy": special.xlogy,
    "expi": special.expi, "hypot": np.hypot, "lgamma": lambda x: np.where(np.isneginf(x), np.inf, special.gammaln(x)),
    "erfcx": special.erfcx, "log_ndtr": special.log_ndtr, "ndtri": special.ndtri,
    "ppvi_note": lambda x, *others: x,
}  # fmt: skip
"""Operations on single numbers, in double precision."""

LINEAR: dict[str, tuple[frozenset[int], ...]] = {
    **dict.fromkeys(("add", "sub", "add_any"), (frozenset({0, 1}),)),
    **dict.fromkeys(
        ("neg", "copy", "convert_element_type", "broadcast_in_dim", "sum", "cumsum", "div"), (frozenset({0}),)
    ),
    **dict.fromkeys(("mul", "dot_general"), (frozenset({0}), frozenset({1}))),
    "select_n": (frozenset({1, 2}),),
}
"""Operands in which an operation on real numbers is jointly linear."""

_SMOOTH = frozenset(
    """acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e broadcast_in_dim cbrt cholesky complex
    concatenate conj conv_general_dilated copy copy_p cos cosh cumlogsumexp cumprod cumsum digamma div dot_general erf
    erf_inv erfc exp exp2 expand_dims expm1 fft igamma igammac imag integer_pow lgamma log log1p logistic mul neg not or
    pad polygamma pow random_gamma_grad real reduce_and reduce_or reduce_prod reduce_sum reduce_window_sum
    regularized_incomplete_beta reshape rev rsqrt select_and_gather_add sin sinh slice split sqrt square squeeze stack
    stop_gradient sub tan tanh tile transpose triangular_solve xor zeta ppvi_note
    optimization_barrier random_gamma bessel_i0 bessel_i1 diag diagonal diagonals erfcx expi expm expn gelu layer_norm
    log_ndtr log_softmax logaddexp logsumexp mish mse_loss mvlgamma nll_loss polynomial ndtri sinc softmax softplus
    strict_tril sum tril var xlogy""".split()
)
_LIPSCHITZ = frozenset(
    """abs clamp cummax cummin elu greatest grid_sample huber_loss hypot map_coordinates max min norm reduce_max
    reduce_min reduce_window_max reduce_window_min""".split()
)
_JUMP = frozenset(
    """argmax argmin bitcast_convert_type ceil clz eq flip_a_coin floor ge gt is_finite le lt ne nextafter population_count rem
    round searchsorted shift_left shift_right_arithmetic shift_right_logical sign eq_to le_to lt_to trunc""".split()
)
_ONE_OF_SEVERAL = {"solve": 0, "det": 0, "slogdet": 1}
"""Operations of which one output is smooth, and others are the pivots or the sign that they go with."""
_CLASSES = {name: s for names, s in ((_SMOOTH, SMOOTH), (_LIPSCHITZ, LIPSCHITZ), (_JUMP, JUMP)) for name in names}


def smoothness_of(name: str) -> Callable[[int, int], Smoothness] | None:
    """Of an output in an operand; None where no rule is known."""
    if name == "select_n":
        return lambda output, operand: SMOOTH if operand else JUMP
    if name == "interp":
        return lambda output, operand: (LIPSCHITZ, JUMP, SMOOTH)[operand]
    if name in _ONE_OF_SEVERAL:
        place = _ONE_OF_SEVERAL[name]
        return lambda output, operand: SMOOTH if output == place else JUMP
    if name == "ppvi_note":
        return lambda output, operand: INDEPENDENT if operand else SMOOTH
    found = _CLASSES.get(name)
    return None if found is None else lambda output, operand: found


# One function for each of them, so that formulas can be compared.
@functools.cache
def power(y: int) -> Callable[[Any], Any]:
    return lambda x: np.power(np.asarray(x, float), y)


def truth(x: Any) -> Any:
    return np.asarray(x) != 0


def real(x: Any) -> Any:
    return x * 1.0


DIGITS = 23
"""Binary digits that numbers have: a cast to fewer rounds them."""


def keeps(before: int | None, after: int | None) -> bool:
    """Whether a cast keeps numbers of so many binary digits as they are; None of what are no floats."""
    return before is None or (after is not None and after >= min(DIGITS, before))


def whole(x: Any) -> Any:
    return np.trunc(x * 1.0)
