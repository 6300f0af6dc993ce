"""The engine of NumPyro: objectives are staged, jitted and differentiated by JAX."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
import numpyro

from ppvi.compiler.choose import refuse_unknown
from ppvi.compiler.plan import Plan, plan
from ppvi.compiler.surrogate import surrogate
from ppvi.engine.arguments import named
from ppvi.engine.checking import Oracle
from ppvi.engine.evaluations import evaluate, handles
from ppvi.engine.formula import Formula
from ppvi.engine.gaps import refuse_gaps
from ppvi.engine.handles import Handle
from ppvi.engine.memory import abreast
from ppvi.engine.minibatches import Whole
from ppvi.engine.outcomes import Outcomes, gone_through
from ppvi.engine.pieces import Wanted
from ppvi.engine.protocol import Args, Kwargs, Params, Pick, Scope, Start
from ppvi.engine.proving import Staged, refuse_constant, warn_of_bias
from ppvi.engine.sessions import Session
from ppvi.engine.stagings import uncollected
from ppvi.engine.summed import Completed, telling
from ppvi.engine.unstaged import culprits
from ppvi.numpyro import _source as source
from ppvi.numpyro._arguments import Structure, has_gradient, names_of, refuse_without_gradient, supports_of
from ppvi.numpyro._as_one import as_one
from ppvi.numpyro._beginnings import first_run, look_at_data, unbegun
from ppvi.numpyro._checking import Gradients, ValueAndGrad
from ppvi.numpyro._compat import ClosedJaxpr, Tracer, transformation as transformation
from ppvi.numpyro._distributions import SiteDistribution
from ppvi.numpyro._handlers import InnerSiteError
from ppvi.numpyro._known import by_numpy
from ppvi.numpyro._learning import States, first_states, learners_of, value_grad_and_states
from ppvi.numpyro._lifting import lifted, traced_afresh
from ppvi.numpyro._modules import Begun, Modules, UnknownStateError, moved
from ppvi.numpyro._numbers import drawing, like, number
from ppvi.numpyro._ops import OPS
from ppvi.numpyro._orders import derivatives_of
from ppvi.numpyro._outcomes import Tape, Taped, every_outcome
from ppvi.numpyro._plain import Draws
from ppvi.numpyro._programs import NumPyroPrograms, as_key, body_key, known, renewed, scope_of
from ppvi.numpyro._reading import Reading, called, parted
from ppvi.numpyro._stage import read
from ppvi.numpyro._summing import completed, staged
from ppvi.proofs.examine import misused_estimates
from ppvi.proofs.orders import refuse_second

T = TypeVar("T")


class Estimator:
    """See `ppvi.engine.protocol`. Calls are jitted; the caller may jit, vectorise and shard them too."""

    known = staticmethod(known)
    learned = States

    def __init__(self, formula: Formula):
        self.formula = formula
        self.reading = Reading(formula)
        self._lifted = False
        """Whether a program has shown to have sites under control flow."""
        self._modules = Begun()

    def of(self, formula: Formula) -> Self:
        return type(self)(formula)

    def initialise(self, key: jax.Array, /, *args: Any, **kwargs: Any) -> Start:
        self.reading.worlds.look(parted(self.reading, args, kwargs).constants)  # which refuses what nobody can see into
        start = first_run(self.formula, key, {}, args, kwargs)
        self._modules.meet(start.modules)
        refuse_gaps(self, key, start.params, args, kwargs)
        # Weak types would make the second call of a jitted step compile again.
        with by_numpy():
            return replace(start, params=jax.tree.map(lambda x: jnp.array(x, jnp.result_type(x)), start.params))

    def culprits(self, key: jax.Array, params: Params, args: Args, kwargs: Kwargs) -> list[str]:
        def start(**options: Any) -> Session:
            mine, modules = self._modules.parted(params)
            return self.session(scope_of(key, plain=True), mine, modules, **options)

        with numpyro.validation_enabled(False):
            return culprits(self.formula, start, args, kwargs)

    def begun(self, key: jax.Array, params: Params, args: Args, kwargs: Kwargs) -> Start:
        mine, modules = self._modules.parted(params)
        return first_run(self.formula, jax.random.fold_in(as_key(key), 0), mine, args, kwargs, modules)

    def look(self, key: jax.Array, params: Params, args: Args, kwargs: Kwargs) -> bool:
        """Refuse data as `initialise` does, where somebody else has made the parameters; and whether a strategy may learn."""

        def call(checked: Params, arrays: list[Any], structure: Structure) -> bool:
            made, seen = structure.made(checked, arrays), ("looked at", *(isinstance(x, Tracer) for x in arrays))
            if seen not in made:
                made[seen] = look_at_data(self.formula, key, *self._modules.parted(params), args, kwargs)
            return made[seen]

        return self._called(call, params, args, kwargs)

    def value_and_grad(self, key: jax.Array, params: Params, /, *args: Any, **kwargs: Any) -> tuple[jax.Array, Params]:
        return self.differentiated(key, params, args, kwargs)

    def differentiated(
        self, key: jax.Array, params: Params, args: Args, kwargs: Kwargs, any_numbers: bool = False
    ) -> tuple[jax.Array, Params]:
        """An estimate and its gradient, of arguments with gaps too if `any_numbers`."""
        return self._call(self._differentiate, key, params, args, kwargs, any_numbers=any_numbers)

    def estimate(self, key: jax.Array, params: Params, /, *args: Any, **kwargs: Any) -> jax.Array:
        return self.surrogate(key, params, *args, **kwargs)

    def surrogate(self, key: jax.Array, params: Params, /, *args: Any, **kwargs: Any) -> jax.Array:
        return self.surrogate_in(None, key, params, args, kwargs)

    def surrogate_in(
        self,
        values: dict[str, Any] | None,
        key: jax.Array,
        params: Params,
        args: Args,
        kwargs: Kwargs,
    ) -> jax.Array:
        """The surrogate with the strategies in these states."""
        return self._call(self._evaluate, key, params, args, kwargs, values)

    def states(self, params: Params, /, *args: Any, **kwargs: Any) -> States:
        first = first_states(self.staged(params, *args, **kwargs))
        return first._replace(modules=self.beginnings(jax.random.key(0), params, args, kwargs))

    def beginnings(self, key: jax.Array, params: Params, args: Args, kwargs: Kwargs) -> dict[str, Any]:
        """How the states of modules begin with these parameters."""
        run = functools.partial(first_run, self.formula, key, {}, args, kwargs)
        return self._modules.at(params, lambda mine: run(instead=mine).modules)

    def moved(self, key: jax.Array, params: Params, args: Args, kwargs: Kwargs) -> dict[str, Any]:
        """The states of modules, which may be among the parameters, after an evaluation with this key."""
        return self._call(self._move, key, params, args, kwargs)

    def update(
        self, key: jax.Array, params: Params, states: States, /, *args: Any, **kwargs: Any
    ) -> tuple[jax.Array, Params, States]:
        return self._call(self._learn, key, params | states.modules, args, kwargs, states)

    def untouched(self) -> AbstractContextManager[None]:
        return nullcontext()

    def gradients(self, key: jax.Array, params: Params, args: Args, kwargs: Kwargs, start: Start) -> Gradients:
        mine, modules = self._modules.parted(params)

        def of(oracle: Oracle) -> ValueAndGrad:
            # With one key for all draws, what does not depend on them is computed once.
            return lambda key, params: oracle.estimator.value_and_grad(
                key if oracle.key is None else oracle.key, params | modules, *args, **kwargs
            )

        return Gradients(of(Oracle(self)), as_key(key), mine, start.constraints, of)

    def outcomes(self, params: Params, args: Args, kwargs: Kwargs, limit: int, seconds: float = math.inf) -> Outcomes:
        tape = Tape(limit, seconds)
        plan, arrays = self.laid_out(params, args, kwargs, functools.partial(Taped, tape))
        return gone_through(tape, every_outcome(tape, plan, params, arrays))

    def many(
        self,
        key: Any,
        params: Any,
        args: Args,
        kwargs: Kwargs,
        n: int,
        of: Any,
        given: Any = None,
        particles: int = 1,
        pick: Pick | None = None,
    ) -> Any:
        def run(params: Params, arrays: list[Any], structure: Structure, key: jax.Array, given: Any) -> Any:
            (args, kwargs), learnt = structure.joined(arrays), self._modules.last_of(arrays)
            session = self.session(scope_of(key, plain=True), params, learnt, plate_rows=Whole())
            with handles(self.formula, session, args, kwargs) as (p, q), session.within(**renewed(session.scope, key)):
                return of(p, q) if given is None else of(p, q, given)

        several = params if isinstance(params, list) else [params]
        draws = Draws(run, as_key(key), n, given, abreast(n, particles, several[0], args, kwargs), particles, pick)
        found = [draws.of(functools.partial(self._called, params=x, args=args, kwargs=kwargs)) for x in several]
        return found if several is params else found[0]

    def completed(
        self,
        key: jax.Array,
        params: Params,
        args: Args,
        kwargs: Kwargs,
        n: int,
        choices: Mapping[str, Any],
        wanted: Wanted,
    ) -> Completed:
        def run(p: Handle, q: Handle, choices: Mapping[str, Any]) -> Completed:
            session = p.session
            found = staged(session, renewed, telling(p, choices, None, False, []))
            return completed(found, session.engine.key(session.scope), wanted)

        return self.many(key, params, args, kwargs, n, run, dict(choices))

    def in_format(self, x: Any, dtype: str) -> jax.Array:
        return jnp.asarray(x, dtype)

    def another(self, key: jax.Array) -> jax.Array:
        with by_numpy():
            return jax.random.fold_in(key, 2**31)  # splits of a key are its folds with small numbers

    def key_text(self, key: jax.Array) -> str:
        return f"{jax.random.key_impl(as_key(key))} {jax.random.key_data(as_key(key)).tolist()}"

    def staged(self, params: Params, /, *args: Any, **kwargs: Any) -> Plan:
        return self.laid_out(params, args, kwargs)[0]

    def seen(self, params: Params, /, *args: Any, **kwargs: Any) -> Staged:
        plan, arrays = self.laid_out(params, args, kwargs)
        params = self._modules.parted(params)[0]
        inputs, leaves = plan.program.inputs, jax.tree.leaves(params)
        values = zip((*inputs[: len(leaves)], *inputs[len(leaves) + 1 :]), (*leaves, *arrays), strict=True)
        known = {var: number(x) for var, x in values}
        return Staged(plan, names_of(inputs, params), known, drawing, like)

    def laid_out(
        self, params: Params, args: Args, kwargs: Kwargs, kind: Callable[..., SiteDistribution] = SiteDistribution
    ) -> tuple[Plan, list[Any]]:
        """The plan for these arguments, with sites that strategies see as this kind of distribution; and their arrays."""

        def call(params: Params, arrays: list[Any], structure: Structure) -> tuple[Plan, list[Any]]:
            key = jax.random.key(0)
            if kind is SiteDistribution:
                return self.planned(key, params, arrays, structure), arrays
            return self._plan(key, params, arrays, structure, kind), arrays

        return self._called(call, params, args, kwargs)

    def _called(
        self, call: Callable[[Params, list[Any], Structure], T], params: Params, args: Args, kwargs: Kwargs
    ) -> T:
        """What a function makes of parameters and arguments, of which the states of modules are the last arrays."""
        stateful = not self._modules.first and any(not has_gradient(x) for x in jax.tree.leaves(dict(named(params))))
        if stateful or unbegun(self.formula.guide):
            self._begin(args, kwargs)

        def run() -> T:
            mine, states = self._modules.parted(params)
            checked, last = refuse_without_gradient(mine), jax.tree.leaves(states)
            return called(
                [self.reading], lambda arrays, rest: call(checked, [*arrays, *last], rest), checked, args, kwargs
            )

        try:
            return run()
        except UnknownStateError:
            self._begin(args, kwargs)
            return run()

    def _begin(self, args: Args, kwargs: Kwargs) -> None:
        first = first_run(self.formula, jax.random.key(0), {}, args, kwargs, self._modules.first)
        self._modules.meet(first.modules)

    def session(self, scope: Scope, params: Params, modules: Mapping[str, Any], **options: Any) -> Session:
        engine = NumPyroPrograms(self._lifted, modules=Modules(modules))
        return Session(engine, params, self.formula.strategies, scope, **options)

    def _call(
        self,
        function: Callable[..., T],
        key: jax.Array,
        params: Params,
        args: Args,
        kwargs: Kwargs,
        *states: Any,
        any_numbers: bool = False,
    ) -> T:
        """A method of these arguments, compiled for such ones in the world as it is."""

        def call(checked: Params, arrays: list[Any], structure: Structure) -> T:
            made, name = structure.made(checked, arrays), function.__name__
            if name in made:
                return made[name](key, checked, arrays, *states)
            if not any_numbers and not any(isinstance(x, Tracer) for x in jax.tree.leaves((key, checked))):
                refuse_gaps(self, key, params, args, kwargs)
            made[name] = jax.jit(functools.partial(function, structure))
            with uncollected():
                return made[name](key, checked, arrays, *states)

        return self._called(call, params, args, kwargs)

    # Staging ------------------------------------------------------------------------------------------------------------

    def _evaluate(
        self, structure: Structure, key: jax.Array, params: Params, arrays: list[Any], states: Any = None
    ) -> jax.Array:
        of, leaves = derivatives_of(self.planned(key, params, arrays, structure), params, key, arrays, states)
        return of.surrogate(leaves)

    def _differentiate(
        self, structure: Structure, key: jax.Array, params: Params, arrays: list[Any]
    ) -> tuple[jax.Array, Params]:
        of, leaves = derivatives_of(self.planned(key, params, arrays, structure), params, key, arrays)
        return of.gradient(leaves)

    def _learn(
        self, structure: Structure, key: jax.Array, params: Params, arrays: list[Any], states: States
    ) -> tuple[jax.Array, Params, States]:
        plan = self.planned(key, params, arrays, structure)
        states, learners = states._replace(modules=self._move(structure, key, params, arrays)), learners_of(plan)
        if not learners:
            of, leaves = derivatives_of(plan, params, key, arrays)
            return *of.gradient(leaves), states

        @jax.custom_jvp
        @as_one
        def learn(
            key: jax.Array, params: Params, arrays: list[Any], states: States
        ) -> tuple[jax.Array, Params, States]:
            def run(params: Params, values: dict[str, Any]) -> jax.Array:
                return surrogate(plan, OPS, [*jax.tree.leaves(params), key, *arrays], values)

            return value_grad_and_states(run, learners, params, states)

        def refused(primals: Any, tangents: Any) -> Any:
            refuse_second(plan)

        learn.defjvp(refused)
        return learn(key, params, arrays, states)

    def _move(self, structure: Structure, key: jax.Array, params: Params, arrays: list[Any]) -> dict[str, Any]:
        args, kwargs = structure.joined(arrays)

        def session(**options: Any) -> Session:
            return self.session(scope_of(key, plain=True), params, self._modules.last_of(arrays), **options)

        return moved(self.formula, session, args, kwargs) if self._modules.first else {}

    def planned(self, key: jax.Array, params: Params, arrays: Sequence[Any], structure: Structure) -> Plan:
        """The plan for such arguments, staged once for keys of a kind and modes of JAX."""
        made, kind = structure.made(params, arrays), (jax.typeof(key), _modes.trace().jaxpr)
        if kind not in made:
            with uncollected():
                made[kind] = self._plan(key, params, arrays, structure, SiteDistribution)
        return made[kind]

    def _plan(
        self,
        key: jax.Array,
        params: Params,
        arrays: Sequence[Any],
        structure: Structure,
        distribution: Callable[..., SiteDistribution],
    ) -> Plan:
        """Stage the objective on these arrays, with its sites seen by strategies as this kind of distribution."""
        ran: list[tuple[dict[str, Any], bool]] = []  # without the session, whose tracers must not outlive it

        def run(params: Params, key: jax.Array, *arrays: Any) -> jax.Array:
            args, kwargs = structure.joined(arrays)

            def start(**options: Any) -> Session:
                return self.session(scope_of(key, distribution), params, self._modules.last_of(arrays), **options)

            value, session = evaluate(self.formula, start, args, kwargs)
            ran.append((session.constraints, session.plate_rows.begun_anew))
            refuse_unknown(self.formula.strategies, session.drawn)
            return value

        count = len(jax.tree.leaves(params))

        def trace() -> ClosedJaxpr:
            with traced_afresh(object()):
                return jax.make_jaxpr(run)(params, key, *arrays)

        closed = None
        with suppress(InnerSiteError):
            closed = trace()
        if closed is None:
            self._lifted = True
            closed = trace()
        staged = read(lifted(closed, lambda inputs: body_key(inputs[count])), count)
        self.reading.worlds.traced = True
        refuse_constant(staged, params)
        warn_of_bias(misused_estimates(staged), source.here())
        constraints, begun_anew = ran[-1]
        supports = supports_of(staged.inputs, params, constraints)
        staged = replace(staged.live() if begun_anew else staged, supports=supports)
        return plan(staged, OPS)


_modes = jax.jit(lambda: None)
"""JAX traces it once in each state of its own configuration."""
