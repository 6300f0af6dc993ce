"""Objectives on NumPyro: from three programs to an estimate and its gradient."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppvi.checks import Budget, Report
from ppvi.compiler.choose import refuse_unknown
from ppvi.compiler.examine import examine
from ppvi.compiler.explain import Explanation, explain
from ppvi.compiler.findings import StaticReport
from ppvi.compiler.ir import Atom, Program as StagedProgram
from ppvi.compiler.plan import Plan, plan
from ppvi.compiler.surrogate import surrogate
from ppvi.errors import ProgramError, StrategyError
from ppvi.numpyro.arguments import Structure, join, names_of, part, supports_of
from ppvi.numpyro.distributions import SiteDistribution
from ppvi.numpyro.handlers import Direct, Handle
from ppvi.numpyro.learning import States, first_states, learners_of, value_grad_and_states
from ppvi.numpyro.ops import OPS
from ppvi.numpyro.session import Session, not_a_strategy
from ppvi.numpyro.stage import stage
from ppvi.numpyro.unstaged import Initialisation
from ppvi.program import Program, Trace, staging
from ppvi.strategies import Strategy

Params = dict[str, Any]
"""Name -> constrained value: an array, or a tree of arrays for a module."""

ObjectiveProgram = Callable[[Program, Program], jax.Array]

jax.tree_util.register_pytree_node(
    Trace,
    lambda t: (
        (t.choices, t.log_probs, t.log_density, t.returned, t.whole),
        (t.plates, t.batch_ndims, t.auxiliary, t.observed, t.pathwise),
    ),
    lambda aux, leaves: Trace(*leaves[:4], *aux, whole=leaves[4]),
)


class Start(NamedTuple):
    """Parameters before a fit."""

    params: Params
    constraints: dict[str, Any]
    """Name -> constraint of `numpyro.distributions`."""
    owners: dict[str, set[str]]
    """Name -> the programs that declare it: `model`, `guide`, `objective`, or `program` and its name."""
    learning: bool
    """Whether a strategy has a state."""


class Objective:
    """A variational objective: a program over a model and a guide, and strategies for the sites that it draws.

    Made by `objective`. Calls are jitted; they may also be jitted, vectorised over keys, or sharded by the caller.
    """

    def __init__(
        self,
        program: ObjectiveProgram,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *,
        strategies: Mapping[str, Strategy] | None = None,
        maximize: bool | None = None,
    ):
        self.program = program
        self.model = model
        self.guide = guide
        self.strategies = dict(strategies or {})
        self.maximize = getattr(program, "maximize", True) if maximize is None else maximize
        for what, fn in (("objective program", program), ("model", model), ("guide", guide)):
            if not callable(fn):
                raise ProgramError(f"the {what} must be a function, not {fn!r}.")
        _refuse_other_arguments(program)
        for name, strategy in self.strategies.items():
            if problem := not_a_strategy(strategy):
                raise StrategyError(f"strategies[{name!r}]: {problem}.")
        self._surrogate = jax.jit(self._evaluate, static_argnums=3)
        self._gradient = jax.jit(jax.value_and_grad(self._evaluate, argnums=1), static_argnums=3)
        self._update = jax.jit(self._learn, static_argnums=3)

    def init(self, key: jax.Array, *args: Any, **kwargs: Any) -> Params:
        """Initial values of every parameter that the objective, its model and its guide declare.

        **Returns** a dict: name -> constrained value, strongly typed.

        **Raises** `ProgramError` if there is no parameter, or if an observation is NaN.
        """
        return self.initialise(key, *args, **kwargs).params

    def initialise(self, key: jax.Array, *args: Any, **kwargs: Any) -> Start:
        """`init`, with what is known of each parameter."""
        session = Initialisation(key, self.strategies)
        self.run(session, args, kwargs)
        if not session.found:
            raise ProgramError(
                f"neither the guide {_name(self.guide)} nor the model {_name(self.model)} declares a parameter, so there is "
                f"nothing to fit: declare one with numpyro.param, or use an autoguide such as AutoNormal(model)."
            )
        # Weak types would make the second call of a jitted step compile again.
        params = jax.tree.map(lambda x: jnp.array(x, jnp.result_type(x)), session.found)
        return Start(params, session.constraints, session.owners, session.learning)

    def estimate(self, key: jax.Array, params: Params, *args: Any, **kwargs: Any) -> jax.Array:
        """One unbiased estimate of the objective, a scalar."""
        return self.surrogate(key, params, *args, **kwargs)

    def value_and_grad(self, key: jax.Array, params: Params, *args: Any, **kwargs: Any) -> tuple[jax.Array, Params]:
        """One unbiased estimate of the objective and of its gradient.

        **Arguments**

        - `key`: a JAX key.
        - `params`: name -> constrained value, as from `init`.
        - `*args`, `**kwargs`: passed to the model and the guide. Arrays and floats are traced; anything else must be
          hashable, and is a constant of the compiled call.

        **Returns** a scalar, and a dict like `params`.

        **Raises** `ProgramError`, `StrategyError`, `EngineError` on the first call with new shapes.

        **Unbiased when** the strategy of every site is; see their docstrings, and `explain`.
        """
        arrays, structure = part(args, kwargs)
        return self._gradient(key, _checked(params), arrays, structure)

    def surrogate(self, key: jax.Array, params: Params, *args: Any, **kwargs: Any) -> jax.Array:
        """The scalar whose value is `estimate` and whose JAX gradient in `params` is that of `value_and_grad`."""
        return self.surrogate_in(None, key, params, args, kwargs)

    def surrogate_in(
        self,
        values: dict[str, Any] | None,
        key: jax.Array,
        params: Params,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> jax.Array:
        """The surrogate with the strategies in these states."""
        arrays, structure = part(args, dict(kwargs))
        return self._surrogate(key, _checked(params), arrays, structure, values)

    def states(self, params: Params, *args: Any, **kwargs: Any) -> States:
        """The states of strategies that learn, such as `Reinforce(RunningMean())`, before their first gradient."""
        return first_states(self.staged(params, *args, **kwargs))

    def update(
        self, key: jax.Array, params: Params, states: States, *args: Any, **kwargs: Any
    ) -> tuple[jax.Array, Params, States]:
        """`value_and_grad` with the strategies in these states, and the states after they have learned from it.

        The states that a gradient uses have not seen its draws, so it is unbiased as it would be with fixed ones. `fit` carries
        them from step to step; `value_and_grad` leaves the strategies as they begin.

        **Arguments**

        - `states`: from `states`, or from the update before.
        """
        arrays, structure = part(args, kwargs)
        return self._update(key, _checked(params), arrays, structure, states)

    def explain(self, params: Params, *args: Any, **kwargs: Any) -> Explanation:
        """What the compiler saw: sites, strategies and why, lanes, credit, cost. Printable."""
        plan = self.staged(params, *args, **kwargs)
        return explain(plan, names_of(plan.program.inputs, params))

    def check(
        self,
        key: jax.Array,
        params: Params,
        *args: Any,
        alpha: float = 1e-3,
        delta: float | None = None,
        budget: Budget | float | None = None,
        against: str | Sequence[str] = ("path", "exact"),
        progress: bool = True,
        **kwargs: Any,
    ) -> Report:
        """Is the gradient unbiased? What the program proves, and what a sequential test on draws of it measures.

        **Arguments**

        - `key`, `params`, `*args`, `**kwargs`: as for `value_and_grad`. Biases are looked for at these parameters, at the
          initial ones, and at a point far from both.
        - `alpha`: probability of a wrong verdict, either way.
        - `delta`: the bias that counts as none, relative to the root mean square of the gradient; 0.01 by default.
        - `budget`: seconds (30 by default), or a `ppvi.Budget` of seconds and draws.
        - `against`: `"path"`, the change of the objective along random paths; `"exact"`, the enumerated gradient, where every
          site is finite; `"quadrature"`, the same with `ppvi.strategies.Quadrature` at continuous sites, where it is cheap and
          has converged; `"reinforce"`, the score function at every site.

        **Returns** a `Report`: printable, with `verdict`, `raise_if_biased()` and `to_dict()`.

        **Raises** as `value_and_grad` does.
        """
        from ppvi.numpyro.checking import check

        return check(
            self, key, params, args, kwargs, alpha=alpha, delta=delta, budget=budget, against=against, progress=progress
        )

    def prove(self, params: Params, *args: Any, **kwargs: Any) -> StaticReport:
        """The static check: what can be proved of the gradient from the program alone. Printable; see `check`."""
        plan = self.staged(params, *args, **kwargs)
        return examine(plan, names_of(plan.program.inputs, params))

    def staged(self, params: Params, *args: Any, **kwargs: Any) -> Plan:
        """The compiler's plan for arguments of these shapes."""
        arrays, structure = part(args, kwargs)
        return self.planned(jax.random.key(0), _checked(params), arrays, structure)

    def as_loss(self) -> Any:
        """An object for `loss=` of `numpyro.infer.SVI`, whose model and guide it uses.

        **Raises** `StrategyError` for strategies that learn, for whose states SVI has no place.
        """
        from ppvi.numpyro.svi import Loss

        return Loss(self)

    # Staging ------------------------------------------------------------------------------------------------------------

    def _evaluate(
        self, key: jax.Array, params: Params, arrays: list[Any], structure: Structure, states: Any = None
    ) -> jax.Array:
        plan = self.planned(key, params, arrays, structure)
        return surrogate(plan, OPS, [*jax.tree.leaves(params), key, *arrays], states)

    def _learn(
        self, key: jax.Array, params: Params, arrays: list[Any], structure: Structure, states: States
    ) -> tuple[jax.Array, Params, States]:
        plan = self.planned(key, params, arrays, structure)

        def run(params: Params, values: dict[str, Any]) -> jax.Array:
            return surrogate(plan, OPS, [*jax.tree.leaves(params), key, *arrays], values)

        return value_grad_and_states(run, learners_of(plan), params, states)

    def planned(
        self,
        key: jax.Array,
        params: Params,
        arrays: Sequence[Any],
        structure: Structure,
        distribution: Callable[..., SiteDistribution] = SiteDistribution,
    ) -> Plan:
        """Stage the objective on these arrays, with its sites seen by strategies as this kind of distribution."""
        constraints: dict[str, Any] = {}

        def run(params: Params, key: jax.Array, *arrays: Any) -> jax.Array:
            session = Session(key, params, self.strategies, distribution)
            args, kwargs = join(arrays, structure)
            value = self.run(session, args, kwargs)
            constraints.update(session.constraints)
            refuse_unknown(self.strategies, session.drawn)
            return value

        staged = stage(run, params, key, *arrays)
        _refuse_constant(staged, params)
        return plan(replace(staged, supports=supports_of(staged.inputs, params, constraints)))

    def run(self, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]) -> jax.Array:
        """Run the objective program once in a session."""
        with self.handles(session, args, kwargs) as (p, q), Direct(session):
            value = self.program(p, q)
        return _real_scalar(value, _name(self.program))

    @contextmanager
    def handles(
        self, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[tuple[Handle, Handle]]:
        """The model and the guide in a session, which is the one that verbs act on."""
        session.args, session.kwargs = args, kwargs
        with staging(session):
            yield Handle(self.model, "model", session, args, kwargs), Handle(self.guide, "guide", session, args, kwargs)


def objective(
    program: ObjectiveProgram,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *,
    strategies: Mapping[str, Strategy] | None = None,
    maximize: bool | None = None,
) -> Objective:
    """Transform an objective program into a gradient estimator.

    **Arguments**

    - `program`: a function of two handles, the model and the guide, that returns one real number (`ppvi.program`).
    - `model`, `guide`: NumPyro programs; the arguments of a call go to both, as in SVI.
    - `strategies`: gradient strategies by site name. A site without one gets `Reparam` where it has a reparameterised
      sampler, `Enumerate` where its support is small and finite and its lanes are separable, else `LeaveOneOut(2)`.
    - `maximize`: whether `fit` and `as_loss` go uphill. By default they do, unless the program is marked `minimized`, as
      the library's divergences and upper bounds are.

    **Returns** an `Objective`.
    """
    return Objective(program, model, guide, strategies=strategies, maximize=maximize)


def _checked(params: Params) -> Params:
    if not isinstance(params, Mapping):
        raise ProgramError(f"params must be a dict from parameter name to value, not {type(params).__name__}.")
    for name, value in params.items():
        for leaf in jax.tree.leaves(value):
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
                raise ProgramError(
                    f"parameter {name!r} has dtype {jnp.result_type(leaf)}, which has no gradient: make it floating point."
                )
    return dict(params)


def _real_scalar(value: Any, name: str) -> jax.Array:
    if isinstance(value, int | float | jax.Array | np.ndarray | np.generic) and not isinstance(value, bool):
        value = jnp.asarray(value)
        if value.shape == () and not jnp.issubdtype(value.dtype, jnp.bool_) and jnp.isrealobj(value):
            return value.astype(jnp.result_type(value, float))
        what = f"an array of shape {value.shape} and dtype {value.dtype}"
    else:
        what = "a function, which wants to be called first" if callable(value) else type(value).__name__
    raise ProgramError(f"objective {name} returned {what}: it must return one real number; sum or average it.")


def _refuse_other_arguments(program: Any) -> None:
    """A program takes two handles; what takes something else probably makes a program of it."""
    try:
        signature = inspect.signature(program)
    except ValueError:
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise ProgramError(
            f"the objective program takes two arguments, the model and the guide, but {_name(program)} takes "
            f"({', '.join(signature.parameters)}): if it makes an objective, call it first, as in "
            f"objective(iwelbo(5), model, guide)."
        ) from None


def _refuse_constant(program: StagedProgram, params: Params) -> None:
    depends: set[Atom] = set(program.params)
    for equation in program.equations:
        if any(atom in depends for atom in equation.inputs):
            depends.update(equation.outputs)
    if params and program.output not in depends:
        raise ProgramError(
            f"the objective does not depend on any parameter of {sorted(params)}, so its gradient is zero everywhere: did it "
            f"return the value that it computed?"
        )


def _name(fn: Any) -> str:
    return repr(getattr(fn, "__name__", type(fn).__name__))
