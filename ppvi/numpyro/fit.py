"""The training loop, and draws from what it found.

Steps run in chunks, each one jitted `lax.scan`. Should a chunk leave the finite numbers, it is replayed step by step
from its beginning, which its keys make exact: the last finite state is kept, and the step that failed is looked at site
by site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpyro.distributions import biject_to
from numpyro.distributions.distribution import validation_enabled
from tqdm import tqdm

from ppvi.errors import FitError, ProgramError
from ppvi.numpyro.handlers import Assess, Handle, Simulate
from ppvi.numpyro.objective import Objective, Params, join, part
from ppvi.numpyro.session import PlainSession, Probe, as_key


@dataclass(frozen=True)
class Fit:
    """A fitted objective.

    **Attributes**

    - `params`: name -> constrained value.
    - `losses`: one estimate per step, `(step,)`; minus the objective where it was maximised.
    """

    params: Params
    losses: np.ndarray
    objective: Objective = field(repr=False)
    key: jax.Array = field(repr=False)
    args: tuple[Any, ...] = field(repr=False)
    kwargs: Mapping[str, Any] = field(repr=False)

    def posterior(self, key: jax.Array | None = None, *, draws: int = 1000, particles: int = 1) -> az.InferenceData:
        """Draws from the fitted guide, as ArviZ data; see `ppvi.numpyro.posterior`."""
        key = jax.random.fold_in(self.key, 1) if key is None else key
        return posterior(self.objective, key, self.params, *self.args, draws=draws, particles=particles, **self.kwargs)

    def __str__(self) -> str:
        if not len(self.losses):
            return "Fit of 0 steps"
        recent = self.losses[-max(len(self.losses) // 10, 1) :]
        names = ", ".join(self.params)
        return f"Fit of {len(self.losses)} steps: loss {self.losses[0]:.5g} -> {recent.mean():.5g}; parameters {names}"


class State(NamedTuple):
    """What a step changes."""

    params: Params
    """Unconstrained."""
    optimizer: Any


def fit(
    objective: Objective,
    key: jax.Array,
    *args: Any,
    optimizer: optax.GradientTransformation | None = None,
    num_steps: int = 2000,
    params: Params | None = None,
    progress: bool = True,
    **kwargs: Any,
) -> Fit:
    """Optimise an objective by stochastic gradients in unconstrained space.

    **Arguments**

    - `objective`: from `objective`; climbed if it is maximised, else descended.
    - `key`: a JAX key.
    - `*args`, `**kwargs`: passed to the model and the guide.
    - `optimizer`: an optax optimiser; Adam with step size 0.01 by default.
    - `num_steps`: number of gradient steps.
    - `params`: constrained values to start from instead of the initial ones.
    - `progress`: whether to show a progress bar.

    **Raises** `FitError` when an estimate or a parameter becomes NaN or infinite: it says at which step and where it
    came from, and holds the fit up to the last finite state.
    """
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise ProgramError(f"fit: num_steps must be an int of at least 1, not {num_steps!r}.")
    optimizer = optax.adam(1e-2) if optimizer is None else optimizer
    init_key, step_key = jax.random.split(as_key(key))
    start, constraints = objective.initialise(init_key, *args, **kwargs)
    start = _started_from(start, params)
    transforms = {name: biject_to(constraint) for name, constraint in constraints.items()}

    def constrain(unconstrained: Params) -> Params:
        return {name: transforms[name](value) for name, value in unconstrained.items()}

    def step(state: State, i: jax.Array, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[State, jax.Array]:
        def loss(unconstrained: Params) -> jax.Array:
            value = objective.surrogate(jax.random.fold_in(step_key, i), constrain(unconstrained), *args, **kwargs)
            return -value if objective.maximize else value

        value, grads = jax.value_and_grad(loss)(state.params)
        updates, memory = optimizer.update(grads, state.optimizer, state.params)
        return State(optax.apply_updates(state.params, updates), memory), value  # type: ignore[arg-type]

    run = _compiled(step, args, kwargs)
    unconstrained = {name: transforms[name].inv(value) for name, value in start.items()}
    state = State(unconstrained, optimizer.init(unconstrained))
    losses: list[np.ndarray] = []
    chunk = min(max(num_steps // 50, 1), 1000)
    with tqdm(total=num_steps, disable=not progress, desc="fit") as bar:
        for begin in range(0, num_steps, chunk):
            steps = jnp.arange(begin, min(begin + chunk, num_steps))
            after, values = run(state, steps)
            if not _finite((after.params, values)):
                good, kept, bad = _replay(run, state, steps)
                done = np.concatenate([*losses, kept]) if losses else kept
                result = Fit(constrain(good.params), done, objective, key, args, kwargs)
                cause = _cause(objective, jax.random.fold_in(step_key, bad), result)
                raise FitError(
                    f"the fit left the finite numbers at step {bad}: {cause}. The error's `.fit` holds the last finite "
                    f"parameters and {len(done)} losses; a smaller step size, or optax.clip_by_global_norm, may help.",
                    result,
                )
            state = after
            losses.append(np.asarray(values))
            bar.update(len(values))
            bar.set_postfix(loss=f"{losses[-1].mean():.5g}")
    return Fit(constrain(state.params), np.concatenate(losses), objective, key, args, kwargs)


def posterior(
    objective: Objective,
    key: jax.Array,
    params: Params,
    *args: Any,
    draws: int = 1000,
    particles: int = 1,
    **kwargs: Any,
) -> az.InferenceData:
    """Draws from a guide at given parameters, as ArviZ data with one chain.

    **Arguments**

    - `draws`: number of draws.
    - `particles`: K; each draw is chosen among K by importance weight (sampling-importance-resampling), which is the
      posterior that an importance-weighted bound with K particles fits (Cremer et al. 2017).

    **Returns** `InferenceData` with groups `posterior` (the model's latent and deterministic sites) and `sample_stats`,
    whose `log_weight` is the log of the mean over particles of p(x, z) / q(z), for importance diagnostics.
    """

    inputs, structure = part(args, kwargs)

    def particle(key: jax.Array, params: Params, arrays: list[Any]) -> tuple[dict[str, jax.Array], jax.Array]:
        args, kwargs = join(arrays, structure)
        session = PlainSession(key, params, objective.strategies)
        with session.fresh(key):
            z = Handle(objective.guide, "guide", session, args, kwargs).run(Simulate("guide", session, {}))
            model = Assess("model", session, z, strict=False)
            joint = Handle(objective.model, "model", session, args, kwargs).run(model)
        kept = {name: value for name, value in z.items() if name in model.values}
        return kept | model.deterministic, joint.log_density - z.log_density

    def draw(key: jax.Array, params: Params, arrays: list[Any]) -> tuple[dict[str, jax.Array], jax.Array]:
        choose, *keys = jax.random.split(key, particles + 1)
        sites, log_weights = jax.vmap(particle, (0, None, None))(jnp.stack(keys), params, arrays)
        chosen = jax.random.categorical(choose, log_weights)
        return jax.tree.map(lambda x: x[chosen], sites), jax.nn.logsumexp(log_weights) - jnp.log(particles)

    drawn = jax.jit(jax.vmap(draw, (0, None, None)))(jax.random.split(as_key(key), draws), params, inputs)
    sites, log_weight = jax.device_get(drawn)
    return az.from_dict(
        posterior={name: value[None] for name, value in sites.items()}, sample_stats={"log_weight": log_weight[None]}
    )


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
    losses: list[float] = []
    for i in steps:
        after, values = run(state, i[None])
        if not _finite((after.params, values)):
            return state, np.asarray(losses, np.float32), int(i)
        state = after
        losses.append(float(values[0]))
    raise AssertionError("a replayed chunk must fail where the chunk failed")


def _cause(objective: Objective, key: jax.Array, result: Fit) -> str:
    """Where a step's NaN or infinity came from: a site if there is one, else a parameter's gradient."""
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
