"""Infinities: where a value is not finite, nothing flows back through the operation that made it.

    y = f(x),    dy = f'(x) dx where y is finite, else 0;    of an infinite slope at a finite value the largest number

An objective that counts such a value is infinite itself, and needs no derivative to say so. One that does not, since it is
met with probability zero or stands in an entry of a table that nobody looks up, sends back a derivative of zero, which the
logarithm of 0, a quotient by 0, or a product with one of these would make 0 times infinity. Only operations on the way of a
gradient that ranges cannot acquit are run in this way, which few programs have; and only where something chooses among values,
a draw before or a lookup after: what is a function of parameters alone has the framework's own derivative.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ppvi._ops import Array, Ops, as_numpy
from ppvi.analysis.inlined import Flat, flatten
from ppvi.analysis.intervals import interval
from ppvi.analysis.poles import Range
from ppvi.analysis.ranges import Ranges
from ppvi.ir import Atom, Equation, Lifted, Literal, Loop, Looped, Program, Var, is_float
from ppvi.strategies.zero import LARGEST, is_finite

POLES: dict[str, Callable[[Range], bool]] = {
    **dict.fromkeys(("log", "log2", "log10", "rsqrt", "reciprocal", "div", "xlogy"), lambda x: x[0] <= 0 <= x[1]),
    **dict.fromkeys(("log1p", "special_xlog1py"), lambda x: x[0] <= -1 <= x[1]),
    "lgamma": lambda x: x[0] <= 0,
    "digamma": lambda x: x[0] <= 0,
}
"""Operations that are infinite at finite values of their last operand, and whether these are within its bounds."""

STEEP: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("sqrt", "pow", "cbrt", "xlogx", "special_entr"), (0.0,)),
    "asin": (-1.0, 1.0),
    "acos": (-1.0, 1.0),
    "acosh": (1.0,),
}
"""Operations whose slope may be infinite, or whose value is, and the numbers at which their first operand has it so."""

CHOOSING = frozenset(
    """gather dynamic_slice select_n cond rest index index_select embedding take where masked_fill max min maximum minimum
    reduce_max reduce_min amax amin clamp clamp_min clamp_max""".split()
)
"""Operations by which entries of an operand may play no part."""

FORGETFUL = frozenset(
    "exp exp2 logistic sigmoid tanh erf erfc softplus log_sigmoid_forward logaddexp logsumexp".split()
)
"""Operations that are finite where their operand is infinite."""

ENTRYWISE = frozenset(
    """mul exp exp2 expm1 logistic sigmoid tanh sqrt square pow integer_pow softplus log_sigmoid_forward logaddexp xlogy
    special_xlog1py erf erfc sin cos silu custom_jvp_call""".split()
) | {*POLES, *STEEP}
"""Operations of which a derivative may be infinite, or NaN, where an operand is not finite."""

BOUNDED = frozenset("clamp is_finite isfinite nan_to_num sign".split())
"""Operations that are finite whatever they are given."""


def guarded(program: Program, edges: Edges) -> Program:
    """The program, with nothing flowing back through what is not finite."""
    return replace(program, equations=_guarded_all(edges, program.params, ())) if edges else program


def _guarded_all(edges: Edges, params: Collection[Atom], draws: Collection[Atom]) -> tuple[Equation, ...]:
    """The equations, in what varies with parameters and in what is drawn."""
    infinite, chosen, ops = edges.infinite, _chosen(edges.equations), edges.ops
    varying, drawn = set(params), set(draws)

    def read(equation: Equation) -> Equation:
        random = equation.is_site or not drawn.isdisjoint(equation.inputs)
        varies = equation.is_site or (equation.differentiable and not varying.isdisjoint(equation.inputs))
        drawn.update(var for var in equation.outputs if random)
        varying.update(var for var in equation.outputs if varies and is_float(var))
        may_not_count = random or not chosen.isdisjoint(equation.outputs)
        match equation.role:
            case Lifted():
                anew = functools.partial(_guarded_anew, edges, equation, frozenset(varying))
                return replace(equation, role=Lifted(anew))
            case Looped() if varies:
                return _guarded_loop(edges, equation, varying, may_not_count)
        steep = edges.steep(equation)
        edged = bool(steep) or (equation.op not in BOUNDED and not infinite.isdisjoint(equation.outputs))
        if equation.is_site or not (edged and varies and may_not_count and _is_entrywise(equation)):
            return equation
        surely = equation.op != "pow" or edges.exponent(equation) is not None
        slope = -LARGEST if equation.op in ("acos", "xlogx") else LARGEST
        return replace(equation, run=_guarded(equation.run, ops, steep, surely, slope))

    return tuple(map(read, edges.equations))


def _guarded_loop(edges: Edges, equation: Equation[Looped], varying: Collection[Atom], may_not_count: bool) -> Equation:
    """A loop of which the body is guarded: what it carries may vary, and be anything."""
    loop, inner = edges.inside(equation)
    carried = {loop.inputs[i] for _, i in loop.carried}
    params = carried.union(var for var, atom in zip(loop.inputs, equation.inputs, strict=True) if atom in varying)
    equations = _guarded_all(inner, params, loop.inputs if may_not_count else ())
    if all(after is before for after, before in zip(equations, loop.equations, strict=True)):
        return equation

    def body(*operands: Array) -> list[Array]:
        values: dict[Atom, Any] = dict(zip(loop.inputs, operands, strict=True))

        def read(atom: Atom) -> Any:
            return atom.value if isinstance(atom, Literal) else values[atom]

        for step in equations:
            values.update(zip(step.outputs, step.run(*map(read, step.inputs)), strict=True))
        return list(map(read, loop.outputs))

    return replace(equation, run=equation.role.with_body(body))


def _guarded_anew(
    edges: Edges, equation: Equation[Lifted], varying: frozenset[Atom]
) -> tuple[Sequence[Equation], Sequence[Atom]]:
    """The same of what is run anew, at values of its sites that are drawn or chosen."""
    equations, results = equation.role.anew()
    known: dict[Atom, Range] = {atom: edges.range(atom) for atom in equation.inputs if isinstance(atom, Var)}
    given = edges.infinite.intersection(equation.inputs)
    inner = Edges(tuple(equations), tuple(results), {}, known, edges.ops, frozenset(given))
    return _guarded_all(inner, varying, equation.inputs), results


@dataclass(frozen=True)
class Edges:
    """Where values may be infinite, or zero, as far as ranges tell."""

    equations: tuple[Equation, ...]
    outputs: tuple[Atom, ...]
    constants: Mapping[Var, Any]
    known: Mapping[Atom, Range]
    """Bounds of inputs."""
    ops: Ops
    given: frozenset[Atom] = frozenset()
    """Inputs that may be infinite."""

    @classmethod
    def of(cls, program: Program, ops: Ops) -> Edges:
        known: dict[Atom, Range] = {var: interval(support, closed=True) for var, support in program.supports.items()}
        return cls(program.equations, (program.output,), program.constants, known, ops)

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        edged = POLES.keys() | STEEP.keys()
        met = any(
            equation.op in edged or isinstance(equation.role, Looped) or any(map(_is_infinite, equation.inputs))
            for equation in self.equations
        )
        return met or any(map(_is_infinite, self._constants))

    @property
    def _constants(self) -> list[Literal]:
        return [Literal(x, var.shape, var.dtype) for var, x in self.constants.items()]

    @functools.cached_property
    def flat(self) -> Flat:
        sinks = [atom for equation in self.equations if equation.is_site for atom in equation.inputs]
        return flatten(self.equations, [*self.outputs, *sinks], lambda site: True, self.constants)

    @functools.cached_property
    def ranges(self) -> Ranges:
        return Ranges(self.flat.makers, dict(self.known), rounded=True)

    @functools.cached_property
    def infinite(self) -> set[Atom]:
        """What may be infinite, and what is made of it."""
        constants = zip(self.constants, self._constants, strict=True)
        found: set[Atom] = {*self.given, *(var for var, x in constants if _is_infinite(x))}
        for equation in self.equations:
            idle = IDLE.get(equation.op, math.nan)
            met = any(atom in found or _is_infinite(atom, idle) for atom in equation.inputs)
            if isinstance(equation.role, Looped) and not met:
                loop, inner = self.inside(equation)
                found.update(
                    var for var, atom in zip(equation.outputs, loop.outputs, strict=True) if atom in inner.infinite
                )
            elif not equation.is_site and equation.op not in BOUNDED and (met or self.is_pole(equation)):
                found.update(var for var in equation.outputs if is_float(var))
        return found

    def inside(self, equation: Equation) -> tuple[Loop, Edges]:
        """The body of a loop."""
        if equation not in self._loops:
            assert equation.meaning is not None
            make = equation.meaning().loop
            assert make is not None
            loop = make()
            carried = {i for _, i in loop.carried}
            operands = [(i, var, atom) for i, (var, atom) in enumerate(zip(loop.inputs, equation.inputs, strict=True))]
            known: dict[Atom, Range] = {var: self.range(atom) for i, var, atom in operands if i not in carried}
            given = {var for _, var, atom in operands if atom in self.given or _is_infinite(atom)}
            inner = Edges(loop.equations, loop.outputs, {}, known, self.ops, frozenset(given))
            # What a round makes infinite is so in the next.
            while (
                again := {loop.inputs[i] for out, i in loop.carried if loop.outputs[out] in inner.infinite}
                - inner.given
            ):
                inner = replace(inner, given=inner.given | again)
            self._loops[equation] = loop, inner
        return self._loops[equation]

    @functools.cached_property
    def _loops(self) -> dict[Equation, tuple[Loop, Edges]]:
        return {}

    def is_pole(self, equation: Equation) -> bool:
        if equation.op == "pow":
            exponent, (low, _) = self.exponent(equation), self.range(equation.inputs[0])
            if low < 0 and (exponent is None or exponent % 1):
                return True  # of a negative number there is no such power
            return self.may_be_zero(equation.inputs[0]) and (exponent is None or exponent < 0)
        quotient_by_number = equation.op == "div" and len(equation.inputs) == 1
        return equation.op in POLES and not quotient_by_number and POLES[equation.op](self.range(equation.inputs[-1]))

    def steep(self, equation: Equation) -> tuple[float, ...]:
        """The numbers at which its slope may be infinite, as far as its first operand may be there."""
        if equation.op not in STEEP:
            return ()
        low, high = self.range(equation.inputs[0])
        exponent = self.exponent(equation) if equation.op == "pow" else None
        level = exponent is not None and not 0 < exponent < 1
        return () if level else tuple(end for end in STEEP[equation.op] if low <= end <= high)

    def exponent(self, equation: Equation) -> float | None:
        """Of a power, where it is a number of the program's text."""
        if len(equation.inputs) == 1:
            at_two = float(equation.run(self.ops.array(2.0))[0])
            return math.log2(at_two) if at_two > 0 else -math.inf
        exponent = equation.inputs[1]
        return float(exponent.value) if isinstance(exponent, Literal) and exponent.shape == () else None

    def may_be_zero(self, atom: Atom) -> bool:
        low, high = self.range(atom)
        return low <= 0 <= high

    def range(self, atom: Atom) -> Range:
        return self.ranges.of(self.flat.atom(atom))


