"""Objectives that cannot be staged, since they read numbers out of tensors: run, and run again.

A program that branches in Python on what it draws has no graph. It is run as it is instead: at a site whose strategy needs
one run of the rest, the run goes on and is weighed when it ends; where a strategy needs several, the run is left, with all
plates and handlers that it is in, and the program is run again from its beginning for each of them, with the values that its
sites have had so far. Of the objective nothing is known but its value: it is one term, in which all lanes of every site are
coupled.

A site for which the user names nothing goes by the path of its draw if it can, for as long as nothing that depends on the
draw is read or jumps (`ppvi.pyro._provenance`, or `ppvi.pyro._borders` once the program is known): Python reads no number, and
the program uses no comparison, no rounding and no index. Otherwise the objective may jump there: the draw is then a constant
for every gradient, and is weighed by its score.
Which of both is known when the run ends, and not before (`Undecided`). Neither changes the draws; whether a draw is read or
jumps is a function of draws that have been read before, which are constants; so the estimate is unbiased either way.

That holds for what the program itself computes. A library's density is taken to be continuous where it is not zero, and draws
are taken to stay where it is not (`ppvi.pyro._watched` looks whether they do); of supports that move with a draw it is
known that they jump. A `torch.autograd.Function` has the derivative that it states.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar, cast

import torch

from ppvi.compiler.estimates import Estimates, Later, Stack, Tail
from ppvi.engine import sites as engine
from ppvi.engine.distributions import NoDensityError
from ppvi.engine.minibatches import Minibatches, Stated, agreed
from ppvi.engine.sessions import Recorder, Session, computed
from ppvi.engine.sites import Drawn, Place, route_of, undensed
from ppvi.engine.unstaged import ONE_BY_ONE
from ppvi.errors import StrategyError
from ppvi.ir import Origin
from ppvi.pyro._borders import AnewError, Borders, Known
from ppvi.pyro._buffers import Written, written
from ppvi.pyro._distributions import SiteDistribution
from ppvi.pyro._ops import OPS
from ppvi.pyro._programs import Effects, PyroPrograms, drawn, scope_of
from ppvi.pyro._provenance import Provenance
from ppvi.pyro._refused import refuse_unreplayable
from ppvi.pyro._rest import Rest
from ppvi.pyro._trees import tree_map
from ppvi.strategies import Draw, LeaveOneOut, Reinforce, Site, Strategy
from ppvi.strategies.alternatives import LIMIT

T = TypeVar("T")

Evaluate = Callable[[Session], torch.Tensor]
"""Runs the objective program once in a session."""


DEPTH = 64
"""The most strategies of several runs that may nest; each takes a part of the stack."""


class Replay:
    """One evaluation of an objective."""

    def __init__(
        self,
        evaluate: Evaluate,
        params: Mapping[str, Any],
        chosen: Mapping[str, Strategy],
        modules: MutableMapping[Any, str],
        by_paths: bool = False,
        known: Known | None = None,
    ):
        self.evaluate = evaluate
        self.params = params
        self.chosen = chosen
        self.modules = modules
        self.by_paths = by_paths
        """Whether the objective's formula holds for draws that carry their own gradient only."""
        self.provenance = Provenance()
        self.known = known or Known()
        self.borders = Borders(self.known, self.provenance)
        self.runs = self.depth = 0
        self.plates: Mapping[str, Stated] = {}
        """What is known of plates before a run."""

    @functools.cached_property
    def constants(self) -> Mapping[str, Any]:
        """The parameters, for runs in value only."""
        return {name: x.detach() for name, x in self.params.items()}

    def surrogate(self) -> torch.Tensor:
        """The scalar whose value is the estimate and whose gradient is the gradient estimate."""
        state = torch.get_rng_state()
        while True:
            watched = self.known.watches_all
            self.provenance.learns, self.runs = self.known.learns, 0
            try:
                values, control = self.agreed(lambda: self.estimate([], []))
            except (AnewError, Exception) as error:
                # Where not, it is what the program, or NumPy, has made of an `AnewError`.
                if self.known.watches_all == watched:
                    if isinstance(error, RecursionError):
                        raise self.nested() from error
                    raise
            else:
                if self.known.watches_all == watched:
                    self.borders.ended()
                    return values[0] + control
            torch.set_rng_state(state)

    def agreed(self, function: Callable[[], T]) -> T:
        """What a function of whole runs returns, with every plate of them at its minibatch."""

        def attempt(known: Mapping[str, Stated]) -> T:
            self.plates, self.depth = known, 0
            return function()

        return agreed(attempt)

    def estimate(self, before: Sequence[torch.Tensor], states: Sequence[torch.Tensor]) -> Estimates:
        """The objective, given the values of its first sites, and the generator's states around them."""
        run = self.begun(before, states)
        self.depth += 1
        if self.depth > DEPTH:
            raise self.nested()
        values, control = self._ended(run)()
        self.depth -= 1
        state = torch.get_rng_state()
        for tail in reversed(run.pending):
            done = tail.finish(Stack(tail.k, values, 0.0))
            values, control = done.values, control + done.added
        torch.set_rng_state(state)
        return values, control

    def _ended(self, run: Replayed) -> Callable[[], Estimates]:
        """Run the program once; the estimate, or what is still to be run for it now that all contexts have been left."""
        try:
            value = self.evaluate(run.session(plain=False))
        except Finished as finished:
            return finished.rest.estimates
        for tail in run.pending:
            cast(Rest, tail.k).ran.append((tail.value, value.detach()))
        return lambda: ({0: value}, 0.0)

    def draw(self, before: Sequence[torch.Tensor], states: Sequence[torch.Tensor]) -> torch.Tensor:
        """The objective's value, given the values of its first sites, with the others simply drawn."""
        run = self.begun([x.detach() for x in before], states)
        return self.evaluate(run.session(plain=True)).detach()

    def begun(self, before: Sequence[torch.Tensor], states: Sequence[torch.Tensor]) -> Replayed:
        """One more run."""
        self.runs += 1
        if self.runs > LIMIT:
            raise self.nested()
        return Replayed(self, before, states)

    def nested(self) -> StrategyError:
        return StrategyError(
            f"one gradient ran the program {self.runs} times and was not done: strategies of several runs, such as "
            f"Enumerate(), nest at sites that follow each other. Reinforce() needs one run, whatever follows."
        )


