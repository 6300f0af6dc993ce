"""Objectives that cannot be staged, since they read numbers out of tensors: run, and run again.

A program that branches in Python on what it draws has no graph. It is run as it is instead: at a site whose strategy needs
one run of the rest, the run goes on and is weighed when it ends; where a strategy needs several, the program is run again from
its beginning for each of them, with the values that its sites have had so far. Of the objective nothing is known but its
value: it is one term, in which all lanes of every site are coupled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from ppvi.compiler.choose import moving_support
from ppvi.compiler.estimates import Estimates, Stack, Tail
from ppvi.compiler.explain import Explanation, SiteReport
from ppvi.engine.minibatches import Minibatches, Stated, agreed
from ppvi.engine.sessions import as_strategy, refuse_undrawable
from ppvi.errors import EngineError, StrategyError
from ppvi.ops import Array
from ppvi.pyro.buffers import written
from ppvi.pyro.distributions import SiteDistribution
from ppvi.pyro.ops import OPS
from ppvi.pyro.trees import stacked
from ppvi.pyro.unstaged import Loops
from ppvi.strategies import Draw, Site, Strategy, default_strategies
from ppvi.strategies.alternatives import LIMIT

T = TypeVar("T")

Evaluate = Callable[["Replayed"], torch.Tensor]
"""Runs the objective program once in a session."""


class Replay:
    """One evaluation of an objective."""

    def __init__(
        self, evaluate: Evaluate, params: Mapping[str, Any], chosen: Mapping[str, Strategy], modules: dict[Any, str]
    ):
        self.evaluate = evaluate
        self.params = params
        self.chosen = chosen
        self.modules = modules
        self.runs = 0
        self.plates: Mapping[str, Stated] = {}
        """What is known of plates before a run."""

    def surrogate(self) -> torch.Tensor:
        """The scalar whose value is the estimate and whose gradient is the gradient estimate."""
        try:
            values, control = self._agreed(lambda: self.estimate([]))
        except RecursionError as error:
            raise self._nested() from error
        return values[0] + control

    def _agreed(self, function: Callable[[], T]) -> T:
        """What a function of whole runs returns, with every plate of them at its minibatch."""

        def attempt(known: Mapping[str, Stated]) -> T:
            self.plates = known
            return function()

        return agreed(attempt)

    def estimate(self, before: Sequence[torch.Tensor]) -> Estimates:
        """The objective, given the values of its first sites."""
        session = self._session(before, plain=False)
        try:
            values, control = {0: self.evaluate(session)}, 0.0
        except Finished as finished:
            values, control = finished.terms.values, finished.terms.added
        for tail in reversed(session.pending):
            done = tail.finish(Stack(tail.k, values, 0.0))
            values, control = done.values, control + done.added
        return values, control

    @torch.no_grad()
    def draw(self, before: Sequence[torch.Tensor]) -> dict[int, torch.Tensor]:
        """The objective's value, given the values of its first sites, with the others simply drawn."""
        return {0: self.evaluate(self._session(before, plain=True))}

    def explain(self, why: str) -> Explanation:
        """Report on the sites of one run."""
        reports = self._agreed(self._reports)
        engine = (
            f"replay, since {why}. The objective is one term, which depends on every site that is drawn; a strategy of several "
            f"runs runs the program again for each of them. These are the sites of one run"
        )
        return Explanation(tuple(reports), (), None, engine)

    @torch.no_grad()
    def _reports(self) -> list[SiteReport]:
        session = self._session([], plain=True)
        session.reports = reports = []
        self.evaluate(session)
        return reports

    def _session(self, before: Sequence[torch.Tensor], plain: bool) -> Replayed:
        self.runs += 1
        if self.runs > LIMIT:
            raise self._nested()
        session = Replayed(self, before, plain)
        session.plate_rows = Minibatches(self.plates)
        return session

    def _nested(self) -> StrategyError:
        return StrategyError(
            f"one gradient ran the program {self.runs} times and was not done: strategies of several runs, such as "
            f"Enumerate(), nest at sites that follow each other. Reinforce() needs one run, whatever follows."
        )


class Finished(Exception):  # noqa: N818
    """A strategy has run the rest of the program, and the run that reached it need not go on."""

    def __init__(self, terms: Stack):
        super().__init__()
        self.terms = terms


