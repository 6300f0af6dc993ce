"""Objectives: a program over a model and a guide, strategies for what it draws, and a direction, as one value.

An objective holds nothing that its engine finds out about it. Stagings and compiled functions are the engine's, in an
`Estimator` that equal objectives share and that goes with the last of them.
"""

from __future__ import annotations

import importlib
import operator
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Never, final
from weakref import WeakValueDictionary

from ppvi._doors import NoFunction, described, flag
from ppvi._ops import Array
from ppvi._options import door
from ppvi.checks import Budget, Report
from ppvi.checks.unbiased import RARE
from ppvi.engine.calls import name_of, own_options
from ppvi.engine.checking import check
from ppvi.engine.formula import Formula, ObjectiveProgram
from ppvi.engine.made_of import refuse_no_programs
from ppvi.engine.protocol import Estimator, Params
from ppvi.engine.sites import not_a_strategy
from ppvi.engine.training import Trainer
from ppvi.errors import NoLossError, ProgramError, StrategyError
from ppvi.program import marking_of
from ppvi.proofs.explain import Explanation
from ppvi.proofs.findings import StaticReport
from ppvi.strategies import Strategy


@dataclass(frozen=True)
class Engine:
    """Which framework the programs are of, and what is to be asked of it."""

    name: str
    """`numpyro` or `pyro`."""
    compile: bool = False
    """Whether gradients go through `torch.compile`."""

    def estimator(self, formula: Formula) -> Estimator:
        """The one of this formula, and of those that are equal to it."""
        with _TURN:
            found = _ESTIMATORS.get((formula, self))
            if found is None:
                options = {"compile": True} if self.compile else {}
                found = _ESTIMATORS[formula, self] = self._part("engine").Estimator(formula, **options)
            return found

    def trainer(self, *args: Any, **options: Any) -> Trainer:
        """What `fit` moves parameters by."""
        return self._part("training").Trainer(*args, **options)

    def loss(self, estimator: Estimator) -> Any:
        """What the framework's own SVI takes for its loss."""
        return self._part("svi").Loss(estimator)

    @property
    def guides(self) -> Any:
        """What it has for approximations: `ppvi.approximate.Guides`."""
        return self._part("approximate").GUIDES

    def key(self, number: int) -> Any:
        """A key where none was given."""
        return self._part("programs").key_of(number)

    def fixed_key(self, number: int) -> Any:
        """A key with the same draws every time; on Pyro none is the global generator."""
        found = self.key(number)
        return number if found is None else found

    def array(self, x: Any) -> Array:
        """An array of NumPy as the framework's."""
        return self._part("programs").array_of(x)

    def refuse_transformed(self, verb: str) -> None:
        """Refuse a verb that looks at numbers, under a transformation of the framework."""
        if around := self._part("engine").transformation():
            raise ProgramError(
                f"{verb} reads numbers, so that it cannot run under {around}. Call it outside; what may be transformed is "
                f"value_and_grad, in a loop of your own."
            )

    def _part(self, name: str) -> Any:
        return importlib.import_module(f"ppvi.{self.name}._{name}")


_ESTIMATORS: WeakValueDictionary[tuple[Formula, Engine], Estimator] = WeakValueDictionary()
_TURN = threading.RLock()