class Finished(BaseException):
    """A strategy runs the rest of the program itself, and the run that reached it need not go on.

    No `Exception`, so that it is none of those that a program catches.
    """

    def __init__(self, rest: Later):
        super().__init__()
        self.rest = rest


class Replayed:
    """A run of an objective, whose first sites have their values already.

    What the program draws by itself between them is as in the run before: the generator is in the same state there.
    """

    def __init__(self, replay: Replay, before: Sequence[torch.Tensor], states: Sequence[torch.Tensor]):
        self.replay = replay
        self.values = list(before)
        if states:
            torch.set_rng_state(states[0])
        self.states = list(states) or [torch.get_rng_state()]
        """Of the random numbers, at the beginning and after each draw."""
        self.pending: list[Tail] = []
        self._next = 0

    def session(self, plain: bool) -> Session:
        """The session of the run, in which sites are simply drawn, or are credited."""
        replay = self.replay
        around = (lambda: replay.provenance) if replay.known.watches_all and not plain else nullcontext
        crossed = None if plain else replay.borders.crossed()
        effects = Effects(None, Origin.OTHER, self.random, self.read_out, self.write, self.factor, crossed)
        return session_of(
            self.replay, effects, plain, draws=self.draw, log_probs=self.log_prob, recorder=Recorder(around)
        )

    def draw(self, session: Session, at: Place) -> Drawn:
        refuse_unreplayable(at)
        if (known := self._known()) is not None:
            return Drawn(known, (), route_of(at.strategies[-1], at.site))
        drawn = self.drawn(session, at)
        self._keep(drawn.value)
        return drawn

    def drawn(self, session: Session, at: Place) -> Drawn:
        """A site that is not among those that have their values already."""
        strategy, provenance = at.strategies[-1], self.replay.provenance
        if strategy.route != "path":
            return Drawn(self._credited(session, at, strategy), (), route_of(strategy, at.site))
        if session.scope.plain or is_decided(at):
            value = strategy.draw(at.site, session.scope.keys).value
            return Drawn(value, at.site.intermediates, "path")
        with provenance.paused():
            value = strategy.draw(at.site, session.scope.keys).value
        if not value.requires_grad:  # there is no gradient that could be missed
            return Drawn(value, at.site.intermediates, "path")
        undecided = Undecided(self.replay, self._rest(at, None), at, value)
        self.pending.append(undecided.tail())
        return Drawn(undecided.value, undecided.through(at.site.intermediates), "path")

    def _credited(self, session: Session, at: Place, strategy: Strategy) -> torch.Tensor:
        """A draw that is weighed with the rest, or whose strategy runs the rest itself."""
        with self.replay.provenance.paused():
            fields = strategy.draw(at.site, session.scope.keys)
            draw = Draw(*(None if x is None else torch.as_tensor(x) for x in fields))
        if session.scope.plain:
            return draw.value
        outcome: Any = strategy.estimate(Site(at.name, at.site.lanes, draw, OPS, None), self._rest(at, draw.values))
        if not isinstance(outcome, Tail):
            raise Finished(outcome)
        self.pending.append(outcome)
        return outcome.value

    def _rest(self, at: Place, alternatives: torch.Tensor | None) -> Rest:
        states = (*self.states, torch.get_rng_state())
        return Rest(self.replay, at.name, at.site.lanes, alternatives, tuple(self.values), states)

    def random(self, sampler: Callable[[torch.Tensor], torch.Tensor], key: torch.Tensor) -> torch.Tensor:
        if (known := self._known()) is not None:
            return known
        self._keep(drawn(sampler, key))
        return self.values[-1]

    def factor(self, session: Session, name: str, fn: Any) -> None:
        """The score of a draw that is no site weighs the whole run, as a site's does that everything depends on."""
        self.draw(session, Place(name, session.here(), SiteDistribution(fn), (Reinforce(),), named=True))

    def log_prob(
        self, session: Session, site: engine.Site, value: Any, role: str, intermediates: Sequence[Any]
    ) -> torch.Tensor:
        if self.replay.known.follows and not session.scope.plain:
            self.read_out(session, SiteDistribution(site.fn).bounds())
        return computed(session, site, value, role, intermediates, ONE_RUN)

    def read_out(self, session: Session, tensors: Any) -> None:
        if not session.scope.plain:
            self.replay.borders.read(tensors)

    def write(self, session: Session, buffers: Written) -> None:
        for buffer, value in () if session.scope.plain else buffers:
            written(buffer, value, 0)

    def _known(self) -> torch.Tensor | None:
        """What the next draw was in the run before."""
        position, self._next = self._next, self._next + 1
        if position >= len(self.values):
            return None
        torch.set_rng_state(self.states[position + 1])
        return self.values[position]

    def _keep(self, value: torch.Tensor) -> None:
        self.values.append(value)
        self.states.append(torch.get_rng_state())


