"""Calls of ATen's operations, written in the algebra that the checks know.

ATen has scalars among its arguments, broadcasts by itself and has many operations that others are made of. A rule here writes
a call in terms of the algebra's operations, with literals for scalars and with broadcasts of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ppvi.engine import algebra
from ppvi.ir import AxisMap, Equation, Literal, Meaning, Origin, Smoothness, Var, is_float
from ppvi.pyro._rules import Call, flow

Operand = Var | Literal | float | complex
JUMP, SMOOTH = Smoothness.JUMP, Smoothness.SMOOTH


class Body:
    """The equations of one call."""

    def __init__(self, call: Call, operands: Sequence[Any], dtype: str, where: Callable[[], str], origin: Origin):
        self.call = call
        self.dtype = dtype
        self.where = where
        self.origin = origin
        self.equations: list[Equation] = []
        self._tensors = iter(operands)

    def arguments(self) -> dict[str, Any]:
        """By name, with operands in the place of tensors."""
        return {name: self._filled(value) for name, value in self.call.arguments.items()}

    def _filled(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._filled(x) for x in value]
        return next(self._tensors) if value is TENSOR else value

    def op(self, name: str, *operands: Operand, run: Callable[..., Any] | None = None) -> Var:
        """An operation on single numbers, after broadcasting; `run` where its name alone does not say what it does."""
        atoms = [self._atom(x) for x in operands]
        shape = np.broadcast_shapes(*(atom.shape for atom in atoms))
        laid = [atom if atom.shape in (shape, ()) else self.moved(atom, shape) for atom in atoms]
        same = tuple(range(len(shape)))
        return self._add(name, laid, shape, [same if atom.shape else () for atom in laid], run=run)

    def moved(self, atom: Var | Literal, shape: tuple[int, ...]) -> Var:
        """Entries repeated by broadcasting."""
        ahead = len(shape) - len(atom.shape)
        axes = tuple(a + ahead if size == shape[a + ahead] else None for a, size in enumerate(atom.shape))
        return self._add("broadcast_in_dim", [atom], shape, [axes], atom.dtype)

    def reshaped(self, atom: Var | Literal, axes: AxisMap | None) -> Var:
        """The same entries in the shape of the call."""
        return self._add("broadcast_in_dim", [atom], self.call.output, [axes], atom.dtype)

    def whole(self, name: str, operands: Sequence[Var | Literal], maps: Sequence[AxisMap | None]) -> Var:
        """An operation that mixes entries, of the shape of the call."""
        return self._add(name, list(operands), self.call.output, maps)

    def _atom(self, x: Operand) -> Var | Literal:
        if isinstance(x, complex):
            return Literal(np.asarray(x), (), "complex64")
        return Literal(np.asarray(x), (), "float32") if isinstance(x, bool | int | float) else x

    def _add(
        self,
        name: str,
        atoms: list[Any],
        shape: Sequence[int],
        maps: Sequence[AxisMap | None],
        dtype: str | None = None,
        run: Callable[..., Any] | None = None,
    ) -> Var:
        out = Var(tuple(shape), dtype or ("bool" if name in _TRUTHS else self.dtype))
        meaning = Meaning(
            name,
            _smoothness(name, atoms[0], out),
            None
            if any(x.dtype.startswith("complex") for x in (*atoms, out))
            else run or _entrywise(name, atoms[0], out),
            moves=name == "broadcast_in_dim",
            origin=lambda: self.origin,
            key=(name, run, out.dtype, out.shape),
        )
        self.equations.append(
            Equation(
                name,
                tuple(atoms),
                (out,),
                _never,
                lambda: [list(maps)],
                self.where,
                linear=algebra.LINEAR.get(name, ()) if is_float(out) else (),
                meaning=lambda: meaning,
            )
        )
        return out


class Tensor:
    """Stands for a tensor among the arguments of a call."""

    def __repr__(self) -> str:
        return "tensor"


TENSOR = Tensor()
_TRUTHS = frozenset("eq ne lt le gt ge and or not is_finite".split())


def _never(*values: Any) -> Any:
    raise AssertionError("an equation of a check is never run")


def _entrywise(name: str, atom: Var | Literal, out: Var) -> Callable[..., Any] | None:
    if name == "broadcast_in_dim":
        return np.asarray
    if name == "convert_element_type":
        kept = algebra.real if _keeps(atom, out) else None
        return algebra.truth if out.dtype == "bool" else kept if is_float(out) else algebra.whole
    return algebra.ENTRYWISE.get(name)


def _smoothness(name: str, atom: Var | Literal, out: Var) -> Callable[[int, int], Smoothness] | None:
    if name == "convert_element_type":
        rule = SMOOTH if _keeps(atom, out) else JUMP
        return lambda output, operand: rule
    return algebra.smoothness_of(name)


def _keeps(before: Var | Literal, after: Var) -> bool:
    return algebra.keeps(*map(_digits, (before, after)))


def _digits(atom: Var | Literal) -> int | None:
    return round(-math.log2(torch.finfo(getattr(torch, atom.dtype)).eps)) if is_float(atom) else None


# Rules: from the call's arguments to the algebra -------------------------------------------------------------------------

Rule = Callable[[Body, dict[str, Any]], Var]


def _one(name: str) -> Rule:
    return lambda body, a: body.op(name, a["self"])


def _two(name: str) -> Rule:
    return lambda body, a: body.op(name, a["self"], a["other"])


def _sum(name: str, swapped: bool = False) -> Rule:
    def rule(body: Body, a: dict[str, Any]) -> Var:
        alpha = a.get("alpha", 1)
        other = a["other"] if alpha == 1 else body.op("mul", a["other"], float(alpha))
        return body.op(name, *((other, a["self"]) if swapped else (a["self"], other)))

    return rule


def _clamp(body: Body, a: dict[str, Any]) -> Var:
    low, high = a.get("min", a.get("min_val")), a.get("max", a.get("max_val"))
    x = a["self"] if low is None else body.op("max", a["self"], low)
    return x if high is None else body.op("min", x, high)


def _power(body: Body, a: dict[str, Any]) -> Var:
    exponent = a["exponent"]
    if exponent == 2:
        return body.op("square", a["self"])
    if body.dtype.startswith("complex"):
        natural = isinstance(exponent, int | float) and exponent >= 0 and exponent == int(exponent)
        return body.op("polynomial" if natural else "power of a complex number", a["self"])
    if isinstance(exponent, int | float) and exponent == int(exponent):
        return body.op("integer_pow", a["self"], run=algebra.power(int(exponent)))
    return body.op("pow", a["self"], exponent)


def _softplus(body: Body, a: dict[str, Any]) -> Var:
    beta = float(a.get("beta", 1))
    return body.op("div", body.op("softplus", body.op("mul", a["self"], beta)), beta)


def _addmm(body: Body, a: dict[str, Any]) -> Var:
    product = body.whole("dot_general", [a["mat1"], a["mat2"]], flow(body.call)[1:])
    bias = body.op("mul", a["self"], float(a.get("beta", 1)))
    return body.op("add", bias, body.op("mul", product, float(a.get("alpha", 1))))


def _padded(body: Body, x: Any, value: float) -> Var:
    return body.whole("pad", [x, Literal(np.asarray(value), (), "float32")], [flow(body.call)[0], ()])


def _mean(body: Body, a: dict[str, Any]) -> Var:
    count = math.prod(body.call.operands[0]) / max(math.prod(body.call.output), 1)
    return body.op("div", body.whole("sum", [a["self"]], flow(body.call)), float(count))


def _quotient(body: Body, a: dict[str, Any]) -> Var:
    found = body.op("div", a["self"], a["other"])
    mode = a.get("rounding_mode")
    return found if mode is None else body.op(mode, found)


def _heaviside(body: Body, a: dict[str, Any]) -> Var:
    above = body.op("select_n", body.op("gt", a["self"], 0.0), 0.0, 1.0)
    return body.op("select_n", body.op("eq", a["self"], 0.0), above, a["values"])


def _reduced(entry: Callable[[Body, dict[str, Any]], Var]) -> Rule:
    """Of a loss that is a mean or a sum of entries, or the entries."""

    def rule(body: Body, a: dict[str, Any]) -> Var:
        found = entry(body, a)
        if a.get("reduction", 1) == 0:
            return found
        total = body.whole("sum", [found], [(None,) * len(found.shape)])
        return total if a.get("reduction") == 2 else body.op("div", total, float(math.prod(found.shape)))

    return rule


def _cross_entropy(body: Body, a: dict[str, Any]) -> Var:
    x, y = a["self"], a["target"]
    terms = [
        body.op("mul", share, body.op("max", body.op(log, side), -100.0))
        for share, log, side in ((y, "log", x), (body.op("sub", 1.0, y), "log1p", body.op("neg", x)))
    ]
    loss = body.op("neg", body.op("add", *terms))
    return loss if a.get("weight") is None else body.op("mul", loss, a["weight"])


def _logit(body: Body, a: dict[str, Any]) -> Var:
    x, eps = a["self"], a.get("eps")
    if eps is not None:
        x = body.op("min", body.op("max", x, float(eps)), 1.0 - float(eps))
    return body.op("sub", body.op("log", x), body.op("log1p", body.op("neg", x)))


def _logaddexp2(body: Body, a: dict[str, Any]) -> Var:
    operands = (body.op("mul", a[name], math.log(2)) for name in ("self", "other"))
    return body.op("div", body.op("logaddexp", *operands), math.log(2))


def _with_sign(body: Body, a: dict[str, Any]) -> Var:
    size = body.op("abs", a["self"])
    return body.op("select_n", body.op("lt", a["other"], 0.0), size, body.op("neg", size))


def _solved_by_factor(body: Body, a: dict[str, Any]) -> Var:
    return body.whole("solve", [a["input2"], a["self"]], [(None,) * len(a[x].shape) for x in ("input2", "self")])


def norm_of_one(body: Body, a: dict[str, Any]) -> Var:
    """The norm of one entry, or of many of one entry each."""
    size = body.op("abs", a["self"])
    return body.reshaped(size, flow(body.call)[0])


def _remainder(body: Body, a: dict[str, Any]) -> Var:
    """Of the divisor's sign."""
    whole = body.op("floor", body.op("div", a["self"], a["other"]))
    return body.op("sub", a["self"], body.op("mul", a["other"], whole))


