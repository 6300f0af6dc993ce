"""Objectives: from three programs to an estimate and its gradient, whatever the framework."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from ppvi.checks import Budget, Report
from ppvi.checks.unbiased import RARE
from ppvi.compiler.examine import examine
from ppvi.compiler.explain import Explanation, explain
from ppvi.compiler.findings import Finding, StaticReport
from ppvi.compiler.ir import Atom, Program as StagedProgram, Var
from ppvi.compiler.numbers import Numbers
from ppvi.compiler.plan import Plan
from ppvi.engine.minibatches import Minibatches, Stated, agreed
from ppvi.engine.runs import Handle
from ppvi.engine.sessions import Session, not_a_strategy
from ppvi.errors import BiasWarning, ProgramError, StrategyError
from ppvi.ops import Array, Ops
from ppvi.program import Program, staging
from ppvi.source import warn_at
from ppvi.strategies import Strategy

Params = dict[str, Any]
"""Name -> constrained value: an array, or a tree of arrays for a module."""

S = TypeVar("S", bound=Session)

ObjectiveProgram = Callable[[Program, Program], Array]


@dataclass(frozen=True)
class Start:
    """Parameters before a fit."""

    params: Params
    constraints: dict[str, Any]
    """Name -> the framework's constraint."""
    owners: dict[str, set[str]]
    """Name -> the programs that declare it: `model`, `guide`, `objective`, or `program` and its name."""
    learning: bool
    """Whether a strategy has a state."""


