"""The steps of a fit on JAX as one program, which fits that are alike share."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppvi.engine import training
from ppvi.engine.protocol import Params
from ppvi.engine.training import CHUNK, Averaging
from ppvi.numpyro._arguments import Structure
from ppvi.numpyro._compat import once
from ppvi.numpyro._learning import States
from ppvi.numpyro._moves import Move, Surroundings


class Moving(NamedTuple):
    """What a step changes."""

    step: jax.Array
    key: jax.Array
    """Raw: every step has its own, folded from this one."""
    params: Params
    """Unconstrained."""
    optimizers: tuple[Any, ...]
    """One for each objective."""
    strategies: tuple[States, ...]
    """What the strategies of each objective have learned."""
    average: Params
    """Of the unconstrained parameters over the steps; empty where it is not asked for."""
    modules: dict[str, Any]
    """What modules keep beside parameters, which every gradient moves once."""


@dataclass(frozen=True, eq=False)
class Loop:
    """Steps of a fit, and what they are made of. All that a fit has of its own is in what they move, so that fits of one
    objective by like optimisers may take them by one program."""

    moves: tuple[Move, ...]
    transforms: Mapping[str, Callable[[Any], Any]]
    constraints: Mapping[str, Any]
    averaging: Averaging | None
    impl: Any
    """Of random numbers."""
    starts: int

    def kind(self, moving: Moving) -> Hashable:
        """What another loop must have alike to be this one: its objectives, and as a program all that a step does beside the
        gradients of these."""

        def beside(moving: Moving) -> Any:
            around = Surroundings(self.keys(moving)[0], moving.step, moving.params, self.constrained, {}, (), {})
            updates = [move.updated(memory, around) for move, memory in zip(self.moves, moving.optimizers, strict=True)]
            return updates, self.constrained(moving.params), self._fine(moving, jnp.zeros(CHUNK))

        text = jax.jit(beside).lower(self._one(moving)).as_text()
        pairs = ((move.bound, move.names, tuple(move.learners.items())) for move in self.moves)
        mine = self if "callback" in text else None  # a program's text does not say which functions of Python it calls
        return *pairs, self.averaging, self.impl, self.starts, hashlib.sha256(text.encode()).digest(), mine

    @functools.cached_property
    def run(self) -> Any:
        """So many steps, of all starts side by side. Arrays among the arguments are inputs of it, not constants."""

        @functools.partial(jax.jit, static_argnums=3)
        def run(moving: Moving, n: int, arrays: list[Any], structure: Structure) -> tuple[Moving, jax.Array, jax.Array]:
            args, kwargs = structure.joined(arrays)

            def body(i: jax.Array, carry: tuple[Moving, jax.Array]) -> tuple[Moving, jax.Array]:
                moving, values = self._step(carry[0], args, kwargs)
                return moving, carry[1].at[i].set(values)

            def one(moving: Moving) -> tuple[Moving, jax.Array, jax.Array]:
                losses = jnp.zeros((CHUNK, len(self.moves)))
                moving, losses = jax.lax.fori_loop(0, n, body, (moving, losses))
                return moving, losses, self._fine(moving, losses)

            return self._each(one, moving)

        return run

    @functools.cached_property
    def values(self) -> Any:
        """Losses of the first objective in these draws, at the parameters of every start."""
        bound, sign = self.moves[0].bound, -1 if self.moves[0].bound.formula.maximize else 1

        @functools.partial(jax.jit, static_argnums=3)
        def values(moving: Moving, draws: jax.Array, arrays: list[Any], structure: Structure) -> jax.Array:
            args, kwargs = structure.joined(arrays)
            fresh = jax.random.fold_in(self.keys(self._one(moving))[0], 2**31)

            def one(moving: Moving) -> jax.Array:
                params = self.constrained(self.reached(moving)) | moving.modules

                def value(draw: jax.Array) -> jax.Array:
                    return sign * bound.surrogate(jax.random.fold_in(fresh, draw), params, *args, **kwargs)

                return jax.lax.map(value, draws)

            return self._each(one, moving)

        return values

    @functools.cached_property
    def params(self) -> Callable[[Moving], Params]:
        """Those that a fit gives back. As one program, of which there is little to run."""

        def params(moving: Moving) -> Params:
            return self.constrained(self.reached(moving))

        return jax.jit(params, compiler_options=once())

    def keys(self, moving: Moving) -> list[jax.Array]:
        """For the gradient of each objective."""
        key = jax.random.fold_in(jax.random.wrap_key_data(moving.key, impl=self.impl), moving.step)
        return list(jax.random.split(key, len(self.moves))) if len(self.moves) > 1 else [key]

    def constrained(self, unconstrained: Params) -> Params:
        return {name: self.transforms[name](value) for name, value in unconstrained.items()}

    def reached(self, moving: Moving) -> Params:
        """The unconstrained parameters that a fit gives back."""
        found = moving.params if self.averaging is None else moving.average
        return jax.tree.map(lambda mean, x: jnp.asarray(mean, x.dtype), found, moving.params)

    def _one(self, moving: Moving) -> Moving:
        return jax.tree.map(lambda x: x[0], moving) if self.starts > 1 else moving

    def _each(self, one: Callable[[Moving], Any], moving: Moving) -> Any:
        return jax.vmap(one)(moving) if self.starts > 1 else one(moving)

    def _step(self, moving: Moving, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Moving, jax.Array]:
        params, modules, memories, states, values = moving.params, moving.modules, [], [], []
        keys = self.keys(moving)
        for move, key, memory, known in zip(self.moves, keys, moving.optimizers, moving.strategies, strict=True):
            around = Surroundings(key, moving.step, params, self.constrained, modules, args, kwargs)
            value, params, memory, known, modules = move.step(around, memory, known)
            memories.append(memory)
            states.append(known)
            values.append(value)
        step, average = moving.step + 1, moving.average
        if self.averaging is not None:
            weight = self.averaging.weight(step)
            average = jax.tree.map(lambda mean, x: mean + (weight * (x - mean)).astype(mean.dtype), average, params)
        return Moving(step, moving.key, params, tuple(memories), tuple(states), average, modules), jnp.stack(values)

    def _fine(self, moving: Moving, losses: jax.Array) -> jax.Array:
        """Whether all is finite, and positive where it has to be."""
        good = [jnp.isfinite(losses).all(), *(jnp.isfinite(x).all() for x in jax.tree.leaves(moving.params))]
        for name, value in self.constrained(moving.params).items():
            for leaf in jax.tree.leaves(value):
                good.append(jnp.isfinite(leaf).all())
                positive = training.positive_part(leaf, self.constraints[name])
                if positive is not None:
                    good.append((positive > 0).all())
        return jnp.stack(good).all()
