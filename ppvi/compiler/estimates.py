"""Estimates of terms: those that a run of the rest has given, and those that it will give.

A strategy says what is to be done to them; when it is done is the surrogate's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from ppvi._ops import Array, Ops
from ppvi.strategies.zero import counted, varied

Estimates = tuple[dict[int, Array], Array]
"""Estimates of terms by index, and the sum of control variates."""


class Runner(Protocol):
    """What a stack and a tail need of the `k` that they are of."""

    @property
    def ops(self) -> Ops: ...

    @property
    def lanes(self) -> tuple[int, ...]:
        """Of the site."""
        ...

    def along(self, i: int, weight: Array) -> Array:
        """A weight of the site's lanes laid along a term: summed over the lanes that the term couples."""
        ...

    def within(self, i: int, log_weight: Array, first: Array, runs: int) -> Array:
        """The same, of so many runs, over the lanes that the term is a function of; see `Runs.mix`."""
        ...


@dataclass(frozen=True)
class Stack:
    """Terms that have been run: one array each, or a stack of arrays with the runs in front."""

    k: Runner
    values: dict[int, Array]
    added: Array

    def scale(self, log_weight: Array) -> Stack:
        return self._weigh(log_weight, lambda ops, value, w: value * ops.exp(w))

    def vary(self, weight: Array) -> Stack:
        return self._weigh(weight, varied)

    def mix(self, log_weights: Array, first: Array | None = None) -> Stack:
        runs, ops = log_weights.shape[0], self.k.ops
        first = log_weights if first is None else first

        def one(log_weights: Array, first: Array, values: dict[int, Array]) -> dict[int, Array]:
            weights = {i: ops.exp(self.k.within(i, log_weights, first, runs)) for i in values}
            return {i: counted(ops, value, weights[i]) for i, value in values.items()}

        # A control variate has mean zero in every run whatever weight it gets, so its mean will do.
        values = ops.vmap(one)(log_weights, first, self.values)
        return replace(self, values=values, added=self.added / runs).total()

    def total(self) -> Stack:
        ops = self.k.ops
        added = self.added if isinstance(self.added, float) else ops.sum(self.added, [0])
        return replace(self, values={i: ops.sum(value, [0]) for i, value in self.values.items()}, added=added)

    def control(self, x: Array | Callable[[Array], Array]) -> Stack:
        variate: Any = x(self.credit()) if callable(x) else x
        return replace(self, added=self.added + self.k.ops.sum(variate, range(len(variate.shape))))

    def credit(self) -> Array:
        """For each lane, what the terms add up to that depend on it: their sum's coefficient of the lane's weight."""
        ops, lanes = self.k.ops, self.k.lanes
        values = {i: ops.stop_gradient(value) for i, value in self.values.items()}

        def weighed(weight: Array) -> Array:
            each = (value * self.k.along(i, weight) for i, value in values.items())
            return sum(ops.sum(x, range(len(x.shape))) for x in each)

        dtype = str(next(iter(values.values())).dtype)
        _, (credit,) = ops.linear_coefficients(weighed, [(lanes, dtype)])
        return credit

    def __mul__(self, number: float | Array) -> Stack:
        return replace(self, values={i: value * number for i, value in self.values.items()}, added=self.added * number)

    def __add__(self, other: Any) -> Stack:
        other = other.force()
        both = {i: self.values[i] + other.values[i] if i in self.values else x for i, x in other.values.items()}
        return replace(self, values=self.values | both, added=self.added + other.added)

    def force(self) -> Stack:
        return self

    def _weigh(self, weight: Array, function: Callable[[Ops, Array, Array], Array]) -> Stack:
        stacked = len(weight.shape) > len(self.k.lanes)

        def one(weight: Array, values: dict[int, Array]) -> dict[int, Array]:
            return {i: function(self.k.ops, value, self.k.along(i, weight)) for i, value in values.items()}

        run = self.k.ops.vmap(one) if stacked else one
        return replace(self, values=run(weight, self.values))


@dataclass(frozen=True)
class Later:
    """Terms that are evaluated when they are needed, and what is to be done to them."""

    k: Runner
    start: Callable[[], Estimates]
    steps: tuple[Callable[[Stack], Stack], ...] = ()

    def then(self, step: Callable[[Stack], Stack]) -> Self:
        return replace(self, steps=(*self.steps, step))

    def scale(self, log_weight: Array) -> Self:
        return self.then(lambda terms: terms.scale(log_weight))

    def vary(self, weight: Array) -> Self:
        return self.then(lambda terms: terms.vary(weight))

    def mix(self, log_weights: Array, first: Array | None = None) -> Self:
        return self.then(lambda terms: terms.mix(log_weights, first))

    def total(self) -> Self:
        return self.then(lambda terms: terms.total())

    def control(self, x: Array | Callable[[Array], Array]) -> Self:
        return self.then(lambda terms: terms.control(x))

    def __mul__(self, number: float | Array) -> Self:
        return self.then(lambda terms: terms * number)

    def __add__(self, other: Any) -> Self:
        return self.then(lambda terms: terms + other)

    def force(self) -> Stack:
        return self.finish(Stack(self.k, *self.start()))

    def estimates(self) -> Estimates:
        terms = self.force()
        return terms.values, terms.added

    def finish(self, terms: Stack) -> Stack:
        for step in self.steps:
            terms = step(terms)
        return terms


@dataclass(frozen=True, kw_only=True)
class Tail(Later):
    """One run of the rest at a value: the surrogate's own, where the strategy returns it."""

    value: Array
