"""The training loop.

A step moves the parameters of one objective, or of several in turn, each by its own gradient and its own parameters, as
in wake-sleep, variational EM and adversarial schemes. Steps run in chunks, each one jitted `lax.scan`. Should a chunk
leave the finite numbers, or a parameter its constraint, it is replayed step by step from its beginning, which its keys make
exact: the last good state is kept, and the step that failed is looked at site by site.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
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

from ppvi.engine.fitting import (
    Fit,
    Whose,
    cause_in,
    check_steps,
    moved,
    one_each,
    pairs_of,
    progress_bar,
    refuse_other_shapes,
    refuse_unknown_params,
    stopped,
    strayed,
    update_of,
)
from ppvi.engine.objectives import Params
from ppvi.errors import ProgramError
from ppvi.numpyro.arguments import Structure
from ppvi.numpyro.learning import Learners, States, first_states, learners_of, value_grad_and_states
from ppvi.numpyro.objective import Objective
from ppvi.numpyro.reading import called
from ppvi.numpyro.session import as_key, shapes
from ppvi.numpyro.sharding import Layout
from ppvi.numpyro.unstaged import Probe


class State(NamedTuple):
    """What a step changes."""

    params: Params
    """Unconstrained."""
    optimizers: tuple[Any, ...]
    """One for each objective."""
    strategies: tuple[States, ...]
    """What the strategies of each objective have learned."""


@dataclass(frozen=True)
class Move:
    """What one objective does in a step: a gradient step of its own parameters."""

    bound: Objective
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


def fit(
    objective: Objective | Sequence[tuple[Objective, Whose]],
    key: jax.Array,
    *args: Any,
    optimizer: optax.GradientTransformation | Sequence[optax.GradientTransformation] | None = None,
    num_steps: int = 2000,
    params: Params | None = None,
    progress: bool = True,
    mesh: Mesh | None = None,
    **kwargs: Any,
) -> Fit:
    """Optimise an objective by stochastic gradients in unconstrained space, or several objectives in turn.

    **Arguments**

    - `objective`: from `objective`; climbed if it is maximised, else descended. Or a sequence of pairs, an objective and
      whose parameters it moves: `"model"`, `"guide"`, a collection of names, or a predicate on names. A step then takes a
      gradient step for each pair in turn, at the parameters that the pair before has left.
    - `key`: a JAX key.
    - `*args`, `**kwargs`: passed to the model and the guide.
    - `optimizer`: an optax optimiser, or one for each pair; Adam with step size 0.01 by default.
    - `num_steps`: number of gradient steps (of each objective).
    - `params`: constrained values to start from instead of the initial ones.
    - `progress`: whether to show a progress bar.
    - `mesh`: devices that share the work. Arrays among the arguments are split along their leading axis over the axes of the
      mesh, but for one named `"particles"`, which splits the runs of `replicate`. The same key gives the same fit on any
      mesh, up to rounding. Of several processes (`jax.distributed`) each calls `fit` with the whole data.

    **Raises** `FitError` when an estimate or a parameter becomes NaN or infinite, or a positive parameter zero: it says at
    which step and where it came from, and holds the fit up to the last good state. `ProgramError` if an objective would move
    nothing.
    """
    check_steps(num_steps)
    single, pairs = isinstance(objective, Objective), pairs_of(objective)
    objectives = tuple(bound for bound, _ in pairs)
    init_key, step_key = jax.random.split(as_key(key))
    starts = [bound.initialise(init_key, *args, **kwargs) for bound in objectives]
    layout = Layout(mesh)
    start = _started_from({name: x for at in starts for name, x in at.params.items()}, params)
    constraints = {name: constraint for at in starts for name, constraint in at.constraints.items()}
    transforms = {name: biject_to(constraint) for name, constraint in constraints.items()}
    names = (moved(whose, at) for (_, whose), at in zip(pairs, starts, strict=True))
    plans = [
        bound.staged(at.params, *args, **kwargs) if at.learning else None
        for bound, at in zip(objectives, starts, strict=True)
    ]
    learners = [learners_of(plan) if plan else {} for plan in plans]
    rules = one_each(optax.adam(1e-2) if optimizer is None else optimizer, len(pairs))
    for rule in rules:
        _refuse_other_optimizers(rule)
    moves = tuple(map(Move, objectives, names, rules, learners))

    def constrain(unconstrained: Params) -> Params:
        return {name: transforms[name](value) for name, value in unconstrained.items()}

    def problem(state: State, values: Any) -> str | None:
        """What is wrong with a state, if anything."""
        lost = [name for name, value in state.params.items() if not _finite(value)]
        if lost or not _finite(values):
            return update_of(lost[0]) if lost else "the objective's value is not finite"
        for name, value in constrain(layout.gathered(state.params)).items():
            for leaf in jax.tree.leaves(value):
                if cause := strayed(name, np.asarray(leaf), constraints[name]):
                    return cause
        return None

    def keys(i: jax.Array | int) -> list[jax.Array]:
        key = jax.random.fold_in(step_key, i)
        return [key] if single else list(jax.random.split(key, len(pairs)))

    def step(state: State, i: jax.Array, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[State, jax.Array]:
        params, memories, states, values = state.params, [], [], []
        for move, key, memory, known in zip(moves, keys(i), state.optimizers, state.strategies, strict=True):
            value, params, memory, known = move.step(key, params, memory, known, constrain, args, kwargs)
            memories.append(memory)
            states.append(known)
            values.append(value)
        return State(params, tuple(memories), tuple(states)), values[0] if single else jnp.stack(values)

    run = _compiled(step, objectives, start, args, kwargs, layout)
    unconstrained = {name: transforms[name].inv(value) for name, value in start.items()}
    state = layout.copy(
        State(
            unconstrained,
            tuple(move.rule.init(move.mine(unconstrained)) for move in moves),
            tuple(first_states(plan) if plan else States({}, {}) for plan in plans),
        )
    )
    losses: list[np.ndarray] = []
    chunk = min(max(num_steps // 50, 1), 1000)
    with progress_bar(num_steps, progress) as bar:
        for begin in range(0, num_steps, chunk):
            steps = jnp.arange(begin, min(begin + chunk, num_steps))
            after, values = run(state, steps)
            if problem(after, values) is not None:
                good, kept, bad, cause = _replay(run, state, steps, problem)
                params = constrain(layout.gathered(good.params))
                result = Fit(params, np.concatenate([*losses, kept]), objectives, key, args, kwargs)
                raise stopped(bad, _cause(keys(bad), result) or cause, result, "optax.clip_by_global_norm")
            state = after
            losses.append(np.asarray(values))
            bar.update(len(values))
            bar.set_postfix(loss=", ".join(f"{x:.5g}" for x in np.atleast_1d(losses[-1].mean(0))), refresh=False)
    return Fit(constrain(layout.gathered(state.params)), np.concatenate(losses), objectives, key, args, kwargs)


def _compiled(
    step: Any,
    objectives: Sequence[Objective],
    params: Params,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    layout: Layout,
) -> Any:
    """Scan steps in one jitted call. Arrays among the arguments are inputs of it, not constants."""
    placed: dict[Structure, list[Any]] = {}

    @functools.partial(jax.jit, static_argnums=3)
    def run(state: State, steps: jax.Array, arrays: list[Any], structure: Structure) -> tuple[State, jax.Array]:
        args, kwargs = structure.joined(arrays)
        return jax.lax.scan(lambda state, i: step(state, i, args, kwargs), state, steps)

    def on_devices(state: State, steps: jax.Array) -> tuple[State, jax.Array]:
        def call(arrays: list[Any], structure: Structure) -> tuple[State, jax.Array]:
            if structure not in placed:
                placed[structure] = layout.split(arrays)
            return run(state, layout.copy(steps), placed[structure], structure)

        with layout.partitioned():
            return called(objectives, call, params, args, kwargs)

    return on_devices


def _refuse_other_optimizers(rule: Any) -> None:
    optax_has = callable(getattr(rule, "init", None)) and callable(getattr(rule, "update", None))
    if isinstance(rule, type | _NumPyroOptim) or not optax_has:
        name = getattr(rule, "__qualname__", None) or f"an instance of {type(rule).__module__}.{type(rule).__name__}"
        raise ProgramError(f"fit: the optimizer must be one of optax, such as optax.adam(0.01), not {name}.")


def _started_from(start: Params, params: Params | None) -> Params:
    if params is None:
        return start
    refuse_unknown_params(start, params)
    refuse_other_shapes({name: start[name] for name in params}, params, shapes)
    given = {name: jax.tree.map(lambda x, y: jnp.asarray(y, x.dtype), start[name], params[name]) for name in params}
    return start | given


def _finite(tree: Any) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def _replay(
    run: Any, state: State, steps: jax.Array, problem: Callable[[State, Any], str | None]
) -> tuple[State, np.ndarray, int, str]:
    """The last good state of a chunk, the losses up to it, the step that failed, and what was wrong with it."""
    losses: list[np.ndarray] = []
    for i in steps:
        after, values = run(state, i[None])
        cause = problem(after, values)
        if cause is not None:
            return state, np.asarray(losses, np.float32).reshape(-1, *values.shape[1:]), int(i), cause
        state = after
        losses.append(np.asarray(values[0]))
    raise AssertionError("a replayed chunk must fail where the chunk failed")


def _cause(keys: Sequence[jax.Array], result: Fit) -> str | None:
    """Where a step's NaN or infinity came from: a site if there is one, else a parameter's gradient."""
    for key, objective in zip(keys, result.objectives, strict=True):
        start = functools.partial(Probe, key, result.params, objective.strategies)
        with validation_enabled(False):
            _, probe = objective.evaluate(start, result.args, dict(result.kwargs))
        value, grads = objective.value_and_grad(key, result.params, *result.args, **result.kwargs)
        bad = [name for name, grad in grads.items() if not _finite(grad)]
        if cause := cause_in(probe.culprits, _finite(value), bad):
            return cause
    return None
