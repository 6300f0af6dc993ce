"""Training on JAX: steps run in one jitted loop, which is compiled once for any number of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from numpyro.distributions import biject_to
from numpyro.distributions.distribution import validation_enabled
from numpyro.optim import _NumPyroOptim

from ppvi.engine.objectives import Params
from ppvi.engine.training import (
    CHUNK,
    Arrays,
    Data,
    State,
    Whose,
    cause_in,
    moved,
    one_each,
    positive_part,
    refuse_other_shapes,
    refuse_other_state,
    refuse_unknown_params,
    step_size_of,
    strayed,
    update_of,
    weight_in_average,
)
from ppvi.errors import ProgramError
from ppvi.numpyro.arguments import Structure
from ppvi.numpyro.learning import Learners, States, first_states, learners_of, value_grad_and_states
from ppvi.numpyro.objective import Estimator
from ppvi.numpyro.reading import called
from ppvi.numpyro.session import as_key, shapes
from ppvi.numpyro.sharding import Layout
from ppvi.numpyro.unstaged import Probe


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


@dataclass(frozen=True)
class Move:
    """What one objective does in a step: a gradient step of its own parameters."""

    bound: Estimator
    names: tuple[str, ...]
    rule: optax.GradientTransformation
    learners: Learners

    def mine(self, params: Params) -> Params:
        return {name: params[name] for name in self.names}

    def step(
        self,
        key: jax.Array,
        params: Params,
        memory: Any,
        states: States,
        constrain: Callable[[Params], Params],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[jax.Array, Params, Any, States]:
        """The loss; the parameters, the optimiser's memory and the strategies' states after the step."""

        def surrogate(mine: Params, values: dict[str, Any]) -> jax.Array:
            return self.bound.surrogate_in(values, key, constrain(params | mine), args, kwargs)

        mine, sign = self.mine(params), -1 if self.bound.maximize else 1
        value, grads, states = value_grad_and_states(surrogate, self.learners, mine, states)
        updates, memory = self.rule.update(jax.tree.map(lambda g: sign * g, grads), memory, mine)
        return sign * value, params | cast(Params, optax.apply_updates(mine, updates)), memory, states


class Trainer:
    """Moves the parameters of objectives on JAX; a `ppvi.engine.training.Trainer`."""

    remedy = "optax.clip_by_global_norm"

    def __init__(
        self,
        pairs: Sequence[tuple[Estimator, Whose]],
        key: jax.Array,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        optimizer: Any = None,
        params: Params | None = None,
        averaging: float | None = None,
        mesh: Mesh | None = None,
    ):
        self.objectives = tuple(bound for bound, _ in pairs)
        self.averaging, self.layout = averaging, Layout(mesh)
        init_key, self._key = jax.random.split(as_key(key))
        self._impl = jax.random.key_impl(self._key)
        starts = [bound.initialise(init_key, *args, **kwargs) for bound in self.objectives]
        self._start = _started_from({name: x for at in starts for name, x in at.params.items()}, params)
        self.constraints = {name: constraint for at in starts for name, constraint in at.constraints.items()}
        self.transforms = {name: biject_to(constraint) for name, constraint in self.constraints.items()}
        names = (moved(whose, at) for (_, whose), at in zip(pairs, starts, strict=True))
        self._plans = [
            bound.staged(at.params, *args, **kwargs) if at.learning else None
            for bound, at in zip(self.objectives, starts, strict=True)
        ]
        learners = [learners_of(plan) if plan else {} for plan in self._plans]
        rules = map(_rule, one_each(optimizer, len(pairs)))
        self.moves = tuple(map(Move, self.objectives, names, rules, learners))
        self._placed: tuple[Data | None, dict[Structure, list[Any]]] = None, {}
        first = self._first()
        paths, self._tree = jax.tree_util.tree_flatten_with_path(first)
        self._keys_of = [jax.random.key_impl(x) if is_key(x) else None for _, x in paths]
        self._names = [jax.tree_util.keystr(path).removeprefix(".") for path, _ in paths]
        self._init = State(self._arrays(first), np.zeros((0, *self._several), jnp.zeros(()).dtype))

    @property
    def _several(self) -> tuple[int, ...]:
        return () if len(self.moves) == 1 else (len(self.moves),)

    def _first(self) -> Moving:
        unconstrained = {name: self.transforms[name].inv(value) for name, value in self._start.items()}
        first = Moving(
            jnp.zeros((), jnp.int32),
            jax.random.key_data(self._key),
            unconstrained,
            tuple(move.rule.init(move.mine(unconstrained)) for move in self.moves),
            tuple(first_states(plan) if plan else States({}, {}) for plan in self._plans),
            jax.tree.map(_precise, unconstrained) if self.averaging is not None else {},
        )
        # Weak types would make the second call of the loop compile again.
        return self.layout.copy(jax.tree.map(lambda x: x if is_key(x) else jnp.array(x, jnp.result_type(x)), first))

    def _arrays(self, moving: Moving) -> Arrays:
        leaves = (jax.random.key_data(x) if is_key(x) else x for x in jax.tree.leaves(moving))
        return dict(zip(self._names, leaves, strict=True))

    def _moving(self, state: State) -> Moving:
        leaves = (state.arrays[name] for name in self._names)
        kept = [
            x if impl is None else jax.random.wrap_key_data(x, impl=impl)
            for x, impl in zip(leaves, self._keys_of, strict=True)
        ]
        return jax.tree.unflatten(self._tree, kept)

    def init(self) -> State:
        return self._init

    def restored(self, state: State) -> State:
        refuse_other_state(self._init.arrays, state)
        like = self._init.arrays
        arrays = {name: jnp.asarray(state.arrays[name], like[name].dtype) for name in self._names}
        return State(self.layout.copy(arrays), state.losses)

    def advance(self, state: State, n: int, data: Data) -> tuple[Arrays, np.ndarray, bool]:
        if self._placed[0] is not data:
            self._placed = data, {}

        def call(arrays: list[Any], structure: Structure) -> tuple[Moving, jax.Array, jax.Array]:
            placed = self._placed[1]
            if structure not in placed:
                placed[structure] = self.layout.split(arrays)
            return self._run(self._moving(state), n, placed[structure], structure)

        with self.layout.partitioned():
            after, losses, fine = called(self.objectives, call, self._start, *data)
        return self._arrays(after), np.asarray(losses)[:n].reshape(n, *self._several), bool(fine)

    @functools.cached_property
    def _run(self) -> Any:
        """So many steps. Arrays among the arguments are inputs of it, not constants."""

        @functools.partial(jax.jit, static_argnums=3)
        def run(moving: Moving, n: int, arrays: list[Any], structure: Structure) -> tuple[Moving, jax.Array, jax.Array]:
            args, kwargs = structure.joined(arrays)

            def body(i: jax.Array, carry: tuple[Moving, jax.Array]) -> tuple[Moving, jax.Array]:
                moving, values = self._step(carry[0], args, kwargs)
                return moving, carry[1].at[i].set(values)

            losses = jnp.zeros((CHUNK, len(self.moves)))
            moving, losses = jax.lax.fori_loop(0, n, body, (moving, losses))
            return moving, losses, self._fine(moving, losses)

        return run

    def _step(self, moving: Moving, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Moving, jax.Array]:
        params, memories, states, values = moving.params, [], [], []
        keys = self._keys(moving)
        for move, key, memory, known in zip(self.moves, keys, moving.optimizers, moving.strategies, strict=True):
            value, params, memory, known = move.step(key, params, memory, known, self._constrained, args, kwargs)
            memories.append(memory)
            states.append(known)
            values.append(value)
        step, average = moving.step + 1, moving.average
        if self.averaging is not None:
            weight = weight_in_average(step, self.averaging)
            average = jax.tree.map(lambda mean, x: mean + (weight * (x - mean)).astype(mean.dtype), average, params)
        return Moving(step, moving.key, params, tuple(memories), tuple(states), average), jnp.stack(values)

    def _keys(self, moving: Moving) -> list[jax.Array]:
        key = jax.random.fold_in(jax.random.wrap_key_data(moving.key, impl=self._impl), moving.step)
        return list(jax.random.split(key, len(self.moves))) if self._several else [key]

    def _constrained(self, unconstrained: Params) -> Params:
        return {name: self.transforms[name](value) for name, value in unconstrained.items()}

    def _fine(self, moving: Moving, losses: jax.Array) -> jax.Array:
        """Whether all is finite, and positive where it has to be."""
        good = [jnp.isfinite(losses).all(), *(jnp.isfinite(x).all() for x in jax.tree.leaves(moving.params))]
        for name, value in self._constrained(moving.params).items():
            for leaf in jax.tree.leaves(value):
                good.append(jnp.isfinite(leaf).all())
                positive = positive_part(leaf, self.constraints[name])
                if positive is not None:
                    good.append((positive > 0).all())
        return jnp.stack(good).all()

    def params(self, state: State) -> Params:
        moving = self._moving(state)
        found = self.layout.gathered(moving.params if self.averaging is None else moving.average)
        return self._constrained(jax.tree.map(lambda mean, x: jnp.asarray(mean, x.dtype), found, moving.params))

    def problem(self, state: State) -> str | None:
        params = self.layout.gathered(self._moving(state).params)
        lost = [name for name, value in params.items() if not _finite(value)]
        if lost or not np.isfinite(state.losses[-1:]).all():
            return update_of(lost[0]) if lost else "the objective's value is not finite"
        for name, value in self._constrained(params).items():
            for leaf in jax.tree.leaves(value):
                if cause := strayed(name, np.asarray(leaf), self.constraints[name]):
                    return cause
        return None

    def cause(self, state: State, data: Data) -> str | None:
        moving, (args, kwargs) = self._moving(state), data
        params = self._constrained(self.layout.gathered(moving.params))
        for key, bound in zip(self._keys(moving), self.objectives, strict=True):
            with validation_enabled(False):
                start = functools.partial(Probe, key, params, bound.strategies)
                _, probe = bound.evaluate(start, args, kwargs)
            value, grads = bound.value_and_grad(key, params, *args, **kwargs)
            bad = [name for name, grad in grads.items() if not _finite(grad)]
            if cause := cause_in(probe.culprits, _finite(value), bad):
                return cause
        return None

    def end(self, state: State) -> None:
        pass


def _rule(optimizer: Any) -> optax.GradientTransformation:
    """An optimiser of optax; a number is Adam's step size."""
    step_size = step_size_of(optimizer)
    if step_size is not None:
        return optax.adam(step_size)
    optax_has = callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))
    if isinstance(optimizer, type | _NumPyroOptim) or not optax_has:
        kind = type(optimizer)
        name = getattr(optimizer, "__qualname__", None) or f"an instance of {kind.__module__}.{kind.__name__}"
        raise ProgramError(
            f"fit: the optimizer must be one of optax, such as optax.adam(0.01), or the step size of Adam, not {name}."
        )
    return optimizer


def _started_from(start: Params, params: Params | None) -> Params:
    if params is None:
        return start
    refuse_unknown_params(start, params)
    refuse_other_shapes({name: start[name] for name in params}, params, shapes)
    given = {name: jax.tree.map(lambda x, y: jnp.asarray(y, x.dtype), start[name], params[name]) for name in params}
    return start | given


def is_key(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key)


def _precise(x: jax.Array) -> jax.Array:
    """In which a mean of many numbers still moves."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _finite(tree: Any) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))
