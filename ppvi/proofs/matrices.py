"""Matrices: which of a program's are known to be positive definite, or triangular and positive on the diagonal.

    A A^T >= 0,    A >= 0 and B > 0  =>  A + B > 0,    A * B >= 0 (Schur 1911),    exp(-d^2) >= 0 (Schoenberg 1938)

Such a matrix has an inverse whatever is drawn, which as a function of its entries is then smooth, and so are a solution, the
logarithm of a determinant and a Cholesky factor. Of others there may be draws that have none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from ppvi.analysis.inlined import Step
from ppvi.analysis.ranges import Ranges, exponent
from ppvi.ir import Atom, Var, straight

DEPTH = 40
"""Operations that are followed back at most, one behind the other."""
ROUNDING = 1e-6
"""An eigenvalue of a constant that is this much below 0, of the greatest, counts as 0."""
FACTORS = frozenset("copy tril stop_gradient select_n squeeze".split())
"""Operations that leave a triangular factor one."""
KEEPING = frozenset("copy stop_gradient convert_element_type ppvi_note".split())
DEFINITE_SUPPORTS = frozenset("positivedefinite corrmatrix".split())
FACTOR_SUPPORTS = frozenset("lowercholesky corrcholesky softpluslowercholesky scaledunitlowercholesky".split())


class Sign(IntEnum):
    """What is known of the quadratic form of a symmetric matrix, each more than the one before."""

    UNKNOWN = 0
    CONDITIONAL = 1
    """It is nonnegative at vectors that sum to zero."""
    SEMIDEFINITE = 2
    DEFINITE = 3


UNKNOWN, CONDITIONAL, SEMIDEFINITE, DEFINITE = Sign

Axes = tuple[int, int]
"""Rows and columns; all other axes are those of a batch."""

Places = tuple[int | None, ...]
"""For each axis of a value the axis along which it lies, or None."""


@dataclass
class Matrices:
    """What is known of the matrices of a program."""

    ranges: Ranges
    constant: Callable[[Atom], np.ndarray | None]
    """The numbers of what depends on nothing."""
    found: dict[tuple[Atom, Axes, int], Sign] = field(default_factory=dict)

    def is_regular(self, atom: Atom) -> bool:
        """Whether a matrix, or a batch of them in the leading axes, has an inverse whatever is drawn."""
        return self.is_factor(atom) or self.sign(atom, _last(atom)) is DEFINITE

    def is_factor(self, atom: Atom, depth: int = DEPTH) -> bool:
        """Whether it is triangular, or read as if it were, with positive numbers on its diagonal."""
        step, rows = self._maker(atom), _last(atom)
        if step is None or not depth:
            return False
        name, inputs = step.meaning.name, step.inputs
        if step.equation.is_site:
            return step.equation.role.info.support.name.lower() in FACTOR_SUPPORTS
        if name == "cholesky":
            return True
        if step.meaning.moves:
            inner = _inside(step, rows)
            return None not in inner and set(inner) == set(_last(inputs[0])) and self.is_factor(inputs[0], depth - 1)
        if name in ("mul", "div"):
            pairs = (inputs, inputs[::-1]) if name == "mul" else (inputs,)
            return any(self.ranges.of(y)[0] > 0 and self.is_factor(x, depth - 1) for x, y in pairs)
        if name == "add":
            pairs = (inputs, inputs[::-1])
            return any(self._is_strict(x) and self._on_diagonal(y, rows) is DEFINITE for x, y in pairs)
        varying = [x for x in inputs if self.constant(x) is None]
        same = len(varying) == 1 and varying[0].shape[-2:] == atom.shape[-2:]
        return same and name in (*FACTORS, "slice") and self.is_factor(varying[0], depth - 1)

    def sign(self, atom: Atom, axes: Axes, factor: int = 1, depth: int = DEPTH) -> Sign:
        """What is known of a matrix along these axes, or of its negative."""
        key = (atom, axes, factor)
        if key not in self.found:
            self.found[key] = UNKNOWN
            self.found[key] = self._sign(atom, axes, factor, depth - 1) if depth else UNKNOWN
        return self.found[key]

    def _sign(self, atom: Atom, axes: Axes, factor: int, depth: int) -> Sign:
        value, step = self.constant(atom), self._maker(atom)
        if value is not None:
            return _of_numbers(factor * np.moveaxis(value, axes, (-2, -1)))
        if step is None:
            return UNKNOWN
        name, inputs = step.meaning.name, step.inputs
        if step.equation.is_site:
            known = step.equation.role.info.support.name.lower() in DEFINITE_SUPPORTS
            return DEFINITE if known and factor > 0 and set(axes) == set(_last(atom)) else UNKNOWN
        if step.meaning.moves:
            rows, columns = _inside(step, axes)
            if rows is not None and columns is not None:
                return self.sign(inputs[0], (rows, columns), factor, depth)
            return self._of_equal(inputs[0], factor) if rows is columns else UNKNOWN
        if name in KEEPING:
            return self.sign(inputs[0], axes, factor, depth)
        if name in ("add", "sub", "add_any"):
            signs = (factor, -factor if name == "sub" else factor)
            return _of_sum(*(self._part(x, axes, sign, depth) for x, sign in zip(inputs, signs, strict=True)))
        if name == "neg":
            return self.sign(inputs[0], axes, -factor, depth)
        if name in ("mul", "div"):
            return self._product(step, axes, factor, depth)
        if name == "sum":
            places = straight(step.equation.flow()[0][0] or ())
            inner = tuple(places.index(axis) if axis in places else None for axis in axes)
            return UNKNOWN if None in inner else self.sign(inputs[0], inner, factor, depth)  # type: ignore[arg-type]
        if factor < 0:
            apart = name in ("square", "abs") or (name == "integer_pow" and exponent(step) == 2)
            return CONDITIONAL if apart and self._is_difference(inputs[0], axes) else UNKNOWN
        if name == "exp":
            return SEMIDEFINITE if self.sign(inputs[0], axes, 1, depth) else UNKNOWN
        if name == "dot_general":
            return self._gram(step, axes, depth)
        return self._on_diagonal(atom, axes)

    def _part(self, atom: Atom, axes: Axes, factor: int, depth: int) -> Sign:
        return self.sign(atom, axes, factor, depth) if atom.shape else self._of_equal(atom, factor)

    def _of_equal(self, atom: Atom, factor: int) -> Sign:
        """Of a matrix all of whose entries are one number."""
        low, high = self.ranges.of(atom)
        return SEMIDEFINITE if (low >= 0 if factor > 0 else high <= 0) else CONDITIONAL

    def _product(self, step: Step, axes: Axes, factor: int, depth: int) -> Sign:
        """Of entries times entries: a number times a matrix, v v^T, a diagonal, or two matrices."""
        first, second = step.inputs
        for x, number in ((first, second), (second, first)):
            if self._is_number(number, axes) and (step.meaning.name == "mul" or number is second):
                low, high = self.ranges.of(number)
                if low > 0 or high < 0:
                    return self.sign(x, axes, factor if low > 0 else -factor, depth)
                return min(self.sign(x, axes, factor, depth), SEMIDEFINITE) if low >= 0 else UNKNOWN
        if step.meaning.name == "div" or factor < 0:
            return UNKNOWN
        if self._are_transposed(step, axes):
            return SEMIDEFINITE
        on_diagonal = self._on_diagonal(step.outputs[0], axes)
        both = min(self.sign(x, axes, 1, depth) for x in (first, second))
        return max(on_diagonal, both if both >= SEMIDEFINITE else UNKNOWN)

    def _gram(self, step: Step, axes: Axes, depth: int) -> Sign:
        """Of A A^T, which is definite where A has an inverse."""
        flows = [straight(axis_map or ()) for axis_map in step.equation.flow()[0]]
        if any(flow.count(None) != 1 for flow in flows) or not self._are_transposed(step, axes, flows):
            return UNKNOWN
        factor = step.inputs[0]
        rows, summed = (flows[0].index(axis) for axis in (next(a for a in axes if a in flows[0]), None))
        square = {rows, summed} == set(_last(factor)) and factor.shape[rows] == factor.shape[summed]
        regular = self.is_factor(factor, depth) or self.sign(factor, (rows, summed), 1, depth) is DEFINITE
        return DEFINITE if square and regular else SEMIDEFINITE

    def _are_transposed(self, step: Step, axes: Axes, flows: Sequence[Places] | None = None) -> bool:
        """Whether two operands are one value whose rows lie along the rows of the result, and along its columns."""
        given = flows or [tuple(range(len(x.shape))) for x in step.inputs]
        (base, places), (other, others) = (self._root(x, flow) for x, flow in zip(step.inputs, given, strict=True))
        swapped = tuple({axes[0]: axes[1], axes[1]: axes[0]}.get(p, p) if p is not None else None for p in others)
        return base is other and places == swapped and sum(axis in places for axis in axes) == 1

    def _is_difference(self, atom: Atom, axes: Axes) -> bool:
        """Whether its entries are x_i - x_j."""
        step = self._maker(atom)
        return step is not None and step.meaning.name == "sub" and self._are_transposed(step, axes)

    def _on_diagonal(self, atom: Atom, axes: Axes) -> Sign:
        """Of what is zero beside the diagonal and positive, or nonnegative, on it."""
        step = self._maker(atom)
        if step is None:
            value = self.constant(atom)
            return UNKNOWN if value is None else _of_numbers(np.moveaxis(value, axes, (-2, -1)))
        name, inputs, low = step.meaning.name, step.inputs, -1.0
        if name == "diag":
            low = self.ranges.of(inputs[0])[0]
        elif name == "mul":
            for x, y in (inputs, inputs[::-1]):
                value = self.constant(x)
                if value is not None and value.ndim == 2 and _is_diagonal(value):
                    low = min(self.ranges.of(y)[0], float(np.diagonal(value).min()))
        elif name == "select_n" and (which := self.constant(inputs[0])) is not None and which.ndim == 2:
            same = np.eye(*which.shape, dtype=bool)
            beside, on = (np.unique(which[mask]).astype(int) + 1 for mask in (~same, same))
            if all(self._is_zero(inputs[i]) for i in beside):
                low = min(self.ranges.of(inputs[i])[0] for i in on)
        elif name in KEEPING:
            return self._on_diagonal(inputs[0], axes)
        return DEFINITE if low > 0 else SEMIDEFINITE if low >= 0 else UNKNOWN

    def _is_strict(self, atom: Atom) -> bool:
        """Whether it is zero on the diagonal and on one side of it."""
        step, value = self._maker(atom), self.constant(atom)
        if value is not None:
            return value.ndim >= 2 and (not np.triu(value).any() or not np.tril(value).any())
        if step is None or step.meaning.name != "select_n":
            return step is not None and step.meaning.name == "strict_tril"
        which = self.constant(step.inputs[0])
        if which is None or which.ndim < 2:
            return False
        zero = np.isin(which, [i for i, case in enumerate(step.inputs[1:]) if self._is_zero(case)])
        return not np.triu(~zero).any() or not np.tril(~zero).any()

    def _is_zero(self, atom: Atom) -> bool:
        value = self.constant(atom)
        return value is not None and not value.any()

    def _is_number(self, atom: Atom, axes: Axes) -> bool:
        """Whether it is the same at all entries of a matrix."""
        if not atom.shape or all(atom.shape[axis] == 1 for axis in axes):
            return True
        step = self._maker(atom)
        return step is not None and step.meaning.moves and _inside(step, axes) == (None, None)

    def _root(self, atom: Atom, places: Places) -> tuple[Atom, Places]:
        """What an atom repeats or transposes, and where its axes lie, given where those of the atom do."""
        while (step := self._maker(atom)) is not None and (step.meaning.moves or step.meaning.name in KEEPING):
            flow = straight(step.equation.flow()[0][0] or ())
            lost = any(a is None and size > 1 for a, size in zip(flow, step.inputs[0].shape, strict=False))
            if lost or len(flow) != len(step.inputs[0].shape):
                break
            atom, places = step.inputs[0], tuple(None if a is None else places[a] for a in flow)
        return atom, places

    def _maker(self, atom: Atom) -> Step | None:
        return self.ranges.makers.get(atom) if isinstance(atom, Var) else None


def _last(atom: Atom) -> Axes:
    return len(atom.shape) - 2, len(atom.shape) - 1


def _inside(step: Step, axes: Axes) -> tuple[int | None, int | None]:
    """The axes of the operand of a move that lie along these axes of its output."""
    places = straight(step.equation.flow()[0][0] or ())
    rows, columns = (places.index(axis) if axis in places else None for axis in axes)
    return rows, columns


def _of_sum(first: Sign, second: Sign) -> Sign:
    return (
        DEFINITE
        if DEFINITE in (first, second) and min(first, second) >= SEMIDEFINITE
        else min(first, second, SEMIDEFINITE)
    )


def _is_diagonal(value: np.ndarray) -> bool:
    return value.shape[0] == value.shape[1] and not (value * (1 - np.eye(len(value)))).any()


def _of_numbers(value: np.ndarray) -> Sign:
    """Of constant matrices, by their eigenvalues."""
    if value.ndim < 2 or value.shape[-1] != value.shape[-2] or not np.isfinite(value).all():
        return UNKNOWN
    value = value.astype(float)
    largest = abs(value).max(initial=0)
    if abs(value - np.swapaxes(value, -1, -2)).max(initial=0) > ROUNDING * largest:
        return UNKNOWN
    least = np.linalg.eigvalsh(value).min(initial=np.inf)
    if least > ROUNDING * largest:
        return DEFINITE
    if least >= -ROUNDING * largest:
        return SEMIDEFINITE
    centre = np.eye(value.shape[-1]) - 1 / value.shape[-1]
    return CONDITIONAL if np.linalg.eigvalsh(centre @ value @ centre).min() >= -ROUNDING * largest else UNKNOWN
