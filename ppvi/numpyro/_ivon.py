"""IVON for weights that no guide draws: a transformation of gradients as optax has them, which draws the weights, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppvi._doors import number
from ppvi.optimizers import IVON
from ppvi.optimizers.ivon import Newton


class Weights(NamedTuple):
    """What IVON knows of weights beside their means, in trees like theirs."""

    step: jax.Array
    precision: Any
    momentum: Any


class Transformation(NamedTuple):
    """An `optax.GradientTransformation` with draws."""

    init: Callable[[Any], Weights]
    """Takes the weights, which are means from now on."""
    draw: Callable[[jax.Array, Any, Weights], Any]
    """Takes a key, the means and the state to weights, drawn from `N(m, 1 / s)`."""
    update: Callable[..., tuple[Any, Weights]]
    """Takes gradients *at a draw*, the state, the means and `draw=`, to updates of the means and the state."""


def ivon(rule: IVON, *, ess: float, scale: float = 0.01) -> Transformation:
    """IVON for weights that no guide draws, as for any network that is trained by hand.

        rule = vi.ivon(ppvi.optimizers.IVON(0.1, prior_precision=10.0), ess=60_000)
        state = rule.init(means)

        weights = rule.draw(key, means, state)
        updates, state = rule.update(jax.grad(mean_loss)(weights, batch), state, means, draw=weights)
        means = optax.apply_updates(means, updates)

    What is descended is `ess E_q[mean loss] + KL(q || N(0, 1 / prior_precision))`.

    **Arguments**

    - `ess`: how many data the mean loss stands for, lambda in the paper; the weight decay delta is `prior_precision / ess`.
    - `scale`: the standard deviation to begin with, of all weights; the paper's initial Hessian is 1 / (ess scale^2) - delta.

    **Returns** an `init` and an `update`, as of optax, and `draw`. Shen et al. 2024.
    """
    number("ivon: ess", ess, above=0)
    number("ivon: scale", scale, above=0)

    def init(means: Any) -> Weights:
        precision = jax.tree.map(lambda m: jnp.full_like(m, scale**-2), means)
        return Weights(jnp.zeros((), jnp.int32), precision, jax.tree.map(jnp.zeros_like, means))

    def draw(key: jax.Array, means: Any, state: Weights) -> Any:
        leaves, tree = jax.tree.flatten(means)
        keys = jax.tree.unflatten(tree, list(jax.random.split(key, len(leaves))))
        return jax.tree.map(
            lambda k, m, s: m + jax.random.normal(k, m.shape, m.dtype) * s**-0.5, keys, means, state.precision
        )

    def update(gradients: Any, state: Weights, means: Any, *, draw: Any) -> tuple[Any, Weights]:
        def one(m: Any, s: Any, v: Any, g: Any, theta: Any) -> Newton:
            return rule.after(Newton(m, s, v), ess * g, theta, state.step)

        after = jax.tree.map(one, means, state.precision, state.momentum, gradients, draw)
        at, precision, momentum = jax.tree.transpose(
            jax.tree.structure(means), jax.tree.structure(Newton(0, 0, 0)), after
        )
        return jax.tree.map(jnp.subtract, at, means), Weights(state.step + 1, precision, momentum)

    return Transformation(init, draw, update)
