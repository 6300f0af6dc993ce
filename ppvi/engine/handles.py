"""How a model or a guide runs under an objective, whatever the framework.

`Handle` is the program as the objective sees it. In each of its runs every sample site that the program reaches is told to
a `ppvi.engine.runs.Run`. The engine's messenger is outermost, so that the program's own handlers (plates, scale, mask) have
spoken when a site arrives.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from traceback import walk_tb
from typing import Any, Never

from ppvi._doors import described, mapping, noted
from ppvi.engine.calls import left_out, misfit, model_of, name_of, without_beginning
from ppvi.engine.data import computes, has_computed, in_arrays, said_of, unfit
from ppvi.engine.runs import Assess, Run, Simulate
from ppvi.engine.sessions import Session
from ppvi.engine.statements import DiscreteParameterError, failed_statement
from ppvi.errors import FiniteSiteError, NoVerbError, PpviError, ProgramError, StrategyError
from ppvi.program import Program, Trace, session as verbs

_FAILURES = (
    TypeError, ValueError, RuntimeError, NotImplementedError, AssertionError, LookupError, AttributeError, ZeroDivisionError,
)  # fmt: skip
"""By which libraries fail that were given what does not fit."""


class Handle(Program):
    """A model or a guide, bound to the session's parameters and the objective's arguments (`ppvi.program.Program`)."""

    def __init__(
        self, fn: Callable[..., Any], role: str, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]
    ):
        self.fn = fn
        self.role = role
        self.session = session
        self.args = args
        self.kwargs = kwargs

    def simulate(
        self,
        *args: Any,
        given: Mapping[str, Any] | None = None,
        observe: bool = True,
        stop_params: bool | str = False,
        **kwargs: Any,
    ) -> Trace:
        given = mapping("simulate: given= is a dict by site, or a run, of values that are not drawn", given)
        with self.session.constant_params(stop_params):
            return self.run(Simulate(self.role, self.session, given, observe), *args, **kwargs)

    def assess(self, choices: Mapping[str, Any], *, stop_params: bool | str = False, strict: bool = True) -> Trace:
        self.session.assesses = True
        with self.session.constant_params(stop_params):
            if not isinstance(choices, Mapping):
                raise ProgramError(
                    f"the density of the {self.role} is of a run, from simulate, or of a dict from site to value, not of "
                    f"{described(choices)}."
                )
            try:
                return self.run(Assess(self.role, self.session, choices, strict))
            except FiniteSiteError:
                return verbs().summed(self, choices, None, strict)

    def __getattr__(self, name: str) -> Never:
        raise NoVerbError(
            f"a handle on a program has no {name!r}: in an objective it has simulate, assess, log_density, log_probs and bind."
        )

    def bind(self, *args: Any, **kwargs: Any) -> Handle:
        return Handle(self.fn, self.role, self.session, args, kwargs)

    def run(self, run: Run, *args: Any, **kwargs: Any) -> Trace:
        """One run of the program. Arguments default to those of the objective's call."""
        args, kwargs = args or self.args, kwargs or self.kwargs
        program_name = name_of(self.fn)  # by which `ppvi._source` says where a site is that no line samples
        try:
            returned = self._executed(run, args, kwargs)
        except Exception as error:
            is_told = isinstance(error, PpviError) and not isinstance(error, DiscreteParameterError)
            is_told = is_told or self.session.engine.is_signal(error)
            problem = None if is_told else self._problem(error, args, kwargs)
            if problem is not None:
                raise problem from error
            last = f", after its site {next(reversed(run.log_probs))!r}" if run.log_probs else ""
            noted(
                error, f"the {self.role} {program_name}{last}, on {said_of(self.fn, args, kwargs) or 'no arguments'}."
            )
            raise
        if inspect.isgenerator(returned) or inspect.iscoroutine(returned):
            raise ProgramError(
                f"the {self.role} {program_name!r} is a generator or a coroutine: write it as a plain function, without yield "
                f"or async."
            )
        return run.finish(returned)

    def _executed(self, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the program returns of these arguments; or where it fails on them, of arrays in place of tables and lists."""
        session = self.session

        def of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return session.engine.execute(session, run, functools.partial(self.fn, *args, **kwargs))

        if computes(self.fn) and (arrays := in_arrays(session.engine, args, kwargs)):
            return of(*arrays)
        try:
            return of(args, kwargs)
        except _FAILURES:
            if (arrays := in_arrays(session.engine, args, kwargs)) is None:
                raise
            run.clear()
            session.plate_rows.begun_anew = True
            try:
                returned = of(*arrays)
            except Exception as other:
                if isinstance(other, PpviError) or session.engine.is_signal(other):
                    raise
            else:
                has_computed(self.fn)
                return returned
            raise

    def _problem(self, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PpviError | None:
        """What is wrong with the program, which has failed, if that is known."""
        session, failed = self.session, f"the {self.role} {name_of(self.fn)!r} failed ({type(error).__name__})"
        if isinstance(error, TypeError) and (problem := misfit(self.fn, self.role, args, kwargs)):
            return problem
        if isinstance(error, _FAILURES):
            if _is_of_operands(error, self.fn) and (found := unfit(session.engine, self.fn, args, kwargs)):
                return ProgramError(f"{failed}, and its {found}.")
            if (model := model_of(self.fn)) is not None:
                Handle(model, "model", session, args, kwargs).simulate()  # whose own errors say more
                if discrete := session.names.discrete("model"):
                    return left_out(self.fn, discrete)
                if "Cannot find valid initial parameters" in str(error):
                    return without_beginning(self.fn)
        problem = failed_statement(error, self.role, session.engine.library, self._beyond) or session.names.never_made()
        if problem is None and session.relaxed and isinstance(error, TypeError | IndexError):
            return StrategyError(
                f"{failed}, where the strategies of site {', '.join(map(repr, sorted(session.relaxed)))} make it a real number "
                f"between its values, which is no index: name LeaveOneOut() or Enumerate(), or mix, as in z * a + (1 - z) * b."
            )
        return problem

    def _beyond(self, name: str, fn: Any, where: str) -> str | None:
        """What is to be said of a site that another program draws beyond the support that this one gives it."""
        seen = self.session.scope.distribution(fn)
        return self.session.names.beyond(name, self.role, where, seen.name, seen.support)


def _is_of_operands(error: Exception, fn: Any) -> bool:
    """Whether an error may be of what an operation has been given, and not one that the program raises itself."""
    if isinstance(error, TypeError):
        return True
    *_, (frame, _) = walk_tb(error.__traceback__)
    if frame.f_globals is getattr(fn, "__globals__", None) or isinstance(error, LookupError):
        return False
    return not (isinstance(error, AttributeError) and hasattr(getattr(error, "obj", None), "__array__"))
