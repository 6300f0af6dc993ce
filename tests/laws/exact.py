"""The exact expectation of a gradient estimator of a finite program, by enumerating the estimator's own randomness.

The objective is staged and planned as always, but every sampler is replaced by a *tape*: an operation that, each time
it runs, takes the next choice among the joint values of its lanes. The surrogate then runs for every sequence of
choices, and gradients are averaged with the probabilities of the choices. Only the samplers are replaced: credit,
weights, nesting and baselines are the library's own.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import batching

from ppvi.compiler.surrogate import surrogate
from ppvi.numpyro import rules
from ppvi.numpyro.arguments import part
from ppvi.numpyro.distributions import SiteDistribution
from ppvi.numpyro.objective import Objective
from ppvi.numpyro.ops import JaxOps

QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
"""Each program runs once, so that time spent on optimising it is lost."""

MOST_DRAWS = 512
"""The most times that the samplers of one estimator may run."""

tape_p = Primitive("tape")
tape_p.def_abstract_eval(lambda value, support, log_probs, **params: value)


def _batch(args, dims, *, mapped, lanes):
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    moved = [
        jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
        for x, d in zip(args, dims, strict=True)
    ]
    return tape_p.bind(*moved, mapped=mapped + 1, lanes=lanes + 1), 0


batching.primitive_batchers[tape_p] = _batch


@dataclass
class Tape:
    """A sequence of choices, one for each time that a sampler runs."""

    choices: Any
    limit: int
    sizes: list[int] = field(default_factory=list)
    log_probability: Any = 0.0

    def next(self, value, support, log_probs, *, mapped, lanes):
        support, log_probs = jnp.moveaxis(support, mapped, 0), jnp.moveaxis(log_probs, mapped, 0)
        shape, values = value.shape[:lanes], support.shape[0]
        count = int(np.prod(shape))
        choice = self.choices[len(self.sizes)]
        self.sizes.append(values**count)
        if math.prod(self.sizes) > self.limit:
            raise TooManyExecutionsError(f"more than {self.limit} executions")
        digits = (choice // values ** np.arange(count) % values).reshape(1, *shape)
        spread = digits.reshape(digits.shape + (1,) * (value.ndim - lanes))
        chosen = jnp.take_along_axis(support, jnp.broadcast_to(spread, (1, *value.shape)), 0)[0]
        self.log_probability += jnp.take_along_axis(log_probs, digits, 0).sum()
        return jax.lax.stop_gradient(chosen.astype(value.dtype))


class TooManyExecutionsError(Exception):
    """The estimator's randomness has more values than a test should try."""


class LoopOps(JaxOps):
    """Vectorisation as a loop, so that every run of a sampler is a run of its own."""

    def vmap(self, function):
        def looped(*args):
            n = jax.tree.leaves(args)[0].shape[0]
            outs = [function(*jax.tree.map(lambda x: x[i], args)) for i in range(n)]
            return jax.tree.map(lambda *xs: jnp.stack([jnp.asarray(x) for x in xs]), *outs)

        return looped

    def one_by_one(self, function):
        return self.vmap(function)


@contextlib.contextmanager
def _taped():
    sample, samples, pick = SiteDistribution.sample, SiteDistribution.samples, SiteDistribution.pick

    def one(self, rng):
        support = self.enumerate_support()
        value = sample(self, rng)
        return tape_p.bind(value, support, self.log_prob(support), mapped=0, lanes=len(self.lanes))

    def many(self, rng, n):
        support = self.enumerate_support()
        value = samples(self, rng, n)
        stacked = jnp.broadcast_to(support[:, None], (len(support), *value.shape))
        log_probs = self.log_prob(support)
        stacked_log_probs = jnp.broadcast_to(log_probs[:, None], (len(support), n, *log_probs.shape[1:]))
        return tape_p.bind(value, stacked, stacked_log_probs, mapped=0, lanes=1 + len(self.lanes))

    def index(self, rng, log_weights, number):
        k, lanes = len(log_weights), log_weights.ndim - 1
        numbers = jnp.broadcast_to(jnp.arange(k).reshape(k, *[1] * lanes), log_weights.shape)
        log_probs = jax.lax.stop_gradient(jax.nn.log_softmax(log_weights, 0))
        return tape_p.bind(pick(self, rng, log_weights, number), numbers, log_probs, mapped=0, lanes=lanes)

    def flow(eqn, i):
        return tuple(range(len(eqn.invars[0].aval.shape)))

    with (
        mock.patch.object(SiteDistribution, "sample", one),
        mock.patch.object(SiteDistribution, "samples", many),
        mock.patch.object(SiteDistribution, "pick", index),
        mock.patch.dict(rules.RULES, {"tape": flow}),
        mock.patch.object(rules, "flow", _flow_of(rules.flow)),
    ):
        yield


def _flow_of(original):
    def flow(eqn):
        maps = original(eqn)
        # The value comes from the real sampler, whose dependence is the draw's; the others feed the tape only.
        return [[maps[0][0], None, None]] if eqn.primitive is tape_p else maps

    return flow


def expectation(
    objective: Objective, params: dict[str, Any], *args: Any, limit: int = 20000
) -> tuple[Any, dict[str, Any]]:
    """Exact expectation of the estimate and of its gradient."""
    key = jax.random.key(0)
    with _taped():
        arrays, structure = part(args, {})
        plan = objective._plan(key, params, arrays, structure)
    sizes: list[int] = []

    def run(params, choices):
        tape = Tape(choices, limit)
        with mock.patch.object(type(tape_p), "bind", _bind(tape, type(tape_p).bind)):
            value = surrogate(plan, LoopOps(), [*jax.tree.leaves(params), key, *arrays])
        sizes[:] = tape.sizes
        return value, jax.lax.stop_gradient(tape.log_probability)

    leaves, tree = jax.tree.flatten(params)
    once = jax.make_jaxpr(jax.value_and_grad(run, has_aux=True))(params, np.zeros(MOST_DRAWS, int))
    total = math.prod(sizes)
    choices = np.zeros((total, MOST_DRAWS), int)
    choices[:, : len(sizes)] = np.stack(np.unravel_index(np.arange(total), sizes or [1]), -1)[:, : len(sizes)]
    each = jax.jit(jaxpr_as_fun(once), compiler_options=QUICK).lower(*leaves, choices[0]).compile()
    outcomes = [each(*leaves, row) for row in choices]
    values, log_probability, *grads = (np.stack(x) for x in zip(*outcomes, strict=True))
    grads = jax.tree.unflatten(tree, grads)
    weights = jnp.exp(log_probability)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-9)
    return weights @ values, jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), grads)


def _bind(tape, original):
    def bind(self, *args, **params):
        return tape.next(*args, **params) if self is tape_p else original(self, *args, **params)

    return bind
