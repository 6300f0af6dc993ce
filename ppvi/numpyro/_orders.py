"""Derivatives of a surrogate: the first as it is computed, the second that of the objective, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from ppvi.compiler.plan import Plan
from ppvi.compiler.surrogate import surrogate
from ppvi.errors import EngineError
from ppvi.ir import Equation
from ppvi.numpyro._as_one import as_one
from ppvi.numpyro._ops import OPS
from ppvi.proofs.orders import refuse_second


@dataclass(frozen=True)
class Derivatives:
    """Of the surrogate of a plan, in numbers that it does not hold itself: JAX keeps rules of derivatives beyond a trace."""

    plan: Plan
    rest: Any
    """What makes inputs and states of the leaves."""
    params: Any
    """The structure of the parameters, whose leaves come first."""

    def surrogate(self, leaves: Sequence[Any]) -> jax.Array:
        """The number, whose derivative is by `gradient`, so that a second derivative of it is one of that."""
        found = jax.custom_jvp(as_one(self._run()))

        def derivative(primals: Any, tangents: Any) -> Any:
            places = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero)]
            value, slopes = self._gradient(places)(*primals)
            along = [jnp.sum(slope * tangents[i]).real for i, slope in zip(places, slopes, strict=True)]
            return value, sum(along, start=jnp.zeros_like(value))

        found.defjvp(derivative, symbolic_zeros=True)
        return found(*leaves)

    def gradient(self, leaves: Sequence[Any]) -> tuple[jax.Array, Any]:
        """Value and gradient in the parameters."""
        value, slopes = self._gradient(range(self.params.num_leaves))(*leaves)
        return value, jax.tree.unflatten(self.params, slopes)

    def _gradient(self, places: Sequence[int]) -> Callable[..., Any]:
        """Value and gradient in the leaves at these places; a derivative of them is that of the objective, or refused."""
        if not places:
            return lambda *leaves: (self._run()(*leaves), ())
        gradient = self._explained(jax.value_and_grad(self._run(), argnums=tuple(places)))
        found = jax.custom_jvp(as_one(gradient))

        @found.defjvp
        def _(primals: Any, tangents: Any) -> Any:
            with jax.ensure_compile_time_eval():
                refuse_second(self.plan)
            again = jax.value_and_grad(self._run(again=True), argnums=tuple(places))
            return found(*primals), jax.jvp(again, primals, tangents)[1]

        return found

    def _explained(self, gradient: Callable[..., Any]) -> Callable[..., Any]:
        def run(*leaves: Any) -> Any:
            try:
                return gradient(*leaves)
            except ValueError as error:  # JAX's, of operations that it cannot differentiate
                if (problem := _without_derivative(self.plan)) is None:
                    raise
                raise problem from error

        return run

    def _run(self, again: bool = False) -> Callable[..., jax.Array]:
        def run(*leaves: Any) -> jax.Array:
            inputs, states = jax.tree.unflatten(self.rest, leaves)
            return surrogate(self.plan, OPS, inputs, states, again)

        return run


def _without_derivative(plan: Plan) -> EngineError | None:
    """What is wrong with a plan in which there is an operation that JAX cannot differentiate."""
    for equation in plan.program.equations:
        if equation.op in _REMEDIES:
            sites = sorted({x.info.name for site, x in plan.choices.items() if _reaches(plan, site, equation)})
            drawn = f" of {', '.join(map(repr, sites))}" if sites else ""
            named = f", or name Reinforce() or LeaveOneOut() for {sites[0]!r}" if sites else ""
            return EngineError(
                f"{_CALLED.get(equation.op, equation.op)} at {equation.where()} has no derivative, and the gradient goes "
                f"through what it makes{drawn}: {_REMEDIES[equation.op]}{named}."
            )
    return None


def _reaches(plan: Plan, site: Equation, other: Equation) -> bool:
    """Whether an operation depends on a site."""
    depends = {*site.outputs}
    for equation in plan.program.equations:
        if equation is other:
            return any(atom in depends for atom in equation.inputs)
        if any(atom in depends for atom in equation.inputs):
            depends.update(equation.outputs)
    return False


_CALLED = {"while": "lax.while_loop"}
_REMEDIES = {
    "while": "use lax.scan, or lax.fori_loop with a number of rounds that Python knows",
    "pure_callback": "give the function a derivative by jax.custom_jvp, or compute it with jnp",
    "io_callback": "leave it out, or give the function a derivative by jax.custom_jvp",
}
"""By operation, what has a derivative in its place."""


def derivatives_of(
    plan: Plan, params: Any, key: jax.Array, arrays: Sequence[Any], states: Any = None
) -> tuple[Derivatives, list[Any]]:
    """Those of the surrogate, and the numbers: these parameters, with this key, arguments and states."""
    values, structure = jax.tree.flatten(params)
    leaves, rest = jax.tree.flatten(([*values, key, *arrays], states))
    return Derivatives(plan, rest, structure), leaves
