"""The training loop.

A step moves the parameters of one objective, or of several in turn, each by its own gradient and its own parameters, as
in wake-sleep, variational EM and adversarial schemes. Steps run in chunks, each one jitted `lax.scan`. Should a chunk
leave the finite numbers, it is replayed step by step from its beginning, which its keys make exact: the last finite
state is kept, and the step that failed is looked at site by site.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpyro.distributions import biject_to
from numpyro.distributions.distribution import validation_enabled
from tqdm import tqdm

from ppvi.errors import FitError, ProgramError
from ppvi.numpyro.arguments import join, part
from ppvi.numpyro.draws import posterior
from ppvi.numpyro.learning import Learners, States, first_states, learners_of, value_grad_and_states
from ppvi.numpyro.objective import Objective, Params, Start
from ppvi.numpyro.session import as_key
from ppvi.numpyro.unstaged import Probe
from ppvi.program import Program


@dataclass(frozen=True)
class Fit:
    """A fitted objective.

    **Attributes**

    - `params`: name -> constrained value.
    - `losses`: one estimate per step, `(step,)`, or `(step, objective)` of several; minus what was maximised.
    """

    params: Params
    losses: np.ndarray
    objectives: tuple[Objective, ...] = field(repr=False)
    key: jax.Array = field(repr=False)
    args: tuple[Any, ...] = field(repr=False)
    kwargs: Mapping[str, Any] = field(repr=False)

    def posterior(
        self,
        key: jax.Array | None = None,
        *,
        draws: int = 1000,
        particles: int = 1,
        program: Callable[[Program, Program], Program] | None = None,
    ) -> az.InferenceData:
        """Draws from the fitted guide, as ArviZ data; see `ppvi.numpyro.posterior`."""
        key = jax.random.fold_in(self.key, 1) if key is None else key
        options: dict[str, Any] = {"draws": draws, "particles": particles, "program": program}
        return posterior(self.objectives[0], key, self.params, *self.args, **options, **self.kwargs)

    def __str__(self) -> str:
        if not len(self.losses):
            return "Fit of 0 steps"
        recent = self.losses[-max(len(self.losses) // 10, 1) :]
        changes = zip(np.atleast_1d(self.losses[0]), np.atleast_1d(recent.mean(0)), strict=True)
        losses = ", ".join(f"{first:.5g} -> {last:.5g}" for first, last in changes)
        return f"Fit of {len(self.losses)} steps: loss {losses}; parameters {', '.join(self.params)}"


Whose = str | Collection[str] | Callable[[str], bool]
"""Which parameters: `"model"` or `"guide"` (whoever is not the model), names, or a predicate on names."""


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

    **Raises** `FitError` when an estimate or a parameter becomes NaN or infinite: it says at which step and where it
    came from, and holds the fit up to the last finite state. `ProgramError` if an objective would move nothing.
    """
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise ProgramError(f"fit: num_steps must be an int of at least 1, not {num_steps!r}.")
    single, pairs = isinstance(objective, Objective), _pairs(objective)
    objectives = tuple(bound for bound, _ in pairs)
    init_key, step_key = jax.random.split(as_key(key))
    starts = [bound.initialise(init_key, *args, **kwargs) for bound in objectives]
    start = _started_from({name: x for at in starts for name, x in at.params.items()}, params)
    transforms = {name: biject_to(constraint) for at in starts for name, constraint in at.constraints.items()}
    names = (_moved(whose, at) for (_, whose), at in zip(pairs, starts, strict=True))
    plans = [
        bound.staged(at.params, *args, **kwargs) if at.learning else None
        for bound, at in zip(objectives, starts, strict=True)
    ]
    learners = [learners_of(plan) if plan else {} for plan in plans]
    moves = tuple(map(Move, objectives, names, _one_each(optimizer, len(pairs)), learners))

    def constrain(unconstrained: Params) -> Params:
        return {name: transforms[name](value) for name, value in unconstrained.items()}

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

    run = _compiled(step, args, kwargs)
    unconstrained = {name: transforms[name].inv(value) for name, value in start.items()}
    state = State(
        unconstrained,
        tuple(move.rule.init(move.mine(unconstrained)) for move in moves),
        tuple(first_states(plan) if plan else States({}, {}) for plan in plans),
    )
    losses: list[np.ndarray] = []
    chunk = min(max(num_steps // 50, 1), 1000)
    with tqdm(total=num_steps, disable=not progress, desc="fit") as bar:
        for begin in range(0, num_steps, chunk):
            steps = jnp.arange(begin, min(begin + chunk, num_steps))
            after, values = run(state, steps)
            if not _finite((after.params, values)):
                good, kept, bad = _replay(run, state, steps)
                done = np.concatenate([*losses, kept])
                result = Fit(constrain(good.params), done, objectives, key, args, kwargs)
                raise FitError(
                    f"the fit left the finite numbers at step {bad}: {_cause(keys(bad), result)}. The error's `.fit` holds "
                    f"the last finite parameters and {len(done)} losses; a smaller step size, or optax.clip_by_global_norm, "
                    f"may help.",
                    result,
                )
            state = after
            losses.append(np.asarray(values))
            bar.update(len(values))
            bar.set_postfix(loss=", ".join(f"{x:.5g}" for x in np.atleast_1d(losses[-1].mean(0))))
    return Fit(constrain(state.params), np.concatenate(losses), objectives, key, args, kwargs)


def _pairs(objective: Objective | Sequence[tuple[Objective, Whose]]) -> list[tuple[Objective, Whose]]:
    if isinstance(objective, Objective):
        return [(objective, lambda name: True)]
    pairs = list(objective)
    if not pairs or not all(
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], Objective) for pair in pairs
    ):
        raise ProgramError(
            "fit: several objectives are a list of pairs, each an objective from `objective(...)` and whose parameters it "
            'moves, such as [(wake, "model"), (sleep, "guide")].'
        )
    return pairs


