"""What the checks need to know of ATen's operations: how smooth each is, and whether it moves entries or looks them up.

What is made of other operations is written in these (`written`); others are operations of the checks' algebra by another name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from ppvi.engine import algebra
from ppvi.ir import Meaning, Origin, Smoothness, Var, is_float
from ppvi.pyro._rules import Call
from ppvi.pyro._written import RULES, Body, norm_of_one

JUMP, SMOOTH = Smoothness.JUMP, Smoothness.SMOOTH

MOVES = frozenset("view reshape _unsafe_view expand permute t transpose unsqueeze squeeze flip".split())

OF_ONE = frozenset("sum prod amax amin logsumexp select slice".split())
"""Operations that of one entry make this entry."""

WHOLE = {
    "sum": "sum", "prod": "reduce_prod", "amax": "greatest", "amin": "greatest", "logsumexp": "logsumexp",
    "cumsum": "cumsum", "cumprod": "cumprod", "logcumsumexp": "cumlogsumexp", "_softmax": "softmax",
    "_log_softmax": "log_softmax", "select": "slice", "slice": "slice", "split": "slice", "unsafe_split": "slice",
    "cat": "concatenate",
    "stack": "stack", "mm": "dot_general", "bmm": "dot_general", "mv": "dot_general", "dot": "dot_general",
    "convolution": "conv_general_dilated",
    "linalg_cholesky_ex": "cholesky", "linalg_solve_triangular": "triangular_solve",
    "linalg_inv_ex": "solve", "_linalg_solve_ex": "solve", "linalg_pinv": "solve", "cholesky_inverse": "solve",
    "_linalg_det": "det", "_linalg_slogdet": "slogdet", "linalg_matrix_exp": "expm", "linalg_cross": "dot_general",
    "diag_embed": "diag", "diagonal": "diagonal", "block_diag": "concatenate", "roll": "rev", "tril": "tril",
    "triu": "tril", "var": "var", "mvlgamma": "mvlgamma", "polygamma": "polygamma", "gelu": "gelu", "mish": "mish",
    "argmax": "argmax", "argmin": "argmin", "bernoulli": "flip_a_coin", "searchsorted": "searchsorted",
    "special_i0e": "bessel_i0e", "special_i1e": "bessel_i1e", "i0": "bessel_i0", "special_i1": "bessel_i1", "sinc": "sinc",
    "trace": "sum", "unbind": "slice", "std": "norm", "aminmax": "greatest", "mse_loss": "mse_loss",
    "nll_loss_forward": "nll_loss", "huber_loss": "huber_loss", "smooth_l1_loss": "huber_loss", "complex": "complex",
    "view_as_real": "real", "view_as_complex": "complex", "_conj": "conj",
    **dict.fromkeys("elu leaky_relu _prelu_kernel celu hardswish hardsigmoid softshrink".split(), "elu"),
    **dict.fromkeys("_fft_r2c _fft_c2c _fft_c2r".split(), "fft"),
    **dict.fromkeys(
        "avg_pool2d avg_pool3d _adaptive_avg_pool2d upsample_linear1d upsample_bilinear2d".split(), "reduce_window_sum"
    ),
    **dict.fromkeys("native_layer_norm native_batch_norm native_group_norm".split(), "layer_norm"),
    **dict.fromkeys("_native_batch_norm_legit _native_batch_norm_legit_no_training".split(), "layer_norm"),
}  # fmt: skip
"""Operations by their name in the algebra, where they are one there."""

NORMS = {"linalg_vector_norm": "ord", "norm": "p", "dist": "p", "_cdist_forward": "p"}
"""Norms, and the name of the argument that says which; the one of order 0 counts."""

ORDERED = {"_linalg_eigh": 0, "_linalg_svd": 1}
"""Operations of which one output alone is continuous: eigenvalues and singular values in order."""

LOOKUPS = frozenset("index gather index_select embedding take masked_select".split())
PLACES = LOOKUPS | frozenset(
    """scatter scatter_add scatter_reduce index_put index_add index_reduce index_copy index_fill masked_scatter
    select_scatter slice_scatter diagonal_scatter""".split()
)
"""Operations that look things up; only the table and what is put into it is no place."""


def meaning(call: Call, inputs: Sequence[Any], out: Var, where: Callable[[], str], origin: Origin) -> Meaning:
    """The meaning of a call of an ATen operation."""
    name, of_one = call.name, math.prod(call.operands[0]) == math.prod(call.output) if call.operands else False
    written = norm_of_one if of_one and len(call.operands) == 1 and _whole(call) == "norm" else RULES.get(name)
    if written is not None:

        def inline(operands: Sequence[Any]) -> Any:
            body = Body(call, operands, out.dtype, where, origin)
            result = written(body, body.arguments())
            others = [Var(out.shape, out.dtype) for _ in range(call.results - 1)]
            return tuple(body.equations), (result, *others)

        return Meaning(name, inline=inline)
    if name in MOVES or (name in OF_ONE and of_one):
        return Meaning(name, lambda output, operand: SMOOTH, np.asarray, moves=True, key=_key(call))
    if name in ("max", "min", "sort", "topk", "kthvalue", "median", "cummax", "cummin", "max_pool2d_with_indices"):
        return Meaning("greatest", lambda output, operand: JUMP if output else Smoothness.LIPSCHITZ)
    if name in ORDERED:
        return Meaning(
            name,
            lambda output, operand: Smoothness.LIPSCHITZ if output == ORDERED[name] else JUMP,
            origin=lambda: origin,
        )
    if name in PLACES:
        real = [i for i, atom in enumerate(inputs) if is_float(atom)]
        known = "gather" if name in LOOKUPS else "scatter"
        own = Smoothness.LIPSCHITZ if call.arguments.get("reduce") in ("amax", "amin") else SMOOTH
        table = "wraps" if name in ("index", "gather", "index_select", "embedding") else None
        return Meaning(known, lambda output, operand: own if operand in real else JUMP, table=table)
    known = _whole(call)
    rule = None if known is None else algebra.smoothness_of(known)
    return Meaning(
        known or name, rule, origin=lambda: origin, key=None if known is None or name == "bernoulli" else _key(call)
    )


def _whole(call: Call) -> str | None:
    """The operation of the algebra that it is, as its arguments have it."""
    name, a = call.name, call.arguments
    if name in NORMS:
        order = a.get(NORMS[name])
        return "norm" if order is None or abs(order) >= 1 else None
    if name == "grid_sampler_2d":
        return None if a["interpolation_mode"] == NEAREST else "grid_sample"
    if name == "tril" and a.get("diagonal", 0) < 0:
        return "strict_tril"
    if name in ("diagonal", "diag_embed"):
        taken = name == "diagonal"
        ndim = len(call.operands[0] if taken else call.output)
        pair = [a.get("dim1", 0 if taken else -2) % ndim, a.get("dim2", 1 if taken else -1) % ndim]
        usual = pair == [ndim - 2, ndim - 1] and a.get("offset", 0) == 0
        return WHOLE[name] if usual else "slice" if taken else "diagonals"
    return WHOLE.get(name)


NEAREST = 1
"""The mode of a sampler of grids that takes the nearest entry."""


def _key(call: Call) -> Hashable:
    return call.name, call.output, repr(call.arguments)


def of_draw(library: bool) -> Meaning:
    """The meaning of a draw: a library's reparameterised sampler is continuous in what its distribution is made of."""
    smooth = (lambda output, operand: SMOOTH) if library else None
    return Meaning("draw", smooth, keyed=False, origin=lambda: Origin.SAMPLER)


def of_write() -> Meaning:
    """The meaning of a write into a buffer, which nobody reads."""
    return Meaning("copy", algebra.smoothness_of("copy"), np.array)


def of_note() -> Meaning:
    """The meaning of what is said of a value."""
    return Meaning("ppvi_note", algebra.smoothness_of("ppvi_note"), algebra.ENTRYWISE["ppvi_note"])
