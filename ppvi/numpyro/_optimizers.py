"""Optimisers on JAX: what a user gives as one, as a transformation of gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ppvi._doors import described
from ppvi.engine.protocol import Params
from ppvi.engine.training import step_size_of
from ppvi.errors import ProgramError
from ppvi.numpyro._compat import NumPyroOptim


def rule_of(optimizer: Any, params: Params) -> optax.GradientTransformation:
    """An optimiser of optax or of NumPyro, for these parameters; a number is Adam's step size."""
    step_size = step_size_of(optimizer)
    if step_size is not None:
        return optax.adam(step_size)
    if isinstance(optimizer, NumPyroOptim):
        return _of_numpyro(optimizer)
    if isinstance(optimizer, type) or not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise ProgramError(
            f"fit: the optimizer must be the step size of Adam, such as 0.01, or one of optax or numpyro.optim, such as "
            f"optax.adam(0.01), and not {described(optimizer)}."
        )
    try:
        jax.eval_shape(lambda x: optimizer.update(x, optimizer.init(x), x), params)
    except TypeError as error:
        raise ProgramError(
            f"fit: the optimizer's update takes more than a gradient, which is all that a fit gives it ({error}): the "
            f"objective's value is of other draws at every step. Take one such as optax.adam(0.01)."
        ) from error
    return optimizer


def _of_numpyro(optimizer: Any) -> optax.GradientTransformation:
    """An optimiser of NumPyro, which moves parameters of its own: updates are differences to these."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        state = optimizer.update(updates, state)
        return jax.tree.map(jnp.subtract, optimizer.get_params(state), params), state

    return optax.GradientTransformation(optimizer.init, update)
