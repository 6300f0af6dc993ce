"""Infinities: where a value is not finite, nothing flows back through the operation that made it.

    y = f(x),    dy = f'(x) dx where y is finite, else 0

An objective that counts such a value is infinite itself, and needs no derivative to say so. One that does not, since it is
met with probability zero or stands in an entry of a table that nobody looks up, sends back a derivative of zero, which the
logarithm of 0, a quotient by 0, or a product with one of these would make 0 times infinity. Only operations on the way of a
gradient that ranges cannot acquit are run in this way, which few programs have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ppvi.compiler.flat import Flat, flatten
from ppvi.compiler.ir import Atom, Equation, Literal, Program, Var, is_float
from ppvi.compiler.ranges import Range, interval, range_of
from ppvi.ops import Array, Ops
from ppvi.strategies.zero import is_finite

POLES: dict[str, Callable[[Range], bool]] = {
    **dict.fromkeys(("log", "log2", "log10", "rsqrt", "reciprocal", "div", "xlogy"), lambda x: x[0] <= 0 <= x[1]),
    **dict.fromkeys(("log1p", "special_xlog1py"), lambda x: x[0] <= -1 <= x[1]),
    "lgamma": lambda x: x[0] <= 0,
    "digamma": lambda x: x[0] <= 0,
}
"""Operations that are infinite at finite values of their last operand, and whether these are within its bounds."""

ENTRYWISE = frozenset(
    """mul exp exp2 expm1 logistic sigmoid tanh sqrt square pow integer_pow softplus log_sigmoid_forward logaddexp xlogy
    special_xlog1py erf erfc sin cos silu custom_jvp_call""".split()
) | frozenset(POLES)
"""Operations of which a derivative may be infinite, or NaN, where an operand is not finite."""

BOUNDED = frozenset("clamp is_finite isfinite nan_to_num sign".split())
"""Operations that are finite whatever they are given."""


def guarded(program: Program, ops: Ops) -> Program:
    """The program, with nothing flowing back through what is not finite."""
    if not any(equation.op in POLES or any(map(_is_infinite, equation.inputs)) for equation in program.equations):
        return program
    infinite = {var for var, x in program.constants.items() if _is_infinite(Literal(x, var.shape, var.dtype))}
    flat = _flat(program)
    ranges: dict[Atom, Range] = {var: interval(support) for var, support in program.supports.items()}
    varying: set[Atom] = set(program.params)

    def read(equation: Equation) -> Equation:
        varies = equation.site is not None or (equation.differentiable and not varying.isdisjoint(equation.inputs))
        varying.update(var for var in equation.outputs if varies and is_float(var))
        met = any(atom in infinite or _is_infinite(atom) for atom in equation.inputs)
        made = equation.op in POLES and _has_pole(equation, flat, ranges)
        if equation.site is not None or equation.op in BOUNDED or not (met or made):
            return equation
        infinite.update(var for var in equation.outputs if is_float(var))
        return replace(equation, run=_guarded(equation.run, ops)) if varies and _is_entrywise(equation) else equation

    return replace(program, equations=tuple(map(read, program.equations)))


def _flat(program: Program) -> Flat:
    sinks = [atom for equation in program.equations if equation.site is not None for atom in equation.inputs]
    return flatten(program.equations, [program.output, *sinks], lambda site: True, program.constants)


def _is_infinite(atom: Atom) -> bool:
    if not isinstance(atom, Literal) or not is_float(atom):
        return False
    try:
        return bool(np.isinf(np.asarray(atom.value, float)).any())
    except TypeError:  # a number of a trace outside, which may be anything
        return True


def _has_pole(equation: Equation, flat: Flat, ranges: dict[Atom, Range]) -> bool:
    quotient_by_number = equation.op == "div" and len(equation.inputs) == 1
    bounds = range_of(flat.atom(equation.inputs[-1]), flat.makers, ranges)
    return not quotient_by_number and POLES[equation.op](bounds)


def _is_entrywise(equation: Equation) -> bool:
    shapes = {atom.shape for atom in equation.inputs if isinstance(atom, Var)}
    outputs = [var.shape for var in equation.outputs if is_float(var)]
    within = all(math.prod(shape) <= math.prod(outputs[0]) for shape in shapes) if outputs else False
    return equation.op in ENTRYWISE and len(equation.outputs) == len(outputs) == 1 and within


def _guarded(run: Callable[..., Sequence[Array]], ops: Ops) -> Callable[..., Sequence[Array]]:
    def guarded(*operands: Any) -> Sequence[Array]:
        [value] = run(*map(ops.stop_gradient, operands))
        finite = is_finite(value)
        [inside] = run(*(ops.where(finite, x, 1) for x in operands))
        return (ops.where(finite, inside, value),)

    return guarded
