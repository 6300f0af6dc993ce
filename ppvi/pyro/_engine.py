"""The engine of Pyro: objectives are staged with `make_fx`, or replayed, and differentiated by autograd."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch

from ppvi.compiler.choose import refuse_unknown
from ppvi.compiler.plan import Plan, plan
from ppvi.compiler.surrogate import surrogate
from ppvi.engine.ambient import refuse_ambient
from ppvi.engine.arguments import Sight
from ppvi.engine.evaluations import evaluate, run_in
from ppvi.engine.formula import Formula
from ppvi.engine.gaps import refuse_gaps
from ppvi.engine.outcomes import Outcomes, gone_through
from ppvi.engine.pieces import Wanted
from ppvi.engine.protocol import Args, Kwargs, Params, Pick, Seen, Start as AnyStart
from ppvi.engine.proving import Staged, refuse_constant, warn_of_bias, warn_of_motionless
from ppvi.engine.sessions import Session
from ppvi.engine.stagings import Stagings
from ppvi.engine.summed import Completed
from ppvi.engine.world import World
from ppvi.errors import EngineError
from ppvi.program import marking_of
from ppvi.proofs.examine import misused_estimates
from ppvi.pyro import _source as source, _watched as watched
from ppvi.pyro._arguments import checked, is_frozen
from ppvi.pyro._beginnings import Start, first_run
from ppvi.pyro._borders import Known
from ppvi.pyro._buffers import Modules, changed, places_in, put, unchanged, writing
from ppvi.pyro._changing import Changing, WholeNumbers
from ppvi.pyro._checking import Gradients
from ppvi.pyro._compat import HANDLERS, level
from ppvi.pyro._distributions import SiteDistribution
from ppvi.pyro._gradient import Again, Once, Staging, Surrogate
from ppvi.pyro._keys import STAGING, Key, key_text, seeded, seeds
from ppvi.pyro._learning import NOTHING_LEARNS, States, first_states, value_and_grads
from ppvi.pyro._lending import Arguments
from ppvi.pyro._located import Numbers
from ppvi.pyro._ops import OPS
from ppvi.pyro._outcomes import Tape, Taped, every_outcome
from ppvi.pyro._plain import completed, culprits_of, many
from ppvi.pyro._programs import STAGED, PyroPrograms, known, scope_of, transformation as transformation
from ppvi.pyro._refused import refuse_hooks
from ppvi.pyro._regions import support_of
from ppvi.pyro._replay import Replay
from ppvi.pyro._stage import DynamicError, registering, stage
from ppvi.pyro._trees import vmap
from ppvi.pyro._world import RULES, as_staged, drawing, modes

if TYPE_CHECKING:  # distributed tensors take a second to import
    from ppvi.pyro._sharding import Layout


class Estimator:
    """See `ppvi.engine.protocol`."""

    known, key_text = staticmethod(known), staticmethod(key_text)
    learned = States

    def __init__(self, formula: Formula, compile: bool = False):
        self.formula = formula
        self.compile = compile
        self.layout: Layout | None = None
        self._sight = Sight(RULES, {"objective": formula.program, "model": formula.model, "guide": formula.guide})
        self._stagings: Stagings[Staging] = Stagings(self._sight.look, source.here)
        self._changing, self._whole_numbers = Changing(), WholeNumbers()
        self._world: World | None = None
        self.has_run = False
        """Whether autoguides and lazy modules have made themselves."""
        self.modules = Modules()

    def of(self, formula: Formula) -> Self:
        return type(self)(formula, self.compile)

    def on_mesh(self, layout: Layout) -> Estimator:
        """The same with gradients that are computed on a mesh."""
        other = copy.copy(self)
        other.layout, other._stagings = layout, Stagings(self._sight.look, source.here)
        return other

    def initialise(self, key: Key, /, *args: Any, **kwargs: Any) -> Start:
        with seeded(key):
            if not self.has_run:  # with random numbers that later calls do not need
                with torch.random.fork_rng():
                    self.first_run(None, {}, args, kwargs)
            start = self.first_run(None, {}, args, kwargs)
        refuse_gaps(self, key, start.params, args, kwargs)
        return start

    def culprits(self, key: Key, params: Params, args: Args, kwargs: Kwargs) -> list[str]:
        with seeded(key):
            return culprits_of(self.formula, self.modules, torch.get_rng_state(), params, self.arguments(args, kwargs))

    def begun(self, key: Key, params: Params, args: Args, kwargs: Kwargs) -> Start:
        return self.first_run(key, params, args, kwargs)

    def first_run(self, key: Key, given: Params, args: Any, kwargs: Any) -> Start:
        """A run on tensors, which finds the parameters that are declared with a value; the others are given."""
        arguments = self.arguments(args, kwargs)
        self._enter(self._sight.look(arguments.constants))
        start = first_run(self.formula, self.modules, key, given, arguments)
        self.has_run = True
        return start

    def estimate(self, key: Key, params: Params, /, *args: Any, **kwargs: Any) -> torch.Tensor:
        with torch.no_grad():
            return self.surrogate(key, params, *args, **kwargs)

    def value_and_grad(self, key: Key, params: Params, /, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, Params]:
        if level():
            raise EngineError(
                "value_and_grad cannot run under torch.vmap or torch.func: call it once for each, or vectorise within the "
                "objective by ppvi.replicate(n, thunk) and ppvi.each."
            )
        staging, arguments = self._prepared(params, args, kwargs)
        tensors = [*params.values(), *arguments.tensors]
        gradient = staging.gradient(len(params), tensors)
        with seeded(key):
            if gradient is None:
                leaves = [x.detach().requires_grad_() for x in params.values()]
                named = dict(zip(params, leaves, strict=True))
                with torch.enable_grad():
                    value, grads = value_and_grads(
                        lambda _: self._surrogate(staging, None, named, arguments), leaves, NOTHING_LEARNS
                    )
            else:
                value, *grads = gradient(*tensors)
        return value, dict(zip(params, grads, strict=True))

    def surrogate(self, key: Key, params: Params, /, *args: Any, **kwargs: Any) -> torch.Tensor:
        staging, arguments = self._prepared(params, args, kwargs)
        if torch.is_grad_enabled() and not any(x.requires_grad for x in arguments.tensors):
            tensors = [*params.values(), *arguments.tensors]
            gradient = staging.gradient(len(params), tensors)
            if gradient is not None and staging.plan is not None:
                if isinstance(key, torch.Generator):
                    [key] = seeds(key, 1)
                again = Again(staging.plan, key, torch.get_rng_state() if key is None else None)
                with seeded(key):
                    return cast(torch.Tensor, Surrogate.apply(gradient, again, *tensors))
        why = staging.why or "its arguments have a gradient of their own"
        with seeded(key):
            return self._surrogate(staging, None, {n: Once.apply(why, x) for n, x in params.items()}, arguments)

    def surrogate_in(
        self, values: dict[str, Any] | None, key: Key, params: Params, args: Args, kwargs: Kwargs
    ) -> torch.Tensor:
        """The surrogate with the strategies in these states."""
        staging, arguments = self._prepared(params, args, kwargs)
        with seeded(key):
            return self._surrogate(staging, values, params, arguments)

    def _surrogate(
        self, staging: Staging, values: dict[str, Any] | None, params: Params, arguments: Arguments
    ) -> torch.Tensor:
        if self.layout is not None:
            raise EngineError(
                f"the objective has no gradient that a mesh could share, since {staging.why}: fit it without."
            )
        with registering(), writing() as writes:
            if staging.plan is None:
                value = self._replay(params, arguments, staging.known).surrogate()
            else:
                inputs = [*params.values(), torch.zeros(()), *arguments.tensors]
                with as_staged():
                    value = surrogate(staging.plan, OPS, inputs, values)
        if writes and torch.is_grad_enabled():  # and it is no estimate
            put(changed(writes.values()))
        return value

    def lanes(
        self,
        key: Key,
        params: Params,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = MappingProxyType({}),
        values: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """The surrogate at a stack of parameters, with draws of its own at each, and with the strategies in these states."""
        staging, arguments = self._prepared({name: value[0] for name, value in params.items()}, args, kwargs)
        assert staging.plan is not None, "only what can be staged is checked"
        plan, arrays = staging.plan, arguments.tensors

        def one(lane: torch.Tensor, params: Params) -> torch.Tensor:
            return surrogate(plan, OPS, [*params.values(), lane, *arrays], values)

        with seeded(key), registering():
            return vmap(one)(torch.zeros(len(next(iter(params.values())))), params)

    def _replay(self, params: Params, arguments: Arguments, known: Known | None = None) -> Replay:
        copies = arguments.copies()
        if not torch.is_grad_enabled():
            params = {name: x.detach() for name, x in params.items()}

        def run(session: Session) -> torch.Tensor:
            # The program may have derivatives of its own, and knows nothing of ours.
            with torch.enable_grad(), arguments.lent(copies) as (args, kwargs):
                return run_in(self.formula, session, args, kwargs)

        by_paths = marking_of(self.formula.program).by_paths
        return Replay(run, params, self.formula.strategies, self.modules, by_paths, known)

    def arguments(self, args: Args, kwargs: Kwargs) -> Arguments:
        refuse_ambient(HANDLERS)
        return Arguments((self.formula.model, self.formula.guide), self._sight.look, args, kwargs)

    def states(self, params: Params, /, *args: Any, **kwargs: Any) -> States:
        return first_states(self._prepared(params, args, kwargs)[0].plan)

    def update(
        self, key: Key, params: Params, states: States, /, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, Params, States]:
        leaves = {name: value.detach().requires_grad_() for name, value in checked(params).items()}

        def run(values: dict[str, Any]) -> torch.Tensor:
            return self.surrogate_in(values, key, leaves, args, kwargs)

        value, grads = value_and_grads(run, list(leaves.values()), states)
        return value, dict(zip(leaves, grads, strict=True)), states

    def many(
        self,
        key: Key,
        params: Any,
        args: Args,
        kwargs: Kwargs,
        n: int,
        of: Any,
        given: Any = None,
        particles: int = 1,
        pick: Pick | None = None,
    ) -> Any:
        several = params if isinstance(params, list) else [params]
        asked = self.arguments(args, kwargs), n, of, given, particles, pick
        found = [many(self.formula, self.modules, key, checked(x), *asked) for x in several]
        return found if several is params else found[0]

    def completed(
        self, key: Key, params: Params, args: Args, kwargs: Kwargs, n: int, choices: Mapping[str, Any], wanted: Wanted
    ) -> Completed:
        return completed(
            self.formula, self.modules, key, checked(params), self.arguments(args, kwargs), choices, wanted
        )

    def in_format(self, x: Any, dtype: str) -> torch.Tensor:
        return torch.as_tensor(x).to(getattr(torch, dtype))

    def another(self, key: Key) -> Key:
        return key + 1 if isinstance(key, int) else key

    def staged(self, params: Params, /, *args: Any, **kwargs: Any) -> Plan:
        staging, _ = self._prepared(params, args, kwargs)
        if staging.plan is None:
            raise EngineError(
                f"the objective cannot be staged, since {staging.why}: it is replayed, and nothing is known of it but its "
                f"values. Use torch.where, or keep the number a tensor, and name LeaveOneOut() for a site in which it jumps."
            )
        return staging.plan

    def seen(self, params: Params, /, *args: Any, **kwargs: Any) -> Seen:
        staging, arguments = self._prepared(params, args, kwargs, any_numbers=True)
        if staging.plan is None:
            return watched.Watching(self._replay(params, arguments), staging.why)
        inputs, own = staging.plan.program.inputs, [x.detach() for x in params.values()]
        values = zip((*inputs[: len(own)], *inputs[len(own) + 1 :]), (*own, *arguments.tensors), strict=True)
        return Staged(staging.plan, dict(zip(inputs, params, strict=False)), dict(values), drawing, _like)

    def _prepared(
        self, params: Params, args: Args, kwargs: Kwargs, any_numbers: bool = False
    ) -> tuple[Staging, Arguments]:
        """What was made for arguments of these shapes in the world as it is, and the arguments."""
        arguments, params = self.arguments(args, kwargs), checked(params)
        changed = self._changing.as_tensors(arguments, params.values())
        if changed is not arguments:
            try:
                return self._by_numbers(params, changed, any_numbers, must_stage=True)
            except Exception:  # whatever comes of a tensor where the program expects a number
                self._changing.hold(arguments)
        return self._by_numbers(params, arguments, any_numbers)

    def _by_numbers(
        self, params: Params, arguments: Arguments, any_numbers: bool, must_stage: bool = False
    ) -> tuple[Staging, Arguments]:
        while (known := self._whole_numbers.as_numbers(arguments)) is not None:
            try:
                return self._made(params, known, any_numbers, must_stage=True)
            except DynamicError:
                self._whole_numbers.try_another(arguments)
        return self._made(params, arguments, any_numbers, must_stage)

    def _made(
        self, params: Params, arguments: Arguments, any_numbers: bool, must_stage: bool = False
    ) -> tuple[Staging, Arguments]:
        args, kwargs = arguments.given
        shapes = [(name, x.shape, x.dtype, is_frozen(x)) for name, x in params.items()]

        def make(world: World) -> Staging:
            self._enter(world)
            numbers: Numbers = []
            refuse_hooks(world.modules)
            try:
                plan, why = self._plan(params, arguments, SiteDistribution, numbers), ""
            except DynamicError as error:
                if must_stage:
                    raise
                plan, why = None, str(error)
                warn_of_bias(watched.nonlinear(self._replay(params, arguments)), source.here())
                still = watched.motionless(lambda leaves: self._replay(leaves, arguments), params)
                warn_of_motionless(*still, params)
            if not any_numbers:
                refuse_gaps(self, 0, params, args, kwargs)
            return Staging(plan, self.compile, self.layout and self.layout.partitioned, why, numbers)

        with seeded(None):
            self._run_first(params, args, kwargs)
            world, staging = self._stagings.get((*shapes, arguments.kind, modes()), arguments.constants, make)
            self._enter(world)
        return staging, arguments

    def _enter(self, world: World) -> None:
        """The world is now this one, whose modules have these buffers."""
        if world is not self._world:
            self._world, self.modules.places = world, places_in(world.modules)

    def _run_first(self, params: Params, args: Any, kwargs: Any) -> None:
        """Autoguides and lazy modules make their parameters when they first run, which must not be part of a graph."""
        if not self.has_run:
            self.first_run(0, params, args, kwargs)

    def untouched(self) -> AbstractContextManager[None]:
        return unchanged(self.modules.places)

    def gradients(self, key: Key, params: Params, args: Args, kwargs: Kwargs, start: AnyStart) -> Gradients:
        return Gradients(self, key, params, args, kwargs, start, self._prepared(params, args, kwargs)[0].plan)

    def outcomes(self, params: Params, args: Args, kwargs: Kwargs, limit: int, seconds: float = math.inf) -> Outcomes:
        tape = Tape(limit, seconds)
        plan, arrays = self.laid_out(params, args, kwargs, functools.partial(Taped, tape))
        return gone_through(tape, every_outcome(tape, plan, params, arrays))

    def laid_out(
        self, params: Params, args: Args, kwargs: Kwargs, kind: Callable[..., SiteDistribution]
    ) -> tuple[Plan, list[torch.Tensor]]:
        """The plan with sites seen by strategies as this kind of distribution; and the tensors among the arguments."""
        self._run_first(params, args, kwargs)
        arguments = self.arguments(args, kwargs)
        arguments = self._whole_numbers.as_numbers(arguments) or arguments
        return self._plan(checked(params), arguments, kind), arguments.tensors

    def _plan(
        self,
        params: Params,
        arguments: Arguments,
        distribution: Callable[..., SiteDistribution],
        numbers: Numbers | None = None,
    ) -> Plan:
        names = list(params)
        ran: list[Session] = []

        def run(*tensors: torch.Tensor) -> torch.Tensor:
            named, key = dict(zip(names, tensors, strict=False)), tensors[len(names)]

            def start(**options: Any) -> Session:
                engine, scope = PyroPrograms(self.modules, STAGED), scope_of(key, distribution)
                return Session(engine, named, self.formula.strategies, scope, **options)

            with arguments.lent(tensors[len(names) + 1 :]) as (args, kwargs):
                value, session = evaluate(self.formula, start, args, kwargs)
            ran.append(session)
            refuse_unknown(self.formula.strategies, session.drawn)
            return value

        inputs, tensors = [value.detach() for value in params.values()], arguments.copies()
        with seeded(STAGING), arguments.lent(tensors):
            staged = stage(run, inputs, torch.zeros(()), *[x.detach() for x in tensors], numbers=numbers)
        refuse_constant(staged, params)
        warn_of_bias(misused_estimates(staged), source.here())
        constraints, named = ran[-1].constraints, dict(zip(staged.inputs, params, strict=False))
        supports = {var: support_of(constraints[name]) for var, name in named.items() if name in constraints}
        staged = replace(staged.live() if ran[-1].plate_rows.begun_anew else staged, supports=supports)
        return plan(staged, OPS)


def _like(x: np.ndarray, other: torch.Tensor | None = None) -> torch.Tensor:
    return torch.as_tensor(x) if other is None else torch.as_tensor(x, dtype=other.dtype, device=other.device)
