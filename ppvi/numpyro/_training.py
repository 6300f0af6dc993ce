"""Training on JAX: steps run in one jitted loop, which is compiled once for any number of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpyro.distributions import biject_to

from ppvi.engine import training
from ppvi.engine.gaps import gaps_of
from ppvi.engine.geometry import refuse_misused
from ppvi.engine.protocol import Params, Start
from ppvi.engine.training import CHUNK, Arrays, Averaging, Data, State, Whose
from ppvi.numpyro._arguments import Structure
from ppvi.numpyro._compat import once
from ppvi.numpyro._engine import Estimator
from ppvi.numpyro._geometry import Blockwise, divergence_of, parts_of
from ppvi.numpyro._known import by_numpy
from ppvi.numpyro._learning import States, first_states, learners_of
from ppvi.numpyro._loop import Loop, Moving
from ppvi.numpyro._modules import Begun
from ppvi.numpyro._moves import Move, Plain, Rule
from ppvi.numpyro._optimizers import rule_of
from ppvi.numpyro._programs import as_key, check, shapes
from ppvi.numpyro._reading import called
from ppvi.numpyro._sharding import Layout
from ppvi.optimizers.base import Geometric

T = TypeVar("T")


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
        averaging: Averaging | None = None,
        mesh: Mesh | None = None,
        starts: int = 1,
    ):
        self.objectives = tuple(bound for bound, _ in pairs)
        self.averaging, self.layout, self.starts = averaging, Layout(mesh), starts
        with by_numpy():
            init_key, run_key = jax.random.split(as_key(key))
        found = [bound.initialise(init_key, *args, **kwargs) for bound in self.objectives]
        for bound, at in zip(self.objectives, found, strict=True):
            bound.formula.refuse_no_params(at.params)
        self._from = training.beginning([whose for _, whose in pairs], found, biject_to)
        self._many, self._several = (() if n == 1 else (n,) for n in (starts, len(pairs)))
        first, constraints = self._from.params, self._from.constraints
        begun = Begun()
        for start in found:
            begun.meet(start.modules)
        mine, states = begun.parted({} if params is None else params)
        given = training.started_from(first, constraints, mine, _like, shapes, _numbers, check)
        self._start, kept = first | given, {} if params is None else begun.given(params)

        def modules(key: jax.Array, params: Params) -> dict[str, Any]:
            at = Begun()
            for bound in self.objectives:
                at.meet(bound.beginnings(key, params | kept, args, kwargs))
            return _like(begun.first, at.first)

        self._plans = [
            bound.staged(at.params, *args, **kwargs) if at.learning else None
            for bound, at in zip(self.objectives, found, strict=True)
        ]
        learners = [learners_of(plan) if plan else {} for plan in self._plans]
        rules = [
            self._rule(rule, bound, at, names, init_key, args, kwargs)
            for rule, bound, at, names in zip(
                training.one_each(optimizer, len(pairs)), self.objectives, found, self._from.names, strict=True
            )
        ]
        self.explained = tuple(line for rule in rules for line in rule.explained)
        moves = tuple(map(Move, self.objectives, self._from.names, rules, learners))
        impl = jax.random.key_impl(run_key)
        self._loop = Loop(moves, self._from.transforms, self._from.constraints, averaging, impl, starts)
        self._placed: tuple[Data | None, dict[Structure, list[Any]]] = None, {}
        with by_numpy():
            unconstrained = jax.jit(self._from.unconstrained, compiler_options=once())(self._start)
        beginning = modules(init_key, self._start) if given and states else _like(begun.first, states)
        first = self._moving_from(run_key, unconstrained, beginning)
        paths, self._tree = jax.tree_util.tree_flatten_with_path(first)
        self._keys_of = [jax.random.key_impl(x) if is_key(x) else None for _, x in paths]
        self._names = [jax.tree_util.keystr(path).removeprefix(".") for path, _ in paths]
        self.averages = [name for name in self._names if name.startswith("average")]
        all_of_them = [self._arrays(first)]
        for i in range(1, starts):
            init_key, run_key = jax.random.split(jax.random.fold_in(as_key(key), 2**31 + i))
            others = [bound.initialise(init_key, *args, **kwargs).params for bound in self.objectives]
            other = {name: value for each in others for name, value in each.items()}
            there = self._apart(unconstrained, other | given, run_key)
            beginning = modules(init_key, {name: self._from.transforms[name](x) for name, x in there.items()})
            all_of_them.append(self._arrays(self._moving_from(run_key, there, beginning)))
        losses = np.zeros((0, *self._many, *self._several), jnp.zeros(()).dtype)
        self.layout.refuse_different("keys or initial parameters", jax.tree.leaves(all_of_them))
        self.agreed, self.is_first = self.layout.agreed, self.layout.is_first
        self._is_traced = False
        self._init = State(self.layout.copy(self._stacked(all_of_them)), losses, starts)

    def _rule(
        self,
        optimizer: Any,
        bound: Estimator,
        start: Start,
        names: tuple[str, ...],
        key: jax.Array,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Rule:
        """An optimiser as a user gives it, for the parameters of these names."""
        mine = {name: self._from.params[name] for name in names}
        refuse_misused(optimizer)
        if not isinstance(optimizer, Geometric):
            return Plain(rule_of(optimizer, mine))
        parts = parts_of(optimizer, bound, start, names, key, args, kwargs)
        rest = rule_of(optimizer.rest, {name: mine[name] for name in parts.rest})
        return Blockwise(optimizer, parts, Plain(rest), self._from.transforms, divergence_of(bound, parts.reached))

    def _moving_from(self, key: jax.Array, unconstrained: Params, modules: dict[str, Any]) -> Moving:
        with by_numpy():
            first = Moving(
                jnp.zeros((), jnp.int32),
                jax.random.key_data(key),
                unconstrained,
                tuple(move.rule.init(move.mine(unconstrained)) for move in self._loop.moves),
                tuple(first_states(plan) if plan else States({}, {}) for plan in self._plans),
                jax.tree.map(_precise, unconstrained) if self.averaging is not None else {},
                modules,
            )
            # Weak types would make the second call of the loop compile again.
            return jax.tree.map(lambda x: x if is_key(x) else jnp.array(x, jnp.result_type(x)), first)

    def _apart(self, first: Params, values: Params, key: jax.Array) -> Params:
        """Unconstrained parameters of another start than the first, whose own key gives these values."""
        other = {name: self._from.transforms[name].inv(_like(self._start[name], values[name])) for name in first}
        leaves, tree = jax.tree.flatten(first)
        trees = ([np.asarray(x) for x in jax.tree.leaves(each)] for each in (first, other, self._start))
        begun = training.apart(*trees, seed=int(jax.random.bits(jax.random.fold_in(key, 2**31))))
        return jax.tree.unflatten(tree, [jnp.asarray(x, like.dtype) for x, like in zip(begun, leaves, strict=True)])

    def _stacked(self, arrays: Sequence[Arrays]) -> Arrays:
        return {name: jnp.stack([x[name] for x in arrays]) for name in self._names} if self._many else arrays[0]

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
        training.refuse_other_state(self._init.arrays, state)
        like = self._init.arrays
        arrays = {name: jnp.asarray(state.arrays[name], like[name].dtype) for name in self._names}
        return State(self.layout.copy(arrays), state.losses, state.starts)

    def one(self, state: State, start: int) -> State:
        if state.starts == 1:
            return state
        return State({name: x[start] for name, x in state.arrays.items()}, state.losses_of(start))

    def advance(self, state: State, n: int, data: Data) -> tuple[Arrays, np.ndarray, np.ndarray]:
        def run(arrays: list[Any], structure: Structure) -> tuple[Moving, jax.Array, jax.Array]:
            inputs = self._moving(state), n, arrays, structure
            if not self._is_traced:
                self.layout.warn_unused(lambda: self._loop.run.trace(*inputs).jaxpr)
                self._is_traced = True
            return self._loop.run(*inputs)

        after, losses, fine = self._on(data, run)
        losses = np.moveaxis(np.asarray(losses).reshape(self.starts, CHUNK, len(self._loop.moves)), 1, 0)[:n]
        return self._arrays(after), losses.reshape(n, *self._many, *self._several), np.asarray(fine).reshape(-1)

    def estimates(self, state: State, draws: range, data: Data) -> np.ndarray:
        numbers = np.arange(draws.start, draws.stop, dtype=np.uint32)
        values = self._on(data, lambda *given: self._loop.values(self._moving(state), numbers, *given))
        return np.asarray(values).reshape(self.starts, len(draws)).T

    @functools.cached_property
    def _kind(self) -> Hashable:
        """What fits that share a loop have alike. A trainer that takes no step, as of `approximate`, has no use for it."""
        return self._loop.kind(self._moving(self._init)), self.layout.mesh

    def _on(self, data: Data, run: Callable[[list[Any], Structure], T]) -> T:
        """What a function makes of data on the mesh."""
        if self._placed[0] is not data:
            self._placed = data, {}
        kind = self._kind

        def call(arrays: list[Any], structure: Structure) -> T:
            placed = self._placed[1]
            if structure not in placed:
                self.layout.refuse_different("arguments", arrays)
                placed[structure] = self.layout.split(arrays)
            self._loop = structure.made(self._init.arrays, arrays).setdefault(kind, self._loop)
            return run(placed[structure], structure)

        with self.layout.partitioned():
            return called([bound.reading for bound in self.objectives], call, self._start, *data)

    def params(self, state: State) -> Params:
        moving = self.layout.gathered(self._moving(state))
        with by_numpy():
            return self._loop.params(moving) | moving.modules

    def problem(self, state: State) -> str | None:
        params = self.layout.gathered(self._moving(state).params)
        lost = [name for name, value in params.items() if not _finite(value)]
        if lost or not np.isfinite(state.losses[-1:]).all():
            return training.update_of(lost[0]) if lost else "the objective's value is not finite"
        for name, value in self._loop.constrained(params).items():
            for leaf in jax.tree.leaves(value):
                if cause := training.strayed(name, np.asarray(leaf), self._from.constraints[name]):
                    return cause
        return None

    def cause(self, state: State, data: Data) -> str | None:
        moving, (args, kwargs) = self._moving(state), data
        params = self._loop.constrained(self.layout.gathered(moving.params)) | moving.modules
        for key, bound in zip(self._loop.keys(moving), self.objectives, strict=True):
            found = bound.culprits(key, params, args, kwargs)
            value, grads = bound.differentiated(key, params, args, kwargs, any_numbers=True)
            bad = [name for name, grad in grads.items() if not _finite(grad)]
            prove = functools.partial(lambda bound: bound.seen(params, *args, **kwargs).prove(), bound)
            if cause := training.cause_in(found, _finite(value), bad, prove):
                return "; ".join([cause, *gaps_of(bound, args, kwargs)])
        return None

    def end(self, state: State) -> None:
        pass


def _like(start: Any, value: Any) -> Any:
    """A value of a parameter in the formats that it begins in."""
    return jax.tree.map(lambda x, y: jnp.asarray(jnp.asarray(y), x.dtype), start, value)


def _numbers(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def is_key(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key)


def _precise(x: jax.Array) -> jax.Array:
    """In which a mean of many numbers still moves."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _finite(tree: Any) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))