ONE_RUN = (
    "`elbo` or `iwelbo` with strategies of one run, such as Reparam() and Reinforce(), at sites that are drawn later"
)
"""What asks for the density of a draw only where it has just been drawn, in a program that is replayed."""


def session_of(replay: Replay, effects: Effects, plain: bool, **options: Any) -> Session:
    """A session for one more run, with these effects."""
    programs, scope = PyroPrograms(replay.modules, effects), scope_of(plain=plain)
    params = replay.constants if plain else replay.params
    options |= {"repeats": ONE_BY_ONE, "plate_rows": Minibatches(replay.plates)}
    return Session(programs, params, replay.chosen, scope, **options)


def is_decided(at: Place) -> bool:
    """Whether reads make no difference: to what the user has named, and to what is no draw and has no score."""
    fn = at.site.peeled
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return at.named or type(fn).__name__ == "Delta"


SCORE = LeaveOneOut()
"""The default for draws that are read."""


class Undecided:
    """A draw that carries its own gradient unless what depends on it is read or jumps."""

    def __init__(self, replay: Replay, k: Rest, at: Place, drawn: torch.Tensor):
        self.replay, self.k, self.at = replay, k, at
        self.value = self._held(drawn)
        self.number = replay.borders.follow(self.value)

    @property
    def read_at(self) -> str | None:
        """Where it is read or jumps, if it is."""
        return None if self.number is None else self.replay.provenance.reads.get(self.number)

    def through(self, intermediates: Sequence[Any]) -> Sequence[Any]:
        """What its sampler computed on the way, which is held constant where the draw is."""
        return [(transform, tree_map(self._held, x)) for transform, x in intermediates]

    def _held(self, x: torch.Tensor) -> torch.Tensor:
        with self.replay.provenance.paused():
            return Held.apply(self, x)

    def tail(self) -> Tail:
        return Tail(self.k, lambda: self.k.run(self.value), (self.weighed,), value=self.value)

    def weighed(self, terms: Stack) -> Stack:
        """The rest, by the path or by the score of the draw."""
        if self.read_at is None:
            return terms
        if self.replay.by_paths:
            raise StrategyError(
                f"site {self.at.name!r} at {self.at.where}: Python reads, or the program compares or rounds, a number that "
                f"depends on it at {self.read_at}. The objective holds for draws that carry "
                f"their own gradient, and it may jump in this one. Use an objective such as `iwelbo`, for any draws."
            )
        # A seed of its own: the numbers that follow in the stream are those of the rest, in every run of it.
        torch.default_generator.manual_seed(zlib.crc32(self.k.states[-1].numpy().tobytes()))
        draws = torch.cat([self.value.detach()[None], self.at.site.samples(torch.zeros(()), SCORE.n - 1)])
        try:
            draw = SCORE.around(self.at.site, draws)
        except NoDensityError as error:
            read = f"it is read, compared or rounded at {self.read_at}, so that"
            raise undensed(self.at, read, error) from error
        outcome: Any = SCORE.estimate(Site(self.at.name, self.at.site.lanes, draw, OPS, None), self.k)
        return outcome.finish(terms)


class Held(torch.autograd.Function):
    """The identity, through which no gradient goes to a draw that has been read."""

    @staticmethod
    def forward(ctx: Any, undecided: Undecided, drawn: torch.Tensor) -> torch.Tensor:
        ctx.undecided = undecided
        return drawn.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, gradient if ctx.undecided.read_at is None else None
