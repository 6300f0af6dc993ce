"""What is known of an objective that is replayed: the sites of a few runs, and where draws are read or jump."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ppvi.engine.protocol import Params
from ppvi.engine.sessions import Recorder, Session, computed
from ppvi.engine.sites import Drawn, Place, Site
from ppvi.errors import PpviError
from ppvi.ir import Origin
from ppvi.proofs.explain import Explanation, SiteReport
from ppvi.proofs.findings import UNBIASED_INSTEAD, Finding, StaticReport, in_order
from ppvi.pyro._buffers import writing
from ppvi.pyro._compat import disable_current_modes
from ppvi.pyro._keys import STAGING, seeded
from ppvi.pyro._linearity import Linearity
from ppvi.pyro._programs import Effects
from ppvi.pyro._refused import refuse_unreplayable
from ppvi.pyro._replay import SCORE, Replay, Replayed, is_decided, session_of
from ppvi.pyro._stage import registering
from ppvi.strategies import Strategy

RUNS = 16


class Watched:
    """A run that simply draws, with every draw followed whose strategy a jump of the rest would bias."""

    def __init__(self, replay: Replay):
        self.replay = replay
        self.run = Replayed(replay, (), ())
        self.linearity = Linearity()
        self.followed: list[tuple[Place, int]] = []
        self.impossible: dict[int, Outside] = {}
        """By the draw that a density of -inf depends on."""

    def session(self) -> Session:
        recorder = Recorder(self.around, estimate=self.linearity.estimate)
        effects = Effects(None, Origin.OTHER, read_out=self.read_out)
        return session_of(self.replay, effects, True, draws=self.draw, log_probs=self.log_prob, recorder=recorder)

    @contextmanager
    def around(self) -> Iterator[None]:
        with self.replay.provenance, self.linearity:
            yield

    def draw(self, session: Session, at: Place) -> Drawn:
        refuse_unreplayable(at)
        with nullcontext() if is_decided(at) else self.replay.provenance.paused():
            value, between, route = self.run.drawn(session, at)
            value = value.clone()
        self.followed.append((at, self.replay.provenance.follow(value)))
        return Drawn(value, between, route)

    def log_prob(
        self, session: Session, site: Site, value: torch.Tensor, role: str, intermediates: Sequence[Any]
    ) -> torch.Tensor:
        self.read_out(session, session.scope.distribution(site.fn).bounds())
        found = computed(session, site, value, role, intermediates)
        with disable_current_modes():
            outside = bool((found == -math.inf).any())
        for number in self.replay.provenance.behind(found) if outside else ():
            name = session.scope.distribution(site.fn).name
            self.impossible.setdefault(number, Outside(f"{name}.log_prob", session.here()))
        return found

    def read_out(self, session: Session, tensors: Any) -> None:
        self.replay.provenance.read(tensors)


class Outside(NamedTuple):
    """A density that was zero."""

    density: str
    where: str


@dataclass(frozen=True)
class Seen:
    """A site that was seen."""

    at: Place
    read: str | None
    """Where a number that depends on its draw was read or jumped, in any run."""
    outside: Outside | None
    """A density that was zero at what depends on its draw, in any run."""

    @property
    def strategy(self) -> Strategy:
        """That of the site, or what it gets for being read."""
        undecided = self.at.strategies[-1].route == "path" and not is_decided(self.at)
        return SCORE if undecided and self.read else self.at.strategies[-1]

    @property
    def jumps(self) -> bool:
        """Whether its strategy would not see a jump where it is read."""
        needs_continuity = self.strategy.needs_continuity or self.strategy.relaxes
        return self.read is not None and self.at.named and needs_continuity


def _watched(replay: Replay) -> Watched:
    run = Watched(replay)
    replay.evaluate(run.session())
    return run


@torch.no_grad()
def nonlinear(replay: Replay) -> list[Finding]:
    """What one run does to minibatches that makes the objective biased."""
    with seeded(STAGING):
        return list(replay.agreed(lambda: _watched(replay)).linearity.findings())


def _slopes(value: torch.Tensor, leaves: Sequence[torch.Tensor]) -> Sequence[torch.Tensor | None]:
    return torch.autograd.grad(value, leaves, allow_unused=True) if value.requires_grad else [None] * len(leaves)


def motionless(replayed: Callable[[Params], Replay], params: Params) -> tuple[list[str], dict[str, str]]:
    """The parameters that have no gradient in any of a few runs, and where numbers that depend on them and on no draw are read
    or jump. Where the user has named a strategy, which may not see a read of its draw, only those that are read so.
    """
    still, reads, named = list(params), dict[str, str](), False
    for seed in range(RUNS):
        leaves = {name: x.detach().clone().requires_grad_() for name, x in params.items()}
        replay = replayed(leaves)
        numbers = {name: replay.provenance.follow(x, is_draw=False) for name, x in leaves.items()}
        try:
            with seeded(seed), torch.no_grad():
                run = replay.agreed(lambda: _watched(replay))  # noqa: B023
            with seeded(seed), torch.enable_grad(), registering(), writing():
                slopes = _slopes(replayed(leaves).surrogate(), [leaves[name] for name in still])
        except PpviError:  # which the gradient raises itself
            return [], {}
        named = named or any(at.named for at, _ in run.followed)
        still = [name for name, slope in zip(still, slopes, strict=True) if slope is None]
        found = replay.provenance.reads
        reads |= {name: found[n] for name, n in numbers.items() if n in found and name not in reads}
        if len(still) < len(params) and reads.keys().isdisjoint(still):
            break
    reads = {name: where for name, where in reads.items() if name in still}
    return list(reads) if named else still, reads


@torch.no_grad()
def watch(replay: Replay) -> list[Seen]:
    """The sites of a few runs by name, in the order in which they were first seen."""
    places: dict[str, Place] = {}
    reads: dict[str, str] = {}
    outside: dict[str, Outside] = {}
    for seed in range(RUNS):
        with seeded(seed):
            run = replay.agreed(lambda: _watched(replay))
        for at, number in run.followed:
            places.setdefault(at.name, at)
            if number in replay.provenance.reads:
                reads.setdefault(at.name, replay.provenance.reads[number])
            if number in run.impossible:
                outside.setdefault(at.name, run.impossible[number])
    return [Seen(at, reads.get(name), outside.get(name)) for name, at in places.items()]


@dataclass(frozen=True)
class Watching:
    """An objective that is replayed, as far as it is known: nothing is proved."""

    replay: Replay
    why: str
    """It has no graph."""

    plan = None

    def prove(self) -> StaticReport:
        return _static(self.replay, watch(self.replay), self.why)

    def explain(self) -> Explanation:
        seen = watch(self.replay)
        engine = (
            f"replay, since {self.why}. The objective is one term, which depends on every site that is drawn; a strategy of "
            f"several runs runs the program again for each of them. These are the sites of {RUNS} runs"
        )
        return Explanation(tuple(map(_report, seen)), (), _static(self.replay, seen, self.why), engine)


def _static(replay: Replay, seen: Sequence[Seen], why: str) -> StaticReport:
    remedy = (
        "Use torch.where, or keep the number a tensor, for a proof, and name LeaveOneOut() where that says that the objective "
        "jumps; `check` measures the bias without one."
    )
    nothing = Finding(
        "suspect",
        "no graph",
        "the program",
        "replayed",
        why.rpartition(" at ")[2],
        f"{why}: nothing is proved.",
        remedy,
    )
    of_sites = (finding for site in seen for finding in _findings(site))
    return StaticReport(in_order([nothing, *nonlinear(replay), *of_sites]))


def _findings(seen: Seen) -> Iterator[Finding]:
    at, strategy = seen.at, seen.strategy
    if not strategy.unbiased:
        why = "the strategy is biased by design."
        yield Finding("biased", "strategy", f"site {at.name!r}", str(strategy), at.where, why, UNBIASED_INSTEAD)
    if strategy.route == "path" and seen.outside is not None:
        why = f"the log density is -inf at some of its draws, where the objective may jump, which {strategy} does not see."
        remedy = (
            "Give the site a distribution on the same support in the model and the guide, or name LeaveOneOut() for it."
        )
        yield Finding("suspect", "support", f"site {at.name!r}", *seen.outside, why, remedy)
    if seen.jumps and seen.read is not None:
        why = f"the objective may jump there, and {strategy} is biased where it does."
        remedy = "Name Reinforce(), LeaveOneOut() or MeasureValued() for the site, or nothing."
        yield Finding(
            "suspect", "jump", f"site {at.name!r}", "a number that is read or rounded", seen.read, why, remedy
        )


def _report(seen: Seen) -> SiteReport:
    at, strategy = seen.at, seen.strategy
    size = len(at.site.enumerate_support()) if at.site.has_enumerate_support else 1
    lanes = math.prod(at.site.lanes)
    return SiteReport(
        name=at.name,
        distribution=at.site.name,
        where=at.where,
        lanes=at.site.lanes,
        strategy=str(strategy) if strategy.unbiased else f"{strategy}: biased by design",
        reason=_reason(seen),
        credit="by the path" if strategy.route == "path" else "the whole objective",
        runs=strategy.runs(size, lanes),
        evaluations=strategy.evaluations(size, lanes),
    )


def _reason(seen: Seen) -> str:
    if seen.jumps:
        return f"named by the user, and biased if the objective jumps where it is read or rounded, at {seen.read}"
    if seen.at.named:
        return "named by the user"
    if seen.at.strategies[-1].route != "path":
        return "the default of a program that is replayed"
    if seen.strategy.route != "path":
        return f"it is read or rounded at {seen.read}, where the objective may jump"
    return f"reparameterised sampler, and no number that depends on it was read or rounded; {SCORE} where one is"