def _chosen(equations: Sequence[Equation]) -> set[Atom]:
    """What may be infinite where an operation, or a strategy, that is given it chooses among its entries."""
    found: set[Atom] = set()
    for equation in reversed(equations):
        carried = equation.op not in FORGETFUL and not found.isdisjoint(equation.outputs)
        if carried or equation.op in CHOOSING or equation.is_site:
            found.update(equation.inputs)
    return found


IDLE = {**dict.fromkeys(("max", "maximum"), -math.inf), **dict.fromkeys(("min", "minimum"), math.inf)}
"""The number beside which an operation returns its other operand."""


def _is_infinite(atom: Atom, idle: float = math.nan) -> bool:
    """Whether a number of the program's text has an infinite entry other than this one."""
    if not isinstance(atom, Literal) or not is_float(atom):
        return False
    try:
        values = as_numpy(atom.value, float)
    except TypeError:  # a number of a trace outside, which may be anything
        return True
    return bool((np.isinf(values) & (values != idle)).any())


def _is_entrywise(equation: Equation) -> bool:
    shapes = {atom.shape for atom in equation.inputs if isinstance(atom, Var)}
    outputs = [var.shape for var in equation.outputs if is_float(var)]
    within = all(math.prod(shape) <= math.prod(outputs[0]) for shape in shapes) if outputs else False
    if equation.op == "custom_jvp_call":  # whose body takes operands of the very shapes that it was traced with
        within = {atom.shape for atom in equation.inputs} == set(outputs)
    return equation.op in ENTRYWISE and len(equation.outputs) == len(outputs) == 1 and within


def _guarded(
    run: Callable[..., Sequence[Array]], ops: Ops, steep: tuple[float, ...], surely: bool, slope: float
) -> Callable[..., Sequence[Array]]:
    """The operation, with nothing flowing back where its value is infinite, and the largest slope where only its slope is.

    **Arguments**

    - `steep`: where its first operand makes its slope infinite; `surely`: whether it does so for certain.
    - `slope`: the largest number, with the sign of the slope.
    """

    def guarded(*operands: Any) -> Sequence[Array]:
        [value] = run(*map(ops.stop_gradient, operands))
        kept = is_finite(value)
        if steep:
            x, *others = operands
            edge = kept & functools.reduce(operator.or_, (x == end for end in steep))
            if not surely:
                [at_two] = run(ops.where(x == 0, 2, x), *others)  # which tells a power's exponent
                edge = edge & (at_two > 1) & (at_two < 2)
            value = ops.where(edge, value + slope * (x - ops.stop_gradient(x)), value)
            kept = kept & ~edge
        [inside] = run(*(ops.where(kept, x, 1) for x in operands))
        return (ops.where(kept, inside, value),)

    return guarded