def _one_each(optimizer: Any, n: int) -> list[optax.GradientTransformation]:
    if optimizer is None or isinstance(optimizer, optax.GradientTransformation):
        return [optax.adam(1e-2) if optimizer is None else optimizer] * n
    optimizers = list(optimizer)
    if len(optimizers) != n:
        raise ProgramError(f"fit: {len(optimizers)} optimizers for {n} objectives; give one, or one for each.")
    return optimizers


def _moved(whose: Whose, start: Start) -> tuple[str, ...]:
    """The parameters that an objective moves."""
    names = list(start.params)
    if whose == "model":
        found = [name for name in names if "model" in start.owners[name]]
    elif whose == "guide":
        found = [name for name in names if start.owners[name] != {"model"}]
    elif callable(whose):
        found = [name for name in names if whose(name)]
    else:
        wanted = {whose} if isinstance(whose, str) else set(whose)
        unknown = sorted(wanted - set(names))
        if unknown:
            raise ProgramError(
                f"fit: {unknown[0]!r} is no parameter of the objective, and neither 'model' nor 'guide'; it has {names}."
            )
        found = [name for name in names if name in wanted]
    if not found:
        raise ProgramError(f"fit: an objective would move no parameter: {whose!r} selects none of {names}.")
    return tuple(found)


def _compiled(step: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Scan steps in one jitted call. Arrays among the arguments are inputs of it, not constants."""
    arrays, structure = part(args, kwargs)

    @jax.jit
    def run(state: State, steps: jax.Array, arrays: list[Any]) -> tuple[State, jax.Array]:
        args, kwargs = join(arrays, structure)
        return jax.lax.scan(lambda state, i: step(state, i, args, kwargs), state, steps)

    return lambda state, steps: run(state, steps, arrays)


def _started_from(start: Params, params: Params | None) -> Params:
    if params is None:
        return start
    unknown = sorted(params.keys() - start.keys())
    if unknown:
        raise ProgramError(
            f"fit: params has {unknown[0]!r}, which is no parameter of the objective; it has {sorted(start)}."
        )
    given = {name: jax.tree.map(lambda x, y: jnp.asarray(y, x.dtype), start[name], params[name]) for name in params}
    return start | given


def _finite(tree: Any) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def _replay(run: Any, state: State, steps: jax.Array) -> tuple[State, np.ndarray, int]:
    """The last finite state of a chunk, the losses up to it, and the step that failed."""
    losses: list[np.ndarray] = []
    for i in steps:
        after, values = run(state, i[None])
        if not _finite((after.params, values)):
            return state, np.asarray(losses, np.float32).reshape(-1, *values.shape[1:]), int(i)
        state = after
        losses.append(np.asarray(values[0]))
    raise AssertionError("a replayed chunk must fail where the chunk failed")


def _cause(keys: Sequence[jax.Array], result: Fit) -> str:
    """Where a step's NaN or infinity came from: a site if there is one, else a parameter's gradient."""
    for key, objective in zip(keys, result.objectives, strict=True):
        probe = Probe(key, result.params, objective.strategies)
        with validation_enabled(False):
            objective.run(probe, result.args, dict(result.kwargs))
        if probe.culprits:
            return probe.culprits[0]
        value, grads = objective.value_and_grad(key, result.params, *result.args, **result.kwargs)
        if not _finite(value):
            return "every site's log_prob is finite, but the objective's value is not"
        bad = [name for name, grad in grads.items() if not _finite(grad)]
        if bad:
            return f"every site's log_prob is finite, but the gradient of parameter {bad[0]!r} is not"
    return "the value and the gradient are finite, but the optimiser's update is not"