@final
class Objective:
    """A variational objective. Made by `objective`; a value, which compares, hashes, copies and pickles as its parts do.

    **Attributes**

    - `program`, `model`, `guide`: the three programs.
    - `strategies`: site -> strategy.
    - `maximize`: whether `fit` and `as_loss` go uphill.
    - `engine`: which framework the programs are of.
    - `args`, `kwargs`: the data that it is `on`, if it is.
    """

    __slots__ = ("__weakref__", "_estimator", "_formula", "args", "engine", "kwargs")

    engine: Engine
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __init__(
        self,
        program: ObjectiveProgram,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *,
        engine: Engine,
        strategies: Mapping[str, Strategy] | None = None,
        maximize: bool | None = None,
    ):
        refuse_no_programs(program, model, guide)
        if maximize is not None:
            flag("objective: maximize", maximize)
        if strategies is not None and not isinstance(strategies, Mapping):
            raise StrategyError(
                f"strategies= is a dict from the name of a site to its strategy, as in {{'z': Reparam()}}, not "
                f"{described(strategies)}."
            )
        for name, strategy in (strategies or {}).items():
            if not isinstance(name, str):
                raise StrategyError(f"strategies= has {described(name)} where the name of a site is due.")
            if problem := not_a_strategy(strategy):
                raise StrategyError(f"strategies[{name!r}]: {problem}.")
        way = marking_of(program).maximize if maximize is None else maximize
        self._set(_formula=Formula(program, model, guide, dict(strategies or {}), way), engine=engine)
        self._set(args=(), kwargs=MappingProxyType({}))

    @property
    def program(self) -> ObjectiveProgram:
        return self._formula.program

    @property
    def model(self) -> Callable[..., Any]:
        return self._formula.model

    @property
    def guide(self) -> Callable[..., Any]:
        return self._formula.guide

    @property
    def strategies(self) -> Mapping[str, Strategy]:
        return MappingProxyType(self._formula.strategies)

    @property
    def maximize(self) -> bool:
        return self._formula.maximize

    # A value ------------------------------------------------------------------------------------------------------------

    def _set(self, **parts: Any) -> Objective:
        for name, part in parts.items():
            object.__setattr__(self, name, part)
        return self

    def __setattr__(self, name: str, value: Any) -> Never:
        raise ProgramError(f"an objective does not change: make another one, with the {name} that it is to have.")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Objective):
            return NotImplemented
        mine, theirs = ((x._formula, x.engine) for x in (self, other))
        return self is other or (mine == theirs and self.has_data_of(other))

    def __hash__(self) -> int:
        return hash((self._formula, self.engine))

    def __reduce__(self) -> Any:
        return _objective, (self._formula, self.engine, self.args, dict(self.kwargs))

    def __repr__(self) -> str:
        programs = ", ".join(name_of(fn) for fn in (self.program, self.model, self.guide))
        chosen = f", strategies={dict(self.strategies)}" if self.strategies else ""
        way = "maximized" if self.maximize else "minimized"
        count = len(self.args) + len(self.kwargs)
        data = f", on {count} argument{'s' * (count > 1)}" if count else ""
        return f"Objective({programs}{chosen}; {way}, {self.engine.name}{data})"

    # Data ---------------------------------------------------------------------------------------------------------------

    def on(self, *args: Any, **kwargs: Any) -> Objective:
        """The objective on data: every verb, and `fit`, `posterior` and `check`, then pass these arguments to the model and the
        guide, whatever their names.

            bound.on(x, progress=0.3).value_and_grad(key, params)
        """
        return _objective(self._formula, self.engine, args, kwargs)

    def has_data_of(self, other: Objective) -> bool:
        """Whether both are on the very same data, or on none: arrays are not compared by what is in them."""
        mine, theirs = ((*x.args, *x.kwargs.values()) for x in (self, other))
        alike = len(self.args) == len(other.args) and list(self.kwargs) == list(other.kwargs)
        return alike and all(map(operator.is_, mine, theirs))

    def data(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call, or those that the objective is on."""
        if not (self.args or self.kwargs):
            return args, kwargs
        if args or kwargs:
            raise ProgramError(f"{self!r} has its data from `on`: call its verbs without more arguments.")
        return self.args, dict(self.kwargs)

    # Verbs --------------------------------------------------------------------------------------------------------------

    @door
    def init(self, key: Any, /, *args: Any, **kwargs: Any) -> Params:
        """Initial values of every parameter that the objective, its model and its guide declare.

        **Returns** a dict: name -> constrained value.

        **Raises** `ProgramError` if an observation is NaN.
        """
        args, kwargs = self.data(args, kwargs)
        return estimator_of(self).initialise(key, *args, **kwargs).params

    @door
    def value_and_grad(self, key: Any, params: Params, /, *args: Any, **kwargs: Any) -> tuple[Array, Params]:
        """One unbiased estimate of the objective and of its gradient.

        **Arguments**

        - `key`: a JAX key; on Pyro an int seed, a `torch.Generator`, or None for PyTorch's global one.
        - `params`: name -> constrained value, as from `init`.
        - `*args`, `**kwargs`: passed to the model and the guide, in trees of lists, tuples and dicts. Arrays of the framework
          are inputs of the staged program; on NumPyro NumPy arrays and Python floats are too, unless a program reads them in
          Python, as `len(np.unique(x))` does. Anything else, and NumPy arrays on Pyro, is a constant: it is read at every
          call, and the program is staged anew where its contents have changed; what changes at every step should be an array.
          Tables (of pandas or xarray) and lists of numbers come as arrays to a program that fails on them as they are.
          What has no contents to compare (a generator, an open file) is refused, and so is an argument that a Pyro program
          changes in place. A NumPy array of more than 256 kB that is a constant and may be written to is compared in parts, in
          their turn: other data are seen at once, a change of a few entries only some calls later.

        **Returns** a scalar, and a dict like `params`.

        **Raises** `ProgramError`, `StrategyError`, `EngineError` on the first call with new shapes.

        **Unbiased when** the strategy of every site is; see their docstrings, and `explain`.
        """
        args, kwargs = self.data(args, kwargs)
        return estimator_of(self).value_and_grad(key, params, *args, **kwargs)

    @door
    def estimate(self, key: Any, params: Params, /, *args: Any, **kwargs: Any) -> Array:
        """One unbiased estimate of the objective, a scalar."""
        args, kwargs = self.data(args, kwargs)
        return estimator_of(self).estimate(key, params, *args, **kwargs)

    @door
    def surrogate(self, key: Any, params: Params, /, *args: Any, **kwargs: Any) -> Array:
        """The scalar whose value is `estimate` and whose native gradient in `params` is that of `value_and_grad`.

        Its second derivative has the objective's as its mean where every site has a sum (`Enumerate`, `Quadrature`,
        `SumAndSample`), `Reinforce` with a constant baseline, or a pathwise strategy in a draw that the objective is smooth in,
        and nothing is held constant.

        **Raises** `StrategyError` when it is differentiated twice where that is not so.
        """
        args, kwargs = self.data(args, kwargs)
        return estimator_of(self).surrogate(key, params, *args, **kwargs)

    @door
    def states(self, params: Params, /, *args: Any, **kwargs: Any) -> Any:
        """The states of strategies that learn, such as `Reinforce(RunningMean())`, before their first gradient; on NumPyro
        those of modules too, such as batch statistics, in `.modules`, by the names of their mutable sites."""
        args, kwargs = self.data(args, kwargs)
        return estimator_of(self).states(params, *args, **kwargs)

    @door
    def update(self, key: Any, params: Params, states: Any, /, *args: Any, **kwargs: Any) -> tuple[Array, Params, Any]:
        """`value_and_grad` with the strategies in these states, and the states after they have learned from it,
        which on Pyro are the same objects, moved in place.

        The states that a gradient uses have not seen its draws, so it is unbiased as it would be with fixed ones. `fit` carries
        them from step to step; `value_and_grad` leaves the strategies as they begin.

        **Arguments**

        - `states`: from `states`, or from the update before.
        """
        bound = estimator_of(self)
        if not isinstance(states, bound.learned):
            raise ProgramError(
                f"update(key, params, states, ...): states are those of objective.states(params, ...), not {described(states)}."
            )
        args, kwargs = self.data(args, kwargs)
        return bound.update(key, params, states, *args, **kwargs)

    @door
    def explain(self, params: Params, /, *args: Any, **kwargs: Any) -> Explanation:
        """What the compiler saw: sites, strategies and why, lanes, credit, cost. Printable."""
        self.engine.refuse_transformed("explain")
        args, kwargs = self.data(args, kwargs)
        return estimator_of(self).seen(params, *args, **kwargs).explain()

    @door
    def prove(self, params: Params, /, *args: Any, **kwargs: Any) -> StaticReport:
        """The static check: what can be proved of the gradient from the program alone. Printable; see `check`."""
        self.engine.refuse_transformed("prove")
        args, kwargs = self.data(args, kwargs)
        return estimator_of(self).seen(params, *args, **kwargs).prove()

    @door
    def check(
        self,
        key: Any,
        params: Params,
        /,
        *args: Any,
        alpha: float = 1e-3,
        delta: float | None = None,
        budget: Budget | float | None = None,
        against: str | Sequence[str] = ("path", "exact"),
        far: float = 1.0,
        rare: float = RARE,
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
        - `far`: the distance of the far point from `params`, in unconstrained parameters.
        - `rare`: probability of the rarest events in which a mean may lie; see `ppvi.check_estimator`.

        **Returns** a `Report`: printable, with `verdict`, `raise_if_biased()` and `to_dict()`.

        **Raises** as `value_and_grad` does.
        """
        options = own_options([self], locals(), Objective.check)
        flag("check: progress", progress)
        self.engine.refuse_transformed("check")
        args, kwargs = self.data(args, kwargs)
        bound = estimator_of(self)
        with bound.untouched():
            return check(bound, key, params, args, kwargs, **options)

    def as_loss(self) -> Any:
        """An object for `loss=` of NumPyro's or Pyro's `SVI`, whose model and guide it uses; on Pyro with parameters in Pyro's
        store, and with the verbs of Pyro's own losses.

        **Raises** `StrategyError` for strategies that learn, for whose states SVI has no place; for those that a site names
        itself when it is first called, as are data that a site cannot have.
        """
        return self.engine.loss(estimator_of(self))

    @property
    def loss(self) -> Never:
        """What SVI looks for in its `loss=`."""
        raise _no_loss()

    def __call__(self, *args: Any, **kwargs: Any) -> Never:
        raise _no_loss()


def estimator_of(objective: Objective) -> Any:
    """What the engine has made of an objective."""
    try:
        return objective._estimator
    except AttributeError:
        objective._set(_estimator=objective.engine.estimator(objective._formula))
        return objective._estimator


def _objective(formula: Formula, engine: Engine, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Objective:
    bare = Objective.__new__(Objective)
    return bare._set(_formula=formula, engine=engine, args=args, kwargs=MappingProxyType(kwargs))


def _no_loss() -> ProgramError:
    return NoLossError(
        "an objective is neither a loss nor a function: give SVI loss=objective.as_loss(), or call one of its verbs, such as "
        "objective.value_and_grad(key, params, ...)."
    )


sys.modules[__name__].__class__ = NoFunction
