"""Every outcome of a gradient estimator of a finite program, and with them its exact mean.

The objective is staged and planned as always, but its samplers read a *tape*: each time one of them runs, it takes the
next choice among the joint values of its lanes. The surrogate runs for every sequence of choices, and gradients are
averaged with the probabilities of the choices. Credit, weights, nesting and baselines are those of any other run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ppvi._ops import Array
from ppvi.engine.distributions import SiteDistribution
from ppvi.errors import EngineError

T = TypeVar("T")

MOST_DRAWS = 512
"""The most times that the samplers of one estimator may run."""


class EndlessError(EngineError):
    """An estimator whose own randomness has too many outcomes to go through them."""


class Outcomes(NamedTuple):
    """Every outcome of an estimator: stacks with the outcomes in front."""

    probabilities: np.ndarray
    values: np.ndarray
    gradients: Mapping[str, np.ndarray]

    def mean(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The exact means of the estimate and of its gradient."""
        grads = {name: np.tensordot(self.probabilities, grad, 1) for name, grad in self.gradients.items()}
        return self.probabilities @ self.values, grads

    def possible(self) -> Outcomes:
        """Those of positive probability: of the others an estimator need not know what it would give."""
        kept = self.probabilities > 0
        grads = {name: grad[kept] for name, grad in self.gradients.items()}
        return Outcomes(self.probabilities[kept], self.values[kept], grads)

    def along(self, velocity: np.ndarray) -> np.ndarray:
        """The component of every gradient in a direction, that of all entries of all parameters one after the other."""
        rows = [grad.reshape(len(self.values), -1) for grad in self.gradients.values()]
        return np.concatenate(rows, -1) @ velocity


class Tape:
    """A sequence of choices, one for each time that a sampler runs."""

    def __init__(self, limit: int, seconds: float = math.inf):
        self.limit = limit
        self.seconds = seconds
        self.noisy = False
        """Whether a strategy asked for noise that is not of the tape."""
        self.start(None)

    def start(self, choices: Any) -> None:
        self.choices = choices
        self.sizes: list[int] = []
        self.log_probability: Any = 0.0

    def next(self, values: int, lanes: int) -> Any:
        """The joint choice among so many values in each of so many lanes, as a number whose digits are those of the lanes."""
        if math.prod(self.sizes) * values**lanes > self.limit or len(self.sizes) == MOST_DRAWS:
            raise EndlessError(f"the estimator's randomness has more than {self.limit} outcomes.")
        choice = self.choices[..., len(self.sizes)]
        self.sizes.append(values**lanes)
        return choice

    def all(self) -> np.ndarray:
        """The choices of every outcome of the run that has just been, `(outcomes, MOST_DRAWS)`."""
        total = math.prod(self.sizes)
        choices = np.zeros((total, MOST_DRAWS), int)
        if self.sizes:
            choices[:, : len(self.sizes)] = np.stack(np.unravel_index(np.arange(total), self.sizes), -1)
        return choices

    def in_time(self, rows: Iterable[T]) -> Iterator[T]:
        """The rows one after the other, as long as there is time."""
        start = time.monotonic()
        for row in rows:
            if time.monotonic() - start > self.seconds:
                raise EndlessError(f"the estimator's outcomes take longer than {self.seconds:g} seconds.")
            yield row


class Taped(SiteDistribution):
    """What every engine's distribution is whose samplers read a tape; put before the engine's own."""

    def __init__(self, tape: Any, fn: Any, baseline_input: Any = None):
        super().__init__(fn, baseline_input)  # pyright: ignore[reportCallIssue]
        self.tape = tape

    def rsample(self, rng: Any) -> Array:
        raise self._endless()

    def enumerate_support(self) -> Array:
        if not self.has_enumerate_support:
            raise self._endless()
        return super().enumerate_support()

    def _endless(self) -> EndlessError:
        return EndlessError(f"{self.name} has no finite support.")


def gone_through(tape: Tape, every: Callable[[int], Outcomes]) -> Outcomes:
    """What an estimator gives for every outcome, if the seed of what is not on the tape makes no difference.

    **Raises** `EndlessError` where it does, `EngineError` where the probabilities of all outcomes do not add up to 1.
    """
    found = every(0)
    total, rounding = found.probabilities.sum(), 1e4 * np.finfo(found.probabilities.dtype).eps
    if abs(total - 1) > rounding:
        raise EngineError(
            f"the probabilities of all outcomes of the sites add up to {total:.6g}, not to 1: is a distribution's log_prob "
            f"normalised over its enumerate_support?"
        )
    found = found.possible()
    if tape.noisy:
        (value, grads), (other, others) = found.mean(), every(1).possible().mean()
        pairs = [(value, other), *((grads[name], others[name]) for name in grads)]
        if not all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs):
            raise EndlessError("a strategy draws noise, of infinitely many outcomes.")
    return found