RULES: dict[str, Rule] = {
    **{name: _one(name) for name in """abs acos acosh asin asinh atan atanh ceil cos cosh digamma erf erfc exp exp2 expm1
        floor lgamma log log1p neg round rsqrt sign sin sinh sqrt square tan tanh trunc""".split()},
    **{aten: _one(name) for aten, name in (
        ("sigmoid", "logistic"), ("erfinv", "erf_inv"), ("sgn", "sign"), ("detach", "stop_gradient"), ("clone", "copy"),
        ("alias", "copy"), ("lift_fresh_copy", "copy"), ("logical_not", "not"), ("bitwise_not", "not"),
        ("isfinite", "is_finite"), ("special_log_ndtr", "log_ndtr"), ("special_ndtri", "ndtri"), ("special_erfcx", "erfcx"),
        ("_to_copy", "convert_element_type"))},
    **{name: _two(name) for name in "atan2 eq ge gt hypot igamma igammac le lt mul ne logaddexp".split()},
    **{aten: _two(name) for aten, name in (
        ("maximum", "max"), ("minimum", "min"), ("fmod", "rem"), ("logical_and", "and"),
        ("bitwise_and", "and"), ("logical_or", "or"), ("bitwise_or", "or"), ("logical_xor", "xor"), ("bitwise_xor", "xor"),
        ("xlogy", "xlogy"), ("special_zeta", "zeta"))},
    "special_entr": lambda body, a: body.op("neg", body.op("xlogy", a["self"], a["self"])),
    "logaddexp2": _logaddexp2,
    "logit": _logit,
    "frac": lambda body, a: body.op("sub", a["self"], body.op("trunc", a["self"])),
    "copysign": _with_sign,
    "threshold": lambda body, a: body.op("select_n", body.op("gt", a["self"], a["threshold"]), a["value"], a["self"]),
    "hardshrink": lambda body, a: body.op(
        "select_n", body.op("gt", body.op("abs", a["self"]), a.get("lambd", 0.5)), 0.0, a["self"]
    ),
    "binary_cross_entropy": _reduced(_cross_entropy),
    "cholesky_solve": _solved_by_factor,
    "bucketize": lambda body, a: body.whole("searchsorted", [a["boundaries"], a["self"]], flow(body.call)[::-1]),
    "special_xlog1py": lambda body, a: body.op("xlogy", a["self"], body.op("add", 1.0, a["other"])),
    "add": _sum("add"),
    "sub": _sum("sub"),
    "rsub": _sum("sub", swapped=True),
    "pow": _power,
    "reciprocal": lambda body, a: body.op("div", 1.0, a["self"]),
    "log2": lambda body, a: body.op("div", body.op("log", a["self"]), math.log(2)),
    "log10": lambda body, a: body.op("div", body.op("log", a["self"]), math.log(10)),
    "isnan": lambda body, a: body.op("not", body.op("is_finite", a["self"])),
    "isinf": lambda body, a: body.op("not", body.op("is_finite", a["self"])),
    "nan_to_num": lambda body, a: body.op("select_n", body.op("is_finite", a["self"]), a.get("nan") or 0.0, a["self"]),
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp,
    "hardtanh": _clamp,
    "relu": lambda body, a: body.op("max", a["self"], 0.0),
    "silu": lambda body, a: body.op("mul", a["self"], body.op("logistic", a["self"])),
    "softplus": _softplus,
    "log_sigmoid_forward": lambda body, a: body.op("neg", body.op("softplus", body.op("neg", a["self"]))),
    "where": lambda body, a: body.op("select_n", a["condition"], a["other"], a["self"]),
    "masked_fill": lambda body, a: body.op("select_n", a["mask"], a["self"], a["value"]),
    "lerp": lambda body, a: body.op("add", a["self"], body.op("mul", a["weight"], body.op("sub", a["end"], a["self"]))),
    "addcmul": lambda body, a: body.op(
        "add", a["self"], body.op("mul", body.op("mul", a["tensor1"], a["tensor2"]), float(a.get("value", 1)))
    ),
    "addmm": _addmm,
    "constant_pad_nd": lambda body, a: _padded(body, a["self"], float(a.get("value", 0))),
    "mean": _mean,
    "div": _quotient,
    "heaviside": _heaviside,
    "remainder": _remainder,
    "copy": lambda body, a: body.moved(a["src"], body.call.output),
}  # fmt: skip
"""Operations that are written in others."""
