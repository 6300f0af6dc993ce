"""Objectives: from three programs to an estimate and its gradient, whatever the framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

from ppvi.checks import Report
from ppvi.compiler.examine import examine
from ppvi.compiler.explain import Explanation, explain
from ppvi.compiler.findings import Finding, StaticReport
from ppvi.compiler.ir import Atom, Program as StagedProgram, Var
from ppvi.compiler.numbers import Numbers
from ppvi.compiler.plan import Plan
from ppvi.engine.minibatches import Minibatches, Stated, agreed
from ppvi.engine.runs import Handle
from ppvi.engine.sessions import Session
from ppvi.errors import BiasWarning, ProgramError
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


class Estimator:
    """What an engine makes of an objective: stagings, plans and compiled functions, by the kind of call.

    Its verbs are those of `ppvi.objective.Objective`, which documents them.
    """

    ops: ClassVar[Ops]
    drawing: Callable[[int], AbstractContextManager[Array]]
    """In the context a staged program draws from a seed, which is given to it in this way."""

    def __init__(
        self,
        program: ObjectiveProgram,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        strategies: Mapping[str, Strategy],
        maximize: bool,
    ):
        self.program = program
        self.model = model
        self.guide = guide
        self.strategies = dict(strategies)
        self.maximize = maximize

    def other(
        self,
        *,
        model: Callable[..., Any] | None = None,
        guide: Callable[..., Any] | None = None,
        strategies: Mapping[str, Strategy] | None = None,
    ) -> Self:
        """The estimator of the same objective of other programs, or with other strategies."""
        chosen = self.strategies if strategies is None else strategies
        return type(self)(self.program, model or self.model, guide or self.guide, chosen, self.maximize)

    # What the engine adds ---------------------------------------------------------------------------------------------

    def initialise(self, key: Any, /, *args: Any, **kwargs: Any) -> Start:
        """`init`, with what is known of each parameter."""
        raise NotImplementedError

    def value_and_grad(self, key: Any, params: Params, /, *args: Any, **kwargs: Any) -> tuple[Array, Params]:
        raise NotImplementedError

    def surrogate(self, key: Any, params: Params, /, *args: Any, **kwargs: Any) -> Array:
        raise NotImplementedError

    def states(self, params: Params, /, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def update(self, key: Any, params: Params, states: Any, /, *args: Any, **kwargs: Any) -> tuple[Array, Params, Any]:
        raise NotImplementedError

    def staged(self, params: Params, /, *args: Any, **kwargs: Any) -> Plan:
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

    def check(
        self, key: Any, params: Params, args: tuple[Any, ...], kwargs: Mapping[str, Any], **options: Any
    ) -> Report:
        raise NotImplementedError

    def as_loss(self) -> Any:
        raise NotImplementedError

    # What every engine has --------------------------------------------------------------------------------------------

    def init(self, key: Any, /, *args: Any, **kwargs: Any) -> Params:
        return self.initialise(key, *args, **kwargs).params

    def estimate(self, key: Any, params: Params, /, *args: Any, **kwargs: Any) -> Array:
        return self.surrogate(key, params, *args, **kwargs)

    def explain(self, params: Params, /, *args: Any, **kwargs: Any) -> Explanation:
        plan = self.staged(params, *args, **kwargs)
        return explain(plan, self.examine(plan, params, args, kwargs))

    def prove(self, params: Params, /, *args: Any, **kwargs: Any) -> StaticReport:
        return self.examine(self.staged(params, *args, **kwargs), params, args, kwargs)

    def examine(self, plan: Plan, params: Params, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> StaticReport:
        """`prove` of what was staged on these arguments."""
        inputs = plan.program.inputs
        values = self.values_of(inputs, params, args, kwargs)
        return examine(plan, self.names_of(inputs, params), Numbers(plan.program, values, self.ops, self.drawing))

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


def _name(fn: Any) -> str:
    return repr(getattr(fn, "__name__", type(fn).__name__))
