"""The first run of an objective, on arrays: it finds the parameters that the programs declare, with their initial values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints
from numpyro.infer.autoguide import AutoGuide

from ppvi.engine.evaluations import evaluate
from ppvi.engine.formula import Formula
from ppvi.engine.protocol import Args, Kwargs, Params, Start
from ppvi.engine.prototypes import Known
from ppvi.engine.sessions import Session
from ppvi.engine.unstaged import ONCE, unseen
from ppvi.errors import EngineError
from ppvi.numpyro._compat import Tracer, computes, current_trace
from ppvi.numpyro._handlers import InnerSiteError
from ppvi.numpyro._known import by_numpy
from ppvi.numpyro._modules import Modules, State
from ppvi.numpyro._programs import NumPyroPrograms, scope_of

T = TypeVar("T")


class Found:
    """Parameters are found: they are made where they are declared with a value, and are given where they are not.

    Where what is drawn is traced, they are traced too. `instead` has values in place of initial ones.
    """

    makes = True

    def __init__(self, engine: NumPyroPrograms, instead: Params):
        self.engine, self.instead = engine, instead
        self.level = current_trace()
        self.values: dict[str, Any] = {}
        self.owners: dict[str, set[str]] = {}

    def value(self, session: Session, name: str, initial: Callable[[], Any], constraint: Any, role: str) -> Any:
        self.owners.setdefault(name, set()).add(role)
        if name not in self.values:
            value = initial()
            if value is None:
                if name not in session.params:
                    session.asks(name, role)
                return self.engine.traced(session.params.get(name))
            if current_trace() is not self.level:
                raise EngineError(
                    f"parameter {name!r} at {session.here()} is first declared inside a JAX transformation (jit, scan, vmap "
                    f"or grad), which its initial value cannot leave. Declare it outside and use its value inside."
                )
            self.values[name] = value = self.instead.get(name, value)
            session.constraints[name] = constraint
            session.made(name, value, constraint or constraints.real, role)
        return self.engine.traced(self.values[name])


def first_run(
    formula: Formula,
    key: jax.Array,
    given: Params,
    args: Args,
    kwargs: Kwargs,
    modules: State | None = None,
    instead: Params | None = None,
) -> Start:
    """A run that finds the parameters that are declared with a value, and the states of modules; the others are given.

    What depends on parameters and draws is traced only, for to compile it operation by operation takes seconds; unless an
    initial value depends on it, or a site is under control flow. With values `instead` of initial ones the states of modules
    are those that begin with them, for one may begin as a parameter does.
    """
    known = modules or {}

    def run(token: jax.Array | None) -> Start:
        def start(**options: Any) -> Session:
            engine = NumPyroPrograms(token=token, modules=Modules(known, makes=True))
            # Supports that move with what is drawn are looked at on numbers.
            numbers = None if token is None else np.asarray
            return finding(engine, key, given, formula.strategies, formula.guide, numbers, instead, **options)

        _, session = evaluate(formula, start, args, kwargs)
        parameters: Any = session.parameters
        # Without the session, whose tracers must not outlive it.
        first = session.engine.modules.state
        return Start(parameters.values, session.constraints, parameters.owners, session.learning, modules=first)

    def is_known(start: Start) -> bool:
        return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((start.params, start.modules)))

    return tracing_draws(run, is_known)


def finding(
    engine: NumPyroPrograms,
    key: jax.Array,
    given: Params,
    strategies: Mapping[str, Any],
    guide: Any = None,
    known: Known | None = None,
    instead: Params | None = None,
    **options: Any,
) -> Session:
    """A session that finds parameters and looks at data, without densities, in which what is drawn is as the engine has it."""
    options |= {
        "parameters": Found(engine, instead or {}),
        "repeats": ONCE,
        "log_probs": lambda *site: engine.traced(unseen(*site, guide=guide, known=known)),
    }
    return Session(engine, given, strategies, scope_of(key, plain=True), **options)


def tracing_draws(run: Callable[[jax.Array | None], T], is_known: Callable[[T], bool] = lambda found: True) -> T:
    """What a run finds that makes what is drawn traced, by a token; or one on numbers alone, without a token, where it needs
    the numbers, or else what it finds is not known. What is known is computed, by NumPy."""
    found: list[T] = []

    def traced(token: jax.Array) -> None:
        with by_numpy():
            result = run(token)
        if is_known(result):
            found.append(result)

    with suppress(*NEEDS_VALUES):
        jax.eval_shape(traced, jnp.zeros(()))
    if not found:  # what is wanted is numbers, whatever is traced around them
        with by_numpy():
            found.append(run(None))
    return found[0]


def unbegun(guide: Any) -> bool:
    """Whether it is an autoguide that no run has begun, and one can: begun while it is staged, it would keep what is traced."""
    return isinstance(guide, AutoGuide) and guide.prototype_trace is None and computes()


def look_at_data(formula: Formula, key: jax.Array, params: Params, modules: State, args: Args, kwargs: Kwargs) -> bool:
    """Refuse what sites observe where it is missing or impossible, as far as it is known: what is traced is not, as are draws
    and all that depends on a parameter. Returns whether a strategy of a site has a state."""
    learning: list[bool] = []

    def run(key: jax.Array, params: Params) -> None:
        def start(**options: Any) -> Session:
            engine, scope = NumPyroPrograms(modules=Modules(modules)), scope_of(key, plain=True)
            seen = functools.partial(unseen, guide=formula.guide)
            return Session(engine, params, formula.strategies, scope, repeats=ONCE, log_probs=seen, **options)

        _, session = evaluate(formula, start, args, kwargs)
        learning.append(session.learning)

    with suppress(*NEEDS_VALUES), jax.ensure_compile_time_eval():
        jax.eval_shape(run, key, params)
    return any(learning)


NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.UnexpectedTracerError,
    InnerSiteError,
)
"""What is raised where numbers are looked at that are traced only, or where a function with a derivative rule of its own
meets a parameter of its surroundings."""
