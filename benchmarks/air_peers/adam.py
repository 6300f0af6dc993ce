"""Adam on JAX, one jitted step at a time."""

import jax
import optax

from benchmarks.turns import serve


def serve_adam(gradient, params, started):
    """Serve steps up `gradient(key, params)`, the gradient of a mean over images."""
    rule = optax.adam(1e-4)

    @jax.jit
    def update(key, params, state):
        updates, state = rule.update(jax.tree.map(lambda g: -g, gradient(key, params)), state)
        return optax.apply_updates(params, updates), state

    now = [jax.random.key(2), params, rule.init(params)]

    def step():
        now[0], key = jax.random.split(now[0])
        now[1:] = jax.block_until_ready(update(key, *now[1:]))

    serve(step, started)
