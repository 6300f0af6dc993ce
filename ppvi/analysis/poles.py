"""Poles: where an operation that is analytic elsewhere is infinite, jumps, or has no value.

    y = x / |x|  jumps at 0,   log x  ends at 0,   atan2(y, x)  jumps where y = 0 > x

An operation is continuous where its operands are kept away from there, which their bounds tell. Where these do not, it is a
switch like a comparison: a value behind it is asked whether it jumps as the operand passes the pole, as `atan(1 / x)` does
and `exp(-1 / x**2)` does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Range = tuple[float, float]


@dataclass(frozen=True)
class Pole:
    """Which operands meet it, whether bounds of all operands exclude it, and on which side of it numbers are."""

    operands: tuple[int, ...]
    excluded: Callable[..., bool]
    side: Callable[..., Any]


def _nonzero(x: Range) -> bool:
    return x[0] > 0 or x[1] < 0


def _above(end: float) -> Pole:
    return Pole((0,), lambda x: x[0] > end, lambda x: x > end)


def _between(low: float, high: float, closed: bool) -> Pole:
    inside = (lambda x: low <= x[0] and x[1] <= high) if closed else (lambda x: low < x[0] and x[1] < high)
    return Pole((0,), inside, lambda x: (x >= low) * 1 + (x >= high))


def _is_natural(y: Range) -> bool:
    return y[0] == y[1] >= 0 and y[0].is_integer()


def _power_excluded(x: Range, y: Range) -> bool:
    return _is_natural(y) or x[0] > 0 or (x[0] >= 0 and y[0] > 0)


def of_exponent(y: float) -> Pole | None:
    """The pole of an integer power."""
    return None if y >= 0 else Pole((0,), _nonzero, np.sign)


POLES: dict[str, Pole] = {
    "div": Pole((1,), lambda x, y: _nonzero(y), lambda x, y: np.sign(y)),
    "expi": Pole((0,), _nonzero, np.sign),
    "expn": _above(0),
    "log": _above(0),
    "log1p": _above(-1),
    "rsqrt": _above(0),
    "sqrt": Pole((0,), lambda x: x[0] >= 0, lambda x: x >= 0),
    "pow": Pole((0, 1), _power_excluded, lambda x, y: 3 * np.sign(x) + np.sign(y)),
    "tan": Pole((0,), lambda x: -math.pi / 2 < x[0] and x[1] < math.pi / 2, lambda x: np.floor(x / math.pi + 0.5)),
    "atan2": Pole((0, 1), lambda y, x: _nonzero(y) or x[0] > 0, lambda y, x: np.sign(y) * (x <= 0)),
    "acos": _between(-1, 1, closed=True),
    "asin": _between(-1, 1, closed=True),
    "atanh": _between(-1, 1, closed=False),
    "erf_inv": _between(-1, 1, closed=False),
    "ndtri": _between(0, 1, closed=False),
    "acosh": Pole((0,), lambda x: x[0] >= 1, lambda x: x >= 1),
    **dict.fromkeys(("lgamma", "digamma"), Pole((0,), lambda x: x[0] > 0, lambda x: np.minimum(np.ceil(x), 1.0))),
    **dict.fromkeys(("polygamma", "zeta"), Pole((1,), lambda n, x: x[0] > 0, lambda n, x: x > 0)),
    **dict.fromkeys(
        ("igamma", "igammac"), Pole((0, 1), lambda a, x: a[0] > 0 and x[0] >= 0, lambda a, x: (a > 0) & (x >= 0))
    ),
    "regularized_incomplete_beta": Pole(
        (0, 1, 2),
        lambda a, b, x: a[0] > 0 and b[0] > 0 and x[0] >= 0 and x[1] <= 1,
        lambda a, b, x: (a > 0) & (b > 0) & (x >= 0) & (x <= 1),
    ),
    "xlogy": Pole((1,), lambda x, y: y[0] > 0, lambda x, y: y > 0),
}
"""By the name of the operation."""

BENDS: dict[str, Callable[..., bool]] = {
    "sqrt": lambda x: x[0] > 0,
    "cbrt": _nonzero,
    "pow": lambda x, y: _is_natural(y) or x[0] > 0,
    **dict.fromkeys(("acos", "asin"), lambda x: x[0] > -1 and x[1] < 1),
    "acosh": lambda x: x[0] > 1,
    "abs": _nonzero,
    **dict.fromkeys(("max", "min"), lambda x, y: x[0] > y[1] or y[0] > x[1]),
}
"""Operations with a value where they have no derivative, as sqrt(x * x) at 0: whether bounds of all operands exclude that, and
they are smooth."""
