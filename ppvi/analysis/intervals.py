"""Intervals: the bounds of what an operation returns, from the bounds of what it is given.

    [a, b] + [c, d] = [a + c, b + d]

An open end is the next number inside: what is above 0 is at least the smallest number there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special

from ppvi.analysis.poles import Range
from ppvi.ir import Support

EVERYTHING: Range = (-math.inf, math.inf)
TINY = math.ulp(0.0)
POSITIVE: Range = (TINY, math.inf)
BELOW_ONE = 1 - math.ulp(0.5)
"""The end of an open interval: what is below 1 has a difference from 1."""


def _monotone(function: Callable[[float], float]) -> Callable[[Range], Range]:
    return lambda x: (function(x[0]), function(x[1]))


def _products(x: Range, y: Range) -> Range:
    found = [0.0 if 0.0 in (a, b) else a * b for a in x for b in y]
    return min(found), max(found)


def _reciprocal(x: Range) -> Range:
    if x[0] <= 0 <= x[1]:
        return EVERYTHING
    return (0.0 if math.isinf(x[1]) else _inverse(x[1])), (0.0 if math.isinf(x[0]) else _inverse(x[0]))


def _inverse(x: float) -> float:
    return 1 / x if abs(x) > 1e-300 else math.copysign(math.inf, x)


def _quotient(x: Range, y: Range) -> Range:
    low, high = _products(x, _reciprocal(y))
    return (max(low, TINY), high) if x[0] > 0 and y[0] > 0 else (low, high)


def _product(x: Range, y: Range) -> Range:
    low, high = _products(x, y)
    return (max(low, TINY), high) if x[0] > 0 and y[0] > 0 else (low, high)


def _absolute(x: Range) -> Range:
    low = 0.0 if x[0] <= 0 <= x[1] else min(abs(x[0]), abs(x[1]))
    return low, max(abs(x[0]), abs(x[1]))


def square(x: Range) -> Range:
    low, high = _absolute(x)
    return (max(low * low, TINY) if low > 0 else 0.0), high * high


def _total(x: Range, y: Range) -> Range:
    return _moved(x[0], y[0], 1), _moved(x[1], y[1], -1)


def _moved(x: float, y: float, sign: int) -> float:
    """A sum of two ends, inside of either where the other is so, however little."""
    inside = (x + y == y and sign * x > 0) or (x + y == x and sign * y > 0)
    return inward(x + y, sign) if inside else x + y


def _sum(x: Range) -> Range:
    return (x[0] if x[0] > 0 else 0.0 if x[0] == 0 else -math.inf, 0.0 if x[1] <= 0 else math.inf)


def _many(x: Range) -> Range:
    """A product of some of these numbers."""
    if x[0] >= 0 and x[1] <= 1:
        return (TINY if x[0] > 0 else 0.0), x[1]
    return POSITIVE if x[0] > 0 else (0.0, math.inf) if x[0] == 0 else EVERYTHING


def _exp(x: float) -> float:
    return math.inf if x > 700 else max(math.exp(x), TINY)


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _log1p(x: float) -> float:
    return math.log1p(x) if x > -1 else -math.inf


def _root(x: float) -> float:
    return math.sqrt(max(x, 0.0))


def _clamp(low: Range, x: Range, high: Range) -> Range:
    return min(max(x[0], low[0]), high[0]), min(max(x[1], low[1]), high[1])


def _power(x: Range, y: Range) -> Range:
    whole = y[0] == y[1] and math.isfinite(y[0]) and y[0].is_integer()
    return POSITIVE if x[0] > 0 else (0.0, math.inf) if x[0] >= 0 or (whole and y[0] % 2 == 0) else EVERYTHING


def _cosh(x: float) -> float:
    return math.inf if x > 700 else math.cosh(x)


def _sine(x: Range) -> Range:
    """What it is at the ends, and at the turns between them."""
    if not all(map(math.isfinite, x)):
        return -1.0, 1.0

    def turns(place: float) -> bool:
        first, last = (math.floor((end - place) / (2 * math.pi)) for end in x)
        return first != last

    ends = math.sin(x[0]), math.sin(x[1])
    return -1.0 if turns(-math.pi / 2) else min(ends), 1.0 if turns(math.pi / 2) else max(ends)


RANGES: dict[str, Callable[..., Range]] = {
    "exp": lambda x: (_exp(x[0]), min(_exp(x[1]), BELOW_ONE) if x[1] < 0 else _exp(x[1])),
    "exp2": _monotone(lambda x: _exp(x * math.log(2))),
    "expm1": lambda x: (math.expm1(x[0]) if x[0] > -30 else -BELOW_ONE, math.expm1(x[1]) if x[1] < 700 else math.inf),
    "logistic": lambda x: (max(1 / (1 + _exp(-x[0])), TINY), min(1 / (1 + _exp(-x[1])), BELOW_ONE)),
    "tanh": lambda x: (max(math.tanh(x[0]), -BELOW_ONE), min(math.tanh(x[1]), BELOW_ONE)),
    "erf": lambda x: (max(math.erf(x[0]), -BELOW_ONE), min(math.erf(x[1]), BELOW_ONE)),
    "erfc": lambda x: (max(math.erfc(x[1]), TINY), min(math.erfc(x[0]), 2 * BELOW_ONE)),
    "atan": _monotone(math.atan),
    "asin": _monotone(lambda x: math.asin(max(-1.0, min(x, 1.0)))),
    "acos": lambda x: (math.acos(max(-1.0, min(x[1], 1.0))), math.acos(max(-1.0, min(x[0], 1.0)))),
    "cos": lambda x: _sine((x[0] + math.pi / 2, x[1] + math.pi / 2)),
    "sin": lambda x: _sine(x),
    "cosh": lambda x: (_cosh(_absolute(x)[0]), _cosh(_absolute(x)[1])),
    "sinh": _monotone(lambda x: math.copysign(math.inf, x) if abs(x) > 700 else math.sinh(x)),
    "asinh": _monotone(lambda x: x if math.isinf(x) else math.asinh(x)),
    "acosh": _monotone(lambda x: x if math.isinf(x) else math.acosh(max(x, 1.0))),
    "atanh": _monotone(lambda x: math.copysign(math.inf, x) if abs(x) > BELOW_ONE else math.atanh(x)),
    "erf_inv": _monotone(lambda x: math.copysign(math.inf, x) if abs(x) > BELOW_ONE else float(special.erfinv(x))),
    "ndtri": _monotone(lambda x: float(special.ndtri(max(0.0, min(x, 1.0))))),
    "log": _monotone(_log),
    "log1p": _monotone(_log1p),
    "sqrt": _monotone(_root),
    "rsqrt": lambda x: _quotient((1.0, 1.0), (_root(x[0]), _root(x[1]))) if x[0] > 0 else (0.0, math.inf),
    "cbrt": _monotone(lambda x: x if math.isinf(x) else math.cbrt(x)),
    "square": square,
    "abs": _absolute,
    "neg": lambda x: (-x[1], -x[0]),
    "sum": _sum,
    "cumsum": lambda x: (min(x[0], _sum(x)[0]) if x[0] <= 0 else x[0], max(x[1], _sum(x)[1])),
    "reduce_prod": _many,
    "cumprod": _many,
    **dict.fromkeys(("diag", "diagonals"), lambda x: (min(x[0], 0.0), max(x[1], 0.0))),
    "softplus": _monotone(lambda x: x if x > 30 else max(math.log1p(_exp(x)), TINY)),
    "norm": lambda x: (0.0, math.inf),
    "var": lambda x: (0.0, math.inf),
    "softmax": lambda x: (TINY, 1.0),
    "log_softmax": lambda x: (-math.inf, 0.0),
    "floor": _monotone(lambda x: x if math.isinf(x) else float(math.floor(x))),
    "ceil": _monotone(lambda x: x if math.isinf(x) else float(math.ceil(x))),
    "round": _monotone(lambda x: x if math.isinf(x) else float(round(x))),
    "trunc": _monotone(lambda x: x if math.isinf(x) else float(math.trunc(x))),
    "random unit": lambda x: (1.0, 2.0),  # random bits are cast to a number from here, of which 1 is taken
    "sign": lambda x: (float(np.sign(x[0])), float(np.sign(x[1]))),
    **dict.fromkeys(
        """greatest copy stop_gradient slice gather dynamic_slice rev cummax cummin split reduce_precision ppvi_note""".split(),
        lambda x, *others: x,
    ),
    "add": _total,
    "sub": lambda x, y: _total(x, (-y[1], -y[0])),
    "mul": _product,
    "dot_general": lambda x, y: _sum(_product(x, y)),
    "div": _quotient,
    "max": lambda x, y: (max(x[0], y[0]), max(x[1], y[1])),
    "min": lambda x, y: (min(x[0], y[0]), min(x[1], y[1])),
    "pow": _power,
    "clamp": _clamp,
    "logaddexp": lambda x, y: (inward(max(x[0], y[0]), 1), math.inf),
    "hypot": lambda x, y: (max(_absolute(x)[0], _absolute(y)[0]), math.inf),
}
"""Bounds of what an operation returns, from those of its operands."""


def interval(support: Support, closed: bool = False) -> Range:
    """Bounds of what has this support; draws are inside of it, but probabilities may be at closed ends."""
    lower = -math.inf if support.lower is None else support.lower
    upper = math.inf if support.upper is None else support.upper
    if support.name.lower() == "simplex" and closed:
        return 0.0, 1.0
    if support.name.lower() == "simplex" or (support.kind, lower, upper) == ("real", 0, 1):
        return TINY, BELOW_ONE
    return (inward(lower, 1), inward(upper, -1)) if support.kind == "real" else (lower, upper)


def inward(end: float, sign: int) -> float:
    """The first number inside of an open end."""
    if math.isinf(end):
        return end
    return TINY if (end, sign) == (0, 1) else math.nextafter(end, sign * math.inf)


def integer_power(x: Range, y: float) -> Range:
    if y < 0:
        return _quotient((1.0, 1.0), integer_power(x, -y))
    low, high = _absolute(x) if y % 2 == 0 else x

    def power(end: float) -> float:
        try:
            return math.copysign(abs(end) ** y, end)
        except OverflowError:
            return math.copysign(math.inf, end)

    return (max(power(low), TINY) if low > 0 else power(low)), power(high)
