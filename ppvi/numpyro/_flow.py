"""Which parameters reach a value of a traced program, and whether the value is a parameter, entry by entry.

An abstract run of a jaxpr. Of every value it knows the parameters that it depends on; of what was only moved about (reshaped,
broadcast, sliced, taken apart by constant indices) also which entry of which parameter each of its entries is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ppvi.numpyro._compat import INLINED, ClosedJaxpr, Literal, bind, body

MOVES = frozenset(
    "broadcast_in_dim reshape squeeze expand_dims slice transpose rev copy copy_p gather dynamic_slice "
    "optimization_barrier".split()
)
"""Operations whose result is entries of their first operand."""
SMALL = 1 << 16
"""Entries of the largest constant that is computed."""


class Flow(NamedTuple):
    """What is known of a value."""

    reached_by: frozenset[str] = frozenset()
    """The parameters that it depends on."""
    moved: str | None = None
    """The parameter that it is, if it is one."""
    entries: np.ndarray | None = None
    """Of `moved`, the number of each entry; or, of a constant, its value."""

    size: int = 0
    """How many entries `moved` has."""

    @property
    def known(self) -> bool:
        return self.moved is None and self.entries is not None


def flows(closed: ClosedJaxpr, inputs: Sequence[str | None]) -> list[Flow]:
    """Of each output; the inputs are arrays of the parameters of these names, or others. Trees of arrays have one name."""
    several = {name for name in inputs if inputs.count(name) > 1}
    given = [_input(name, name in several, var.aval) for name, var in zip(inputs, closed.jaxpr.invars, strict=True)]
    return _run(closed, given)


def _input(name: str | None, is_part: bool, aval: Any) -> Flow:
    if name is None or is_part:
        return Flow() if name is None else Flow(frozenset([name]))
    return Flow(frozenset([name]), name, np.arange(aval.size).reshape(aval.shape), aval.size)


def _run(closed: ClosedJaxpr, given: Sequence[Flow]) -> list[Flow]:
    jaxpr = closed.jaxpr
    found: dict[Any, Flow] = dict(zip(jaxpr.invars, given, strict=True))
    found |= {var: _constant(x) for var, x in zip(jaxpr.constvars, closed.consts, strict=True)}

    def flow(var: Any) -> Flow:
        return _constant(var.val) if isinstance(var, Literal) else found[var]

    for eqn in jaxpr.eqns:
        operands = [flow(var) for var in eqn.invars]
        inner = body(eqn) if eqn.primitive.name in INLINED else None
        out = _run(inner, operands) if inner is not None else _applied(eqn, operands)
        found |= dict(zip(eqn.outvars, out, strict=True))
    return [flow(var) for var in jaxpr.outvars]


def _constant(x: Any) -> Flow:
    is_key = jax.numpy.issubdtype(jax.numpy.result_type(x), jax.dtypes.prng_key)
    return Flow() if is_key or np.size(x) > SMALL else Flow(entries=np.asarray(x))


def _applied(eqn: Any, operands: Sequence[Flow]) -> list[Flow]:
    name = eqn.primitive.name
    reached_by = frozenset[str]().union(*(x.reached_by for x in operands))
    unknown = [Flow(reached_by) for _ in eqn.outvars]
    if name == "convert_element_type" and operands[0].moved is not None:
        same = eqn.invars[0].aval.dtype == eqn.outvars[0].aval.dtype
        return [operands[0]] if same else unknown
    moves = name in MOVES and bool(operands) and operands[0].moved is not None and all(x.known for x in operands[1:])
    computed = all(x.known for x in operands) and not eqn.effects and _is_small(eqn)
    if not (moves or computed):
        return unknown
    with jax.ensure_compile_time_eval():
        results = bind(eqn, [x.entries for x in operands])
    return [
        Flow(reached_by, operands[0].moved if moves else None, np.asarray(x), operands[0].size if moves else 0)
        for x in results
    ]


def _is_small(eqn: Any) -> bool:
    return all(var.aval.size <= SMALL and var.aval.dtype.kind in "biuf" for var in eqn.outvars)


def arranged(flow: Flow, shape: Sequence[int]) -> np.ndarray | None:
    """The entries of the parameter that a value of this shape is, each of them once; else None."""
    if flow.moved is None or flow.entries is None or flow.entries.shape != tuple(shape):
        return None
    return flow.entries if np.array_equal(np.sort(flow.entries, None), np.arange(flow.size)) else None


def by_name(params: Mapping[str, Any]) -> list[str | None]:
    """The parameters that the arrays of all of them belong to, in JAX's order."""
    paths: Any = jax.tree_util.tree_leaves_with_path(dict(params))
    return [path[0].key for path, _ in paths]
