"""Running a traced function again, operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jax.extend.core import Jaxpr, Literal
from jax.extend.source_info_util import user_context


def replay(
    jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any], operation: Callable[[Any, list[Any]], Sequence[Any]]
) -> list[Any]:
    """What a traced function returns where `operation(equation, values)` is what an equation returns."""
    values: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        # What is bound anew is at the place in the user's code where it was.
        with user_context(eqn.source_info.traceback, name_stack=eqn.source_info.name_stack):
            outs = operation(eqn, [read(atom) for atom in eqn.invars])
        values.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def run(eqn: Any, values: Sequence[Any]) -> Sequence[Any]:
    """What an equation returns as it stands."""
    out = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return out if eqn.primitive.multiple_results else [out]
