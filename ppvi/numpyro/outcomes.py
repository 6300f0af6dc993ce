"""Every outcome of a gradient estimator of a finite program, and with them its exact mean.

The objective is staged and planned as always, but its samplers read a *tape*: each time one of them runs, it takes the
next choice among the joint values of its lanes. The surrogate runs for every sequence of choices, and gradients are
averaged with the probabilities of the choices. Credit, weights, nesting and baselines are those of any other run.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppvi.compiler.surrogate import surrogate
from ppvi.errors import EngineError
from ppvi.numpyro.arguments import part
from ppvi.numpyro.distributions import SiteDistribution
from ppvi.numpyro.ops import JaxOps
from ppvi.numpyro.stage import mark_outcome

if TYPE_CHECKING:
    from ppvi.numpyro.objective import Objective

QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
"""Each program runs a few times only, so that time spent on optimising it is lost."""

MOST_DRAWS = 512
"""The most times that the samplers of one estimator may run."""


class Outcomes(NamedTuple):
    """Every outcome of an estimator: stacks with the outcomes in front."""

    probabilities: Any
    values: Any
    gradients: Any

    def mean(self) -> tuple[Any, Any]:
        """The exact means of the estimate and of its gradient."""
        return jax.tree.map(lambda x: np.tensordot(self.probabilities, x, 1), (self.values, self.gradients))


class Tape:
    """A sequence of choices, one for each time that a sampler runs."""

    def __init__(self, limit: int):
        self.limit = limit
        self.noisy = False
        """Whether a strategy asked for noise that is not of the tape."""
        self.start(None)

    def start(self, choices: Any) -> None:
        self.choices = choices
        self.sizes: list[int] = []
        self.log_probability: Any = 0.0

    def next(self, value: Any, support: Any, log_probs: Any, *, mapped: int, lanes: int) -> Any:
        """The value that is next, of the shape of `value`, from a support that lies along axis `mapped`."""
        support, log_probs = jnp.moveaxis(support, mapped, 0), jnp.moveaxis(log_probs, mapped, 0)
        shape, values = value.shape[:lanes], support.shape[0]
        count = math.prod(shape)
        if math.prod(self.sizes) * values**count > self.limit or len(self.sizes) == MOST_DRAWS:
            raise EndlessError(f"the estimator's randomness has more than {self.limit} outcomes.")
        choice = self.choices[len(self.sizes)]
        self.sizes.append(values**count)
        digits = (choice // values ** np.arange(count) % values).reshape(1, *shape)
        spread = digits.reshape(digits.shape + (1,) * (value.ndim - lanes))
        chosen = jnp.take_along_axis(support, jnp.broadcast_to(spread, (1, *value.shape)), 0)[0]
        self.log_probability += jnp.take_along_axis(log_probs, digits, 0).sum()
        return lax.stop_gradient(chosen.astype(value.dtype))


class EndlessError(EngineError):
    """An estimator whose own randomness has too many outcomes to go through them."""


class Taped(SiteDistribution):
    """A site whose samplers read a tape."""

    def __init__(self, tape: Tape, fn: Any, baseline_input: Any = None):
        super().__init__(fn, baseline_input)
        self.tape = tape

    def sample(self, rng: jax.Array) -> Any:
        support = self.enumerate_support()
        return self._next(super().sample(rng), support, self.log_prob(support), lanes=len(self.lanes))

    def samples(self, rng: jax.Array, n: int) -> Any:
        value, support = super().samples(rng, n), self.enumerate_support()
        log_probs = self.log_prob(support)
        stacked = jnp.broadcast_to(support[:, None], (len(support), *value.shape))
        stacked_log_probs = jnp.broadcast_to(log_probs[:, None], (len(support), n, *log_probs.shape[1:]))
        return self._next(value, stacked, stacked_log_probs, lanes=1 + len(self.lanes))

    def pick(self, rng: jax.Array, log_weights: jax.Array, number: int) -> jax.Array:
        k, lanes = len(log_weights), log_weights.ndim - 1
        numbers = jnp.broadcast_to(jnp.arange(k).reshape(k, *[1] * lanes), log_weights.shape)
        log_probs = lax.stop_gradient(jax.nn.log_softmax(log_weights, 0))
        return self._next(super().pick(rng, log_weights, number), numbers, log_probs, lanes=lanes)

    def rsample(self, rng: jax.Array) -> Any:
        raise EndlessError(f"{self.name} has no finite support.")

    def noise(self, rng: jax.Array, kind: str, number: int, n: int | None = None) -> jax.Array:
        self.tape.noisy = True
        return super().noise(rng, kind, number, n)

    def enumerate_support(self) -> jax.Array:
        if not self.has_enumerate_support:
            raise EndlessError(f"{self.name} has no finite support.")
        return super().enumerate_support()

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


def outcomes(
    objective: Objective,
    params: Any,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    limit: int,
) -> Outcomes:
    """Run an objective's estimator for every outcome of its randomness.

    **Raises** `EndlessError` where a site is not finite, where there are more outcomes than the limit, or where noise beside
    the sites' draws makes a difference.
    """
    tape, arrays, structure = Tape(limit), *part(args, dict(kwargs or {}))
    keys = [jax.random.key(0), jax.random.key(1)]
    plan = objective.planned(keys[0], params, arrays, structure, lambda fn, *others: Taped(tape, fn, *others))

    def run(params: Any, key: jax.Array, choices: Any) -> tuple[Any, Any]:
        tape.start(choices)
        value = surrogate(plan, LoopOps(), [*jax.tree.leaves(params), key, *arrays])
        return value, lax.stop_gradient(tape.log_probability)

    each = jax.jit(jax.value_and_grad(run, has_aux=True), compiler_options=QUICK)
    each = each.lower(params, keys[0], np.zeros(MOST_DRAWS, int)).compile()
    total = math.prod(tape.sizes)
    choices = np.zeros((total, MOST_DRAWS), int)
    if tape.sizes:
        choices[:, : len(tape.sizes)] = np.stack(np.unravel_index(np.arange(total), tape.sizes), -1)

    def every(key: jax.Array) -> Outcomes:
        runs = [each(params, key, row) for row in choices]
        (values, log_probabilities), gradients = jax.tree.map(lambda *xs: np.stack(xs), *runs)
        probabilities = np.exp(log_probabilities)
        if abs(probabilities.sum() - 1) > 1e4 * np.finfo(probabilities.dtype).eps:
            raise EngineError(
                f"the probabilities of all outcomes of the sites add up to {probabilities.sum():.6g}, not to 1: is a "
                f"distribution's log_prob normalised over its enumerate_support?"
            )
        return Outcomes(probabilities, values, gradients)

    found = every(keys[0])
    if tape.noisy and not close(found.mean(), every(keys[1]).mean()):
        raise EndlessError("a strategy draws noise, of infinitely many outcomes.")
    return found


def close(left: Any, right: Any) -> bool:
    """Whether trees of numbers agree, to single precision."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)
