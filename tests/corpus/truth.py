"""The truth about a gradient, by the score function of NumPyro's own densities.

    d E_q[V(z)]  =  E_q[ (V(z) - b) d log q(z)  +  dV(z) ],    z held constant

asks for no continuity of V in the draws, and of the density of these for what does not move its support. It is written with
NumPyro's handlers and nothing of the library's: what an objective program is given are plain runs of a model and a guide, in
which nothing is held constant but what was drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer.util import log_density

import ppvi

FAR = 5.0
"""Standard errors that no difference between right means exceeds: one in two million does, by chance."""


class Run(dict[str, Any]):
    """What a program has drawn."""

    log_density: Any
    returned: Any


class Plain(ppvi.Program):
    """A program at parameters, as an objective is given it."""

    def __init__(self, program: Callable[..., Any], params: Any, key: jax.Array):
        self.program, self.params, self.key, self.score = program, params, key, jnp.zeros(())

    def simulate(self) -> Run:
        self.key, key = jax.random.split(self.key)
        seeded = handlers.seed(handlers.substitute(self.program, data=self.params), key)
        trace = handlers.trace(seeded).get_trace()
        run = Run({name: _held(site["value"]) for name, site in trace.items() if _is_drawn(site)})
        run.log_density = self.log_density(run)
        run.returned = handlers.seed(handlers.substitute(self.program, data={**self.params, **run}), key)()
        self.score = self.score + run.log_density
        return run

    def log_density(self, choices: Any, **_: Any) -> Any:
        return log_density(handlers.seed(self.program, self.key), (), {}, {**self.params, **choices})[0]


def by_score(entry: Any, params: Any, draws: int) -> np.ndarray:
    """Draws of the gradient by the score function, `(draw, parameter)`."""

    def run(params: Any, key: jax.Array) -> tuple[Any, Any]:
        p, q = (
            Plain(program, params, k)
            for program, k in zip((entry.model, entry.guide), jax.random.split(key), strict=True)
        )
        with handlers.substitute(data=params), handlers.seed(rng_seed=key):
            value = entry.program(p, q)
        return value, q.score

    def gradient(key: jax.Array) -> Any:
        (value, _), back = jax.vjp(lambda params: run(params, key), params)
        zero, one = jnp.zeros_like(value), jnp.ones_like(value)
        return value, *(ravel_pytree(back(ends)[0])[0] for ends in ((one, zero), (zero, one)))

    with _nothing_held():
        value, own, score = jax.jit(jax.vmap(gradient))(jax.random.split(jax.random.key(7), draws))
    value, own, score = (np.asarray(x, float) for x in (value, own, score))
    return (value - value.mean())[:, None] * score + own


def apart(entry: Any, estimate: Callable[..., Any], params: Any, draws: int) -> float:
    """How many standard errors lie between the means of an estimator and of the score function, at most."""
    found = jax.jit(jax.vmap(lambda key: ravel_pytree(estimate(key, params)[1])[0]))(
        jax.random.split(jax.random.key(3), draws)
    )
    truth, found = by_score(entry, params, 4 * draws), np.asarray(found, float)
    error = np.sqrt(found.var(0) / len(found) + truth.var(0) / len(truth) + 1e-12)
    return float(np.max(abs(found.mean(0) - truth.mean(0)) / error))


def _is_drawn(site: Any) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def _held(value: Any) -> Any:
    return jax.lax.stop_gradient(value)


@contextmanager
def _nothing_held() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppvi, "stop_gradient", lambda x, because=None: x)
        yield