class Objective:
    """A variational objective: a program over a model and a guide, and strategies for the sites that it draws.

    Made by `objective`.
    """

    ops: ClassVar[Ops]
    drawing: Callable[[int], AbstractContextManager[Array]]
    """In the context a staged program draws from a seed, which is given to it in this way."""

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
            if not callable(fn) or isinstance(fn, Objective):
                raise ProgramError(f"the {what} must be a function, not {fn!r}.")
        _refuse_other_arguments(program)
        for name, strategy in self.strategies.items():
            if problem := not_a_strategy(strategy):
                raise StrategyError(f"strategies[{name!r}]: {problem}.")

    # What the engine adds ---------------------------------------------------------------------------------------------

    def initialise(self, key: Any, *args: Any, **kwargs: Any) -> Start:
        """`init`, with what is known of each parameter."""
        raise NotImplementedError

    def value_and_grad(self, key: Any, params: Params, *args: Any, **kwargs: Any) -> tuple[Array, Params]:
        """One unbiased estimate of the objective and of its gradient.

        **Arguments**

        - `key`: a JAX key; on Pyro an int seed, a `torch.Generator`, or None for PyTorch's global one.
        - `params`: name -> constrained value, as from `init`.
        - `*args`, `**kwargs`: passed to the model and the guide, in trees of lists, tuples and dicts. Arrays of the framework
          are inputs of the staged program; on NumPyro NumPy arrays and Python floats are too, unless a program reads them in
          Python, as `len(np.unique(x))` does. Anything else, and NumPy arrays on Pyro, is a constant: it is read at every
          call, and the program is staged anew where its contents have changed; what changes at every step should be an array.
          What has no contents to compare (a generator, an open file) is refused, and so is an argument that a Pyro program
          changes in place. A NumPy array of more than 256 kB that is a constant and may be written to is compared in parts, in
          their turn: other data are seen at once, a change of a few entries only some calls later.

        **Returns** a scalar, and a dict like `params`.

        **Raises** `ProgramError`, `StrategyError`, `EngineError` on the first call with new shapes.

        **Unbiased when** the strategy of every site is; see their docstrings, and `explain`.
        """
        raise NotImplementedError

    def surrogate(self, key: Any, params: Params, *args: Any, **kwargs: Any) -> Array:
        """The scalar whose value is `estimate` and whose native gradient in `params` is that of `value_and_grad`.

        Its second derivative has the objective's as its mean where every site has a sum (`Enumerate`, `Quadrature`,
        `SumAndSample`), `Reinforce` with a constant baseline, or a pathwise strategy in a draw that the objective is smooth in,
        and nothing is held constant.

        **Raises** `StrategyError` when it is differentiated twice where that is not so.
        """
        raise NotImplementedError

    def states(self, params: Params, *args: Any, **kwargs: Any) -> Any:
        """The states of strategies that learn, such as `Reinforce(RunningMean())`, before their first gradient."""
        raise NotImplementedError

    def update(self, key: Any, params: Params, states: Any, *args: Any, **kwargs: Any) -> tuple[Array, Params, Any]:
        """`value_and_grad` with the strategies in these states, and the states after they have learned from it,
        which on Pyro are the same objects, moved in place.

        The states that a gradient uses have not seen its draws, so it is unbiased as it would be with fixed ones. `fit` carries
        them from step to step; `value_and_grad` leaves the strategies as they begin.

        **Arguments**

        - `states`: from `states`, or from the update before.
        """
        raise NotImplementedError

    def staged(self, params: Params, *args: Any, **kwargs: Any) -> Plan:
        """The compiler's plan for arguments of these shapes."""
        raise NotImplementedError

    def names_of(self, inputs: Sequence[Var], params: Params) -> dict[Var, str]:
        """The names of the parameters by their variables, which come first among a staged program's inputs."""
        raise NotImplementedError

    def values_of(
        self, inputs: Sequence[Var], params: Params, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> dict[Var, Array]:
        """The values of a staged program's inputs, less its key."""
        raise NotImplementedError

    def many(
        self,
        key: Any,
        params: Params,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        n: int,
        function: Callable[[Handle, Handle], Any],
    ) -> Any:
        """`n` plain runs of a function of the two handles, as NumPy arrays with a leading axis."""
        raise NotImplementedError

    def another(self, key: Any) -> Any:
        """A key that is not used by what was done with this one."""
        raise NotImplementedError

    def trainer(self, *args: Any, **options: Any) -> Any:
        """What `fit` moves parameters by, a `ppvi.engine.training.Trainer`."""
        raise NotImplementedError

    def _check(self, *args: Any, **options: Any) -> Report:
        raise NotImplementedError

    @property
    def loss(self) -> Any:
        """What SVI looks for in its `loss=`."""
        raise _no_loss()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise _no_loss()

    # What every engine has --------------------------------------------------------------------------------------------

    def init(self, key: Any, *args: Any, **kwargs: Any) -> Params:
        """Initial values of every parameter that the objective, its model and its guide declare.

        **Returns** a dict: name -> constrained value.

        **Raises** `ProgramError` if there is no parameter, or if an observation is NaN.
        """
        return self.initialise(key, *args, **kwargs).params

    def estimate(self, key: Any, params: Params, *args: Any, **kwargs: Any) -> Array:
        """One unbiased estimate of the objective, a scalar."""
        return self.surrogate(key, params, *args, **kwargs)

    def explain(self, params: Params, *args: Any, **kwargs: Any) -> Explanation:
        """What the compiler saw: sites, strategies and why, lanes, credit, cost. Printable."""
        plan = self.staged(params, *args, **kwargs)
        return explain(plan, self.examine(plan, params, args, kwargs))

    def prove(self, params: Params, *args: Any, **kwargs: Any) -> StaticReport:
        """The static check: what can be proved of the gradient from the program alone. Printable; see `check`."""
        return self.examine(self.staged(params, *args, **kwargs), params, args, kwargs)

    def examine(self, plan: Plan, params: Params, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> StaticReport:
        """`prove` of what was staged on these arguments."""
        inputs = plan.program.inputs
        values = self.values_of(inputs, params, args, kwargs)
        return examine(plan, self.names_of(inputs, params), Numbers(plan.program, values, self.ops, self.drawing))

    def check(
        self,
        key: Any,
        params: Params,
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
        options = {
            "alpha": alpha,
            "delta": delta,
            "budget": budget,
            "against": against,
            "far": far,
            "rare": rare,
            "progress": progress,
        }
        return self._check(key, params, args, kwargs, **options)

    def evaluate(self, start: Callable[[], S], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Array, S]:
        """The value of the objective program in a session that `start` makes, and the session; begun anew in another one
        where a plate that was run over turns out to have a minibatch."""

        def attempt(known: Mapping[str, Stated]) -> tuple[Array, S]:
            session = start()
            session.plate_rows, session.begun_anew = Minibatches(known), bool(known)
            return self.run(session, args, kwargs), session

        return agreed(attempt)

    def run(self, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Array:
        """Run the objective program once in a session."""
        with self.handles(session, args, kwargs) as (p, q), session.direct():
            value = self.program(p, q)
            session.refuse_owed()
            session.names.refuse_data_of_the_guide()
        return _real_scalar(value, session, _name(self.program))

    @contextmanager
    def handles(
        self, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[tuple[Handle, Handle]]:
        """The model and the guide in a session, which is the one that verbs act on."""
        session.args, session.kwargs = args, kwargs
        with staging(session), session.surroundings():
            yield Handle(self.model, "model", session, args, kwargs), Handle(self.guide, "guide", session, args, kwargs)

    def refuse_no_params(self, found: Params) -> None:
        """An objective without parameters has nothing to fit."""
        if not found:
            raise ProgramError(
                f"neither the guide {_name(self.guide)} nor the model {_name(self.model)} declares a parameter, so there is "
                f"nothing to fit: declare one with `param`, or use an autoguide such as AutoNormal(model)."
            )


class _NoLossError(ProgramError, AttributeError):
    """An objective has no attribute `loss`, nor is it a function."""


def _no_loss() -> ProgramError:
    return _NoLossError(
        "an objective is neither a loss nor a function: give SVI loss=objective.as_loss(), or call one of its verbs, such as "
        "objective.value_and_grad(key, params, ...)."
    )


def warn_of_bias(findings: Iterable[Finding], where: str) -> None:
    """Say at an objective's first use, which is there in the user's files, what a check would find of its minibatches."""
    for finding in findings:
        warn_at(where, f"the objective is biased.\n{finding}", BiasWarning)


def refuse_constant(program: StagedProgram, params: Params) -> None:
    """An objective that depends on no parameter is a mistake."""
    depends: set[Atom] = set(program.params)
    for equation in program.equations:
        if any(atom in depends for atom in equation.inputs):
            depends.update(equation.outputs)
    if params and program.output not in depends:
        raise ProgramError(
            f"the objective does not depend on any parameter of {sorted(params)}, so its gradient is zero everywhere: did it "
            f"return the value that it computed?"
        )


def _real_scalar(value: Any, session: Session, name: str) -> Array:
    if hasattr(value, "dtype") or (isinstance(value, int | float) and not isinstance(value, bool)):
        value = session.array(value)
        dtype = str(value.dtype).removeprefix("torch.")
        if tuple(value.shape) == () and dtype.startswith(("float", "bfloat")):
            return value
        if tuple(value.shape) == () and dtype.startswith(("int", "uint")):
            return value * 1.0
        what = f"an array of shape {tuple(value.shape)} and dtype {dtype}"
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


def _name(fn: Any) -> str:
    return repr(getattr(fn, "__name__", type(fn).__name__))
