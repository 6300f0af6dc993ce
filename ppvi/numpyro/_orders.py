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
        found = jax.custom_jvp(self._run())

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
        found = jax.custom_jvp(jax.value_and_grad(self._run(), argnums=tuple(places)))

        @found.defjvp
        def _(primals: Any, tangents: Any) -> Any:
            refuse_second(self.plan)
            again = jax.value_and_grad(self._run(again=True), argnums=tuple(places))
            return found(*primals), jax.jvp(again, primals, tangents)[1]

        return found

    def _run(self, again: bool = False) -> Callable[..., jax.Array]:
        def run(*leaves: Any) -> jax.Array:
            inputs, states = jax.tree.unflatten(self.rest, leaves)
            return surrogate(self.plan, OPS, inputs, states, again)

        return run


def derivatives_of(
    plan: Plan, params: Any, key: jax.Array, arrays: Sequence[Any], states: Any = None
) -> tuple[Derivatives, list[Any]]:
    """Those of the surrogate, and the numbers: these parameters, with this key, arguments and states."""
    values, structure = jax.tree.flatten(params)
    leaves, rest = jax.tree.flatten(([*values, key, *arrays], states))
    return Derivatives(plan, rest, structure), leaves
