"""Every outcome of an estimator on JAX; see `ppvi.engine.outcomes`."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppvi.compiler.plan import Plan
from ppvi.compiler.surrogate import surrogate
from ppvi.engine import outcomes as engine
from ppvi.engine.outcomes import MOST_DRAWS, Outcomes
from ppvi.numpyro import _compat
from ppvi.numpyro._distributions import SiteDistribution
from ppvi.numpyro._markers import mark_outcome
from ppvi.numpyro._ops import JaxOps

QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
"""Each program runs a few times only, so that time spent on optimising it is lost."""


class Tape(engine.Tape):
    """A tape of JAX arrays."""

    def read(self, value: Any, support: Any, log_probs: Any, *, mapped: int, lanes: int) -> Any:
        """The value that is next, of the shape of `value`, from a support that lies along axis `mapped`."""
        support, log_probs = jnp.moveaxis(support, mapped, 0), jnp.moveaxis(log_probs, mapped, 0)
        shape, values = value.shape[:lanes], support.shape[0]
        count = math.prod(shape)
        choice = self.next(values, count)
        digits = (choice // values ** np.arange(count) % values).reshape(1, *shape)
        spread = digits.reshape(digits.shape + (1,) * (value.ndim - lanes))
        chosen = jnp.take_along_axis(support, jnp.broadcast_to(spread, (1, *value.shape)), 0)[0]
        self.log_probability += jnp.take_along_axis(log_probs, digits, 0).sum()
        return lax.stop_gradient(chosen.astype(value.dtype))


class Taped(engine.Taped, SiteDistribution):
    """A site whose samplers read a tape."""

    tape: Tape

    def sample(self, rng: jax.Array) -> Any:
        support, log_probs = self.enumerate_support(), jnp.log(self.probabilities())
        return self._next(super().sample(rng), support, log_probs, lanes=len(self.lanes))

    def samples(self, rng: jax.Array, n: int) -> Any:
        value, support = super().samples(rng, n), self.enumerate_support()
        log_probs = jnp.log(self.probabilities())
        stacked = jnp.broadcast_to(support[:, None], (len(support), *value.shape))
        stacked_log_probs = jnp.broadcast_to(log_probs[:, None], (len(support), n, *log_probs.shape[1:]))
        return self._next(value, stacked, stacked_log_probs, lanes=1 + len(self.lanes))

    def pick(self, rng: jax.Array, log_weights: jax.Array, number: int) -> jax.Array:
        k, lanes = len(log_weights), log_weights.ndim - 1
        numbers = jnp.broadcast_to(jnp.arange(k).reshape(k, *[1] * lanes), log_weights.shape)
        log_probs = lax.stop_gradient(jax.nn.log_softmax(log_weights, 0))
        return self._next(super().pick(rng, log_weights, number), numbers, log_probs, lanes=lanes)

    def noise(self, rng: jax.Array, kind: str, number: int, n: int | None = None) -> jax.Array:
        self.tape.noisy = True
        return super().noise(rng, kind, number, n)

    def _next(self, value: Any, support: Any, log_probs: Any, lanes: int) -> Any:
        return mark_outcome(value, support, log_probs, self.tape, lanes)


class LoopOps(JaxOps):
    """Vectorisation as a loop, so that every run of a sampler is a run of its own."""

    def vmap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def looped(*args: Any) -> Any:
            n = len(jax.tree.leaves(args)[0])
            outs = [function(*jax.tree.map(operator.itemgetter(i), args)) for i in range(n)]
            return jax.tree.map(lambda *xs: jnp.stack([jnp.asarray(x) for x in xs]), *outs)

        return looped

    def one_by_one(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.vmap(function)


def every_outcome(tape: Tape, plan: Plan, params: Any, arrays: Sequence[Any]) -> Callable[[int], Outcomes]:
    """From the seed of what is not on the tape to every outcome of a plan whose samplers read the tape."""
    key = jax.random.key(0)

    def run(params: Any, key: jax.Array, choices: Any) -> tuple[Any, Any]:
        tape.start(choices)
        value = surrogate(plan, LoopOps(), [*jax.tree.leaves(params), key, *arrays])
        return value, lax.stop_gradient(tape.log_probability)

    quick = {option: value for option, value in QUICK.items() if _compat.xla_knows(option, value)}
    each = jax.jit(jax.value_and_grad(run, has_aux=True), compiler_options=quick)
    each = each.lower(params, key, np.zeros(MOST_DRAWS, int)).compile()
    choices = tape.all()

    def every(seed: int) -> Outcomes:
        runs = [each(params, jax.random.key(seed), row) for row in tape.in_time(choices)]
        (values, log_probabilities), gradients = jax.tree.map(lambda *xs: np.stack(xs), *runs)
        named = {
            jax.tree_util.keystr(path, simple=True, separator="."): x
            for path, x in jax.tree_util.tree_leaves_with_path(gradients)
        }
        return Outcomes(np.exp(log_probabilities), values, named)

    return every
