"""Ranges: between which bounds a value lies, as far as interval arithmetic can tell.

It decides comparisons that look as if they could go either way and cannot, such as whether a probability is positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ppvi.compiler.flat import Step
from ppvi.compiler.ir import Atom, Literal, Support, Var

Range = tuple[float, float]
EVERYTHING: Range = (-math.inf, math.inf)
TINY = math.ulp(0.0)
POSITIVE: Range = (TINY, math.inf)


def _monotone(function: Callable[[float], float]) -> Callable[[Range], Range]:
    return lambda x: (function(x[0]), function(x[1]))


def _products(x: Range, y: Range) -> Range:
    found = [0.0 if 0.0 in (a, b) else a * b for a in x for b in y]
    return min(found), max(found)


def _reciprocal(x: Range) -> Range:
    if x[0] <= 0 <= x[1]:
        return EVERYTHING
    return (0.0 if math.isinf(x[1]) else 1 / x[1]), (1 / x[0] if abs(x[0]) > TINY else math.inf)


def _quotient(x: Range, y: Range) -> Range:
    if x[0] > 0 and y[0] > 0:
        return POSITIVE
    return _products(x, _reciprocal(y)) if y[0] > 0 else EVERYTHING


def _product(x: Range, y: Range) -> Range:
    low, high = _products(x, y)
    return (max(low, TINY), high) if x[0] > 0 and y[0] > 0 else (low, high)


def _absolute(x: Range) -> Range:
    low = 0.0 if x[0] <= 0 <= x[1] else min(abs(x[0]), abs(x[1]))
    return low, max(abs(x[0]), abs(x[1]))


def _sum(x: Range) -> Range:
    return (x[0] if x[0] > 0 else 0.0 if x[0] == 0 else -math.inf, 0.0 if x[1] <= 0 else math.inf)


ONE: dict[str, Callable[[Range], Range]] = {
    "exp": lambda x: (math.exp(min(x[0], 700.0)) or TINY, math.exp(x[1]) if x[1] < 700 else math.inf),
    "logistic": lambda x: (TINY, 1.0),
    "tanh": lambda x: (-1.0, 1.0),
    "erf": lambda x: (-1.0, 1.0),
    "erfc": lambda x: (0.0, 2.0),
    "cos": lambda x: (-1.0, 1.0),
    "sin": lambda x: (-1.0, 1.0),
    "log1p": lambda x: (math.log1p(x[0]) if x[0] > -1 else -math.inf, math.log1p(x[1]) if x[1] > -1 else math.inf),
    "sqrt": lambda x: (math.sqrt(max(x[0], 0.0)), math.sqrt(max(x[1], 0.0))),
    "square": lambda x: _products(_absolute(x), _absolute(x)),
    "abs": _absolute,
    "neg": lambda x: (-x[1], -x[0]),
    "sum": _sum,
    "floor": _monotone(lambda x: x if math.isinf(x) else float(math.floor(x))),
    "random unit": lambda x: (1.0, 2.0),  # random bits are cast to a number from here, of which 1 is taken
    "sign": lambda x: (float(np.sign(x[0])), float(np.sign(x[1]))),
    **dict.fromkeys(
        """greatest copy convert_element_type stop_gradient slice gather dynamic_slice rev sort cummax cummin
        ppvi_log_prob ppvi_estimate ppvi_because""".split(),
        _monotone(lambda x: x),
    ),
}
"""Of the first operand."""

TWO: dict[str, Callable[[Range, Range], Range]] = {
    "add": lambda x, y: (x[0] + y[0], x[1] + y[1]),
    "sub": lambda x, y: (x[0] - y[1], x[1] - y[0]),
    "mul": _product,
    "div": _quotient,
    "max": lambda x, y: (max(x[0], y[0]), max(x[1], y[1])),
    "min": lambda x, y: (min(x[0], y[0]), min(x[1], y[1])),
    "pow": lambda x, y: POSITIVE if x[0] > 0 else EVERYTHING,
}


def interval(support: Support) -> Range:
    """Bounds of what has this support."""
    lower = -math.inf if support.lower is None else support.lower
    positive = lower == 0 and support.kind == "real"
    return (TINY if positive else lower), (math.inf if support.upper is None else support.upper)


def range_of(atom: Atom, makers: Mapping[Var, Step], known: dict[Atom, Range], depth: int = 60) -> Range:
    """Bounds of a value; `known` remembers those found."""
    if isinstance(atom, Literal):
        values = (
            np.asarray(atom.value) if atom.dtype.startswith(("float", "int", "uint", "bool")) else np.asarray(math.nan)
        )
        return EVERYTHING if not values.size or np.isnan(values).any() else (float(values.min()), float(values.max()))
    if atom in known:
        return known[atom]
    step = makers.get(atom)
    found = EVERYTHING
    if step is not None and depth:
        name, inputs = step.meaning.name, step.inputs

        def of(i: int) -> Range:
            return range_of(inputs[i], makers, known, depth - 1)

        site = step.equation.site
        if site is not None:
            found = interval(site.support)
        elif name in ONE or step.meaning.moves:
            found = ONE.get(name, _monotone(lambda x: x))(of(0))
        elif name in TWO:
            found = TWO[name](of(0), of(1))
        elif name in ("select_n", "concatenate", "stack", "clamp"):
            cases = [of(i) for i in range(name == "select_n", len(inputs))]
            found = (min(low for low, _ in cases), max(high for _, high in cases)) if name != "clamp" else cases[1]
        elif name == "integer_pow":
            found = (0.0, math.inf) if of(0)[0] >= 0 else EVERYTHING
    known[atom] = EVERYTHING if any(map(math.isnan, found)) else found
    return known[atom]


def decided(step: Step, makers: Mapping[Var, Step], known: dict[Atom, Range]) -> bool:
    """Whether a comparison can only go one way."""
    if step.meaning.name not in ("gt", "ge", "lt", "le"):
        return step.meaning.name == "sign" and range_of(step.inputs[0], makers, known)[0] > 0
    (a, b), (c, d) = (range_of(atom, makers, known) for atom in step.inputs)
    first_is_greater = step.meaning.name in ("gt", "ge")
    if not first_is_greater:
        (a, b), (c, d) = (c, d), (a, b)
    strict = step.meaning.name in ("gt", "lt")
    return (a > d or (a >= d and not strict)) or (b < c or (b <= c and strict))
