"""The table of mistakes: what a person does, and the error that it is answered with, on either engine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions
import optax
import pyro
import pyro.distributions
import torch

import ppvi
from ppvi.objectives import elbo
from tests.engines import ENGINES, NUMPYRO, PYRO

N = 5
"""Rows of the data at hand."""


class Case:
    """An engine, with a model of a mean and a scale, its guide, and what makes a call of them right."""

    def __init__(self, engine: SimpleNamespace):
        raw: Any = numpyro if engine is NUMPYRO else pyro
        self.engine, self.vi = engine, engine.vi
        self.ppl, self.dist, self.is_numpyro = raw, raw.distributions, engine is NUMPYRO
        self.other = Case(PYRO) if engine is NUMPYRO else None
        self.xp = jnp if engine is NUMPYRO else torch
        self.infer, self.handlers = raw.infer, numpyro.handlers if engine is NUMPYRO else pyro.poutine
        self.key = engine.key(0)
        self.y = self.array(np.linspace(-1.0, 1.0, N))
        self.params = {"loc": self.array(0.1), "scale": self.array(1.2)}

    def array(self, numbers):
        return self.engine.array(np.asarray(numbers, float))

    def model(self, y):
        mean = self.ppl.sample("mean", self.dist.Normal(0.0, 1.0))
        with self.ppl.plate("rows", N):
            self.ppl.sample("heights", self.dist.Normal(mean, 1.0), obs=y)

    def guide(self, y):
        loc = self.ppl.param("loc", self.array(0.1))
        scale = self.ppl.param("scale", self.array(1.2), constraint=self.dist.constraints.positive)
        self.ppl.sample("mean", self.dist.Normal(loc, scale))

    def discrete(self, y):
        which = self.ppl.sample("which", self.dist.Bernoulli(probs=self.array(0.3)))
        with self.ppl.plate("rows", N):
            self.ppl.sample("heights", self.dist.Normal(which, 1.0), obs=y)

    def discrete_guide(self, y):
        logit = self.ppl.param("logit", self.array(0.1))
        self.ppl.sample("which", self.dist.Bernoulli(logits=logit))

    def objective(self, program=elbo, model=None, guide=None, **options):
        return self.vi.objective(program, model or self.model, guide or self.guide, **options)

    @functools.cached_property
    def bound(self):
        return self.objective()

    def fit(self, bound=None, *args, key=None, **options):
        options = {"num_steps": 2, "progress": False, **options}
        key = self.key if key is None else key
        return self.vi.fit(bound or self.bound, key, *(args or (self.y,)), **options)

    def gradient(self, program=elbo, model=None, guide=None, params=None, args=None, **options):
        """One gradient from the initial parameters."""
        bound = self.objective(program, model, guide, **options)
        args = (self.y,) if args is None else args
        params = bound.init(self.key, *args) if params is None else params
        return bound.value_and_grad(self.key, params, *args)

    def optimiser(self):
        """One of the other engine."""
        return functools.partial(torch.optim.Adam, lr=0.1) if self.is_numpyro else optax.adam(0.1)


class Mistake(NamedTuple):
    name: str
    make: Callable[[Case], Any]
    error: type[BaseException]
    words: tuple[str, ...]
    """That the message, or a note on the error, contains."""
    engines: tuple[SimpleNamespace, ...] = ENGINES


MISTAKES: list[Mistake] = []


def mistake(error: type[BaseException], *words: str, on: SimpleNamespace | None = None, called: str | None = None):
    """Enter a function of a case in the table."""

    def enter(make):
        MISTAKES.append(Mistake(called or make.__name__, make, error, words, (on,) if on else ENGINES))
        return make

    return enter


def mistakes(error: type[BaseException], *rows: tuple[Any, ...], on: SimpleNamespace | None = None) -> None:
    """Enter rows of a name, a function of a case and words."""
    for name, make, *words in rows:
        mistake(error, *words, on=on, called=name)(make)


PROGRAM, STRATEGY, ENGINE = ppvi.ProgramError, ppvi.StrategyError, ppvi.EngineError