class Replayed(Loops):
    """A run of an objective, whose first sites have their values already."""

    def __init__(self, replay: Replay, before: Sequence[torch.Tensor], plain: bool):
        super().__init__(replay.params, replay.chosen, replay.modules)
        self.replay = replay
        self.values = list(before)
        self.plain = plain
        self.pending: list[Tail] = []
        self.reports: list[SiteReport] | None = None
        """Of its sites, where they are asked for."""
        self._next = 0

    def write(self, buffers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        if not self.plain:
            for buffer, value in buffers:
                written(buffer, value, 0)

    def draw_site(self, name: str, fn: Any, infer: Mapping[str, Any]) -> tuple[torch.Tensor, Sequence[Any], str]:
        where, site = self.here(), SiteDistribution(fn, infer.get("baseline_input"))
        self.drawn.add(name)
        refuse_undrawable(name, site, where)
        strategy, reason = self._strategy(name, site, infer, where)
        if strategy.relaxes:
            self.relaxed.add(name)
        if self.reports is not None:
            self.reports.append(_report(name, site, where, strategy, reason))
        if (known := self._known()) is not None:
            return known, (), strategy.route
        drawn = strategy.draw(site, self.key())
        drawn = Draw(*(None if field is None else torch.as_tensor(field) for field in drawn))
        value = drawn.value
        if strategy.route != "path" and not self.plain:
            k = Rest(self.replay, name, site.lanes, drawn, tuple(self.values))
            outcome: Any = strategy.estimate(Site(name, site.lanes, drawn, OPS, None), k)
            if not isinstance(outcome, Tail):
                raise Finished(outcome)
            self.pending.append(outcome)
            value = outcome.value
        self.values.append(value)
        return value, site.intermediates if strategy.route == "path" else (), strategy.route

    def random(self, sampler: Callable[[torch.Tensor], torch.Tensor], key: torch.Tensor | None = None) -> torch.Tensor:
        if (known := self._known()) is not None:
            return known
        self.values.append(super().random(sampler, key))
        return self.values[-1]

    @contextmanager
    def apart(self) -> Iterator[None]:
        outer, self.plain = self.plain, True
        try:
            with super().apart():
                yield
        finally:
            self.plain = outer

    def _known(self) -> torch.Tensor | None:
        """What the next draw was in the run before."""
        position, self._next = self._next, self._next + 1
        return self.values[position] if position < len(self.values) else None

    def _strategy(
        self, name: str, site: SiteDistribution, infer: Mapping[str, Any], where: str
    ) -> tuple[Strategy, str]:
        named = self.chosen.get(name, infer.get("strategy"))
        *_, last = default_strategies(site)
        strategy = last if named is None else as_strategy(named, name, site, where)
        if strategy.stateful:
            raise EngineError(
                f"site {name!r} at {where}: {strategy} learns, and a program that is replayed has no sites to keep states for."
            )
        if any(bound.requires_grad for bound in site.bounds()) and (strategy.fixed_support or named is None):
            raise moving_support(name, site.name, where, strategy)
        by_path = "reparameterised sampler" if strategy.route == "path" else "the default of a program that is replayed"
        return strategy, "named by the user" if named is not None else by_path


def _report(name: str, site: SiteDistribution, where: str, strategy: Strategy, reason: str) -> SiteReport:
    size = len(site.enumerate_support()) if site.has_enumerate_support else 1
    lanes = math.prod(site.lanes)
    credit = "by the path" if strategy.route == "path" else "the whole objective"
    costs = strategy.runs(size, lanes), strategy.evaluations(size, lanes)
    return SiteReport(name, site.name, where, site.lanes, str(strategy), reason, credit, *costs)


@dataclass(frozen=True)
class Rest:
    """`k`: the rest of the objective after a site, by replay."""

    replay: Replay
    name: str
    lanes: tuple[int, ...]
    drawn: Draw
    before: tuple[torch.Tensor, ...]

    ops = OPS

    def __call__(self, value: Array) -> Tail:
        return Tail(self, lambda: self.run(value), value=value)

    def run(self, value: Array) -> Estimates:
        return self.replay.estimate([*self.before, value])

    def each(self, values: Array, *, sequential: bool = False) -> Stack:
        return Stack(self, *self._stacked(self.run, values))

    def assign(self, values: Array, index: np.ndarray, *, sequential: bool = False) -> Stack:
        return self.each(self.ops.choose(values, index), sequential=sequential)

    def value(self, value: Array) -> Stack:
        return Stack(self, self._plain(value), 0.0)

    def value_each(self, values: Array) -> Stack:
        return Stack(self, self._stacked(self._plain, values), 0.0)

    def value_where(self, value: Array, values: Array, chosen: np.ndarray) -> Stack:
        marks = self.ops.array(chosen) > 0
        marks = marks.reshape(len(chosen), 1, *chosen.shape[1:], *[1] * (values.ndim - chosen.ndim))
        return self.value_each(torch.where(marks, values, value).flatten(0, 1))

    def by_coupling(self) -> Sequence[tuple[Mapping[int, int], Rest]]:
        coupled = {axis: size for axis, size in enumerate(self.lanes) if size > 1}
        if self.drawn.values is not None and len(self.drawn.values) ** math.prod(self.lanes) > LIMIT:
            raise StrategyError(
                f"site {self.name!r}: the lanes {self.lanes} of a site in a program that is replayed are coupled, and their "
                f"alternatives are too many. LeaveOneOut() or Reinforce() cost one run whatever is coupled."
            )
        return [(coupled, self)]

    def along(self, i: int, weight: Array) -> Array:
        return self.ops.sum(weight, range(len(self.lanes)))

    def within(self, i: int, log_weight: Array, first: Array, runs: int) -> Array:
        return self.along(i, log_weight)

    def _plain(self, value: Array) -> dict[int, torch.Tensor]:
        return self.replay.draw([*self.before, value])

    def _stacked(self, run: Callable[[Array], Any], values: Array) -> Any:
        """Every run with the same random numbers from here on."""
        state, results = torch.get_rng_state(), []
        for value in values:
            torch.set_rng_state(state)
            results.append(run(value))
        return stacked(*results)
