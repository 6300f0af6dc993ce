"""The rest of an objective after a site of a program that is replayed: the program again, with the values so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from ppvi._ops import Array
from ppvi.compiler.estimates import Estimates, Later, Tail
from ppvi.errors import StrategyError
from ppvi.pyro._ops import OPS
from ppvi.pyro._trees import stacked
from ppvi.strategies.alternatives import LIMIT
from ppvi.strategies.assigned import at


class Runs(Protocol):
    """What runs an objective, given the values of its first sites, and the generator's states around them."""

    def estimate(self, before: Sequence[torch.Tensor], states: Sequence[torch.Tensor]) -> Estimates: ...
    def draw(self, before: Sequence[torch.Tensor], states: Sequence[torch.Tensor]) -> torch.Tensor: ...


@dataclass(frozen=True)
class Rest:
    """`k`: the rest of the objective after a site, by replay. It runs when the run that reached the site is over."""

    replay: Runs
    name: str
    lanes: tuple[int, ...]
    alternatives: torch.Tensor | None
    before: tuple[torch.Tensor, ...]
    states: tuple[torch.Tensor, ...]
    """Of the random numbers, the same for every run of the rest: the last is at its beginning."""
    ran: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    """Values of the site that the rest has been run at, and the objective there: with the same random numbers it is the same
    again, and of draws from a few values many are alike."""

    ops = OPS

    def __call__(self, value: Array) -> Tail:
        return Tail(self, lambda: self.run(value), value=value)

    def run(self, value: Array) -> Estimates:
        return self.replay.estimate([*self.before, value], self.states)

    def each(self, values: Array, *, sequential: bool = False) -> Later:
        return Later(self, lambda: stacked(*[self.run(value) for value in values]))

    def assign(self, values: Array, index: np.ndarray, *, sequential: bool = False) -> Later:
        return self.each(at(self.ops, values, [index]), sequential=sequential)

    def value(self, value: Array) -> Later:
        return Later(self, lambda: (self._plain(value), 0.0))

    def value_each(self, values: Array) -> Later:
        return Later(self, lambda: (stacked(*[self._plain(value) for value in values]), 0.0))

    def value_where(self, value: Array, values: Array, chosen: np.ndarray) -> Later:
        marks = self.ops.array(chosen) > 0
        marks = marks.reshape(len(chosen), 1, *chosen.shape[1:], *[1] * (values.ndim - chosen.ndim))
        return self.value_each(torch.where(marks, values, value).flatten(0, 1))

    def by_coupling(self) -> Sequence[tuple[Mapping[int, int], Rest]]:
        coupled = {axis: size for axis, size in enumerate(self.lanes) if size > 1}
        if self.alternatives is not None and len(self.alternatives) ** math.prod(self.lanes) > LIMIT:
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
        found = next((found for known, found in self.ran if torch.equal(known, value)), None)
        if found is None:
            found = self.replay.draw([*self.before, value], self.states)
            self.ran.append((value, found))
        return {0: found}
