"""How the losses of a fit have gone.

Whether they have settled is asked of the last half, quarter and eighth of the steps, by the linear trend of each:

    change = slope x steps,    standard error = sd sqrt(12 tau / steps)

where sd is that of the losses about a parabola, and tau the number of steps in which they forget themselves,
from their autocorrelation (Sokal 1997). Noise hides trends, so that losses which are not seen to fall have settled only where
a fall that matters would have been seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST = 40
"""Steps of which a trend is judged."""

PARTS = {"half": 2, "quarter": 4, "eighth": 8}
"""Of the steps, in which trends are looked for."""

CHANCE = 0.0005
"""Of taking noise for a trend, one way, in one of these."""

FEW = 100
"""Independent losses, below which a trend is told from the slow wander of noise by its size alone."""


@dataclass(frozen=True)
class Course:
    """How losses went on in the end.

    **Attributes**

    - `change`: of the mean loss over the last `part` of the steps, where it is more than noise; else 0.
    - `seen`: the least change over that part that would have been told from noise.
    - `settled`: whether there is no change, and one that matters would have been seen: one of 0.3 nats, or of a third
      of the losses' sd.
    """

    change: float
    part: str
    seen: float
    settled: bool

    @property
    def moving(self) -> float | None:
        """`change`, None where nothing tells."""
        return self.change if self.change or self.settled else None

    def __str__(self) -> str:
        """What is known, as what a loss has done."""
        if self.change:
            way = "falling" if self.change < 0 else "rising"
            return f"was still {way}, by {abs(self.change):.3g} over the last {self.part} of the steps"
        if self.settled:
            if not self.seen:
                return "is solved: it has no noise, and changes no more"
            return f"had settled: it changed by less than {self.seen:.2g} over the last {self.part} of the steps"
        if not self.seen:
            return "was not solved in these steps"
        return (
            f"is noisy: a change of {self.seen:.2g} over the last {self.part} of the steps would not be seen; more steps, or "
            f"more particles, tell"
        )


@dataclass(frozen=True)
class _Trend:
    """A linear trend: the change over its steps, its standard error, and the least that is told from noise."""

    part: str
    change: float
    error: float
    seen: float
    sd: float

    @property
    def moves(self) -> bool:
        return abs(self.change) > self.seen


def course_of(losses: Any) -> Course | None:
    """How losses, of several objectives their sum, went on in the end; None of too few, or of some that are not finite."""
    if losses is None or len(losses) < LEAST:
        return None
    per_step = np.asarray(losses, float).reshape(len(losses), -1).sum(-1)
    half = per_step[len(per_step) // 2 :]
    if not np.isfinite(half).all():
        return None
    rounding = 1e-5 * max(1.0, abs(float(half.mean())))
    trends = [_trend(part, per_step[-(len(per_step) // n) :], rounding) for part, n in PARTS.items()]
    tolerance = max(0.3, trends[0].sd / 3)
    first, *others = trends
    for after in others:  # what fell at the beginning of a part, and then no more, has settled in the rest of it
        if not first.moves or abs(after.change) + 2 * after.error > min(abs(first.change) / 4, tolerance):
            break
        first = after
    moving = [x for x in trends[trends.index(first) :] if x.moves]
    if moving:
        return Course(moving[0].change, moving[0].part, moving[0].seen, settled=False)
    quiet = all(
        abs(x.change) <= max(2.5 * x.error, rounding) or abs(x.change) + 2 * x.error <= tolerance / 3
        for x in trends[trends.index(first) :]
    )
    return Course(0.0, first.part, first.seen, settled=quiet and first.seen <= tolerance)


def _noise(losses: np.ndarray) -> tuple[float, float]:
    """The sd of losses about a parabola, and in how many steps they forget themselves."""
    at, polynomial = np.linspace(-1, 1, len(losses)), np.polynomial.polynomial
    rest = losses - polynomial.polyval(at, polynomial.polyfit(at, losses, 2))
    return float(rest.std()), float(memory(rest))


def memory(rest: np.ndarray) -> np.ndarray:
    """In how many steps deviations, `(step, ...)`, forget themselves: their integrated autocorrelation time tau, of which the
    sum goes on to 5 tau (Sokal 1997); 1 where there are none, and all steps where there are too few to tell."""
    n = len(rest)
    spectrum = np.fft.rfft(rest, 2 * n, axis=0)
    products = np.fft.irfft(spectrum * spectrum.conj(), 2 * n, axis=0)[:n]
    still = ~(products[0] > 0)
    times = 2 * np.cumsum(products / np.where(still, 1.0, products[0]), 0) - 1
    steps = np.arange(n).reshape(-1, *[1] * (rest.ndim - 1))
    enough = steps >= 5 * times
    found = np.take_along_axis(times, np.argmax(enough, 0)[None], 0)[0]
    return np.where(still, 1.0, np.where(enough.any(0), np.maximum(found, 1.0), n))


def split_r_hat(iterates: np.ndarray) -> np.ndarray:
    """Of iterates `(step, ...)`, the sd of all to that within their halves of n each (Gelman et al. 2013, 11.4),

        sqrt((n - 1) / n + variance of the halves' means / mean of their variances);

    1 of what does not move, and infinite of what is still within each half and not in both."""
    n = len(iterates) // 2
    halves = np.stack([iterates[:n], iterates[-n:]])
    between, within = halves.mean(1).var(0, ddof=1), halves.var(1, ddof=1).mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(between == 0, 0.0, between / within)
    return np.sqrt((n - 1) / n + ratio)


def _trend(part: str, losses: np.ndarray, rounding: float) -> _Trend:
    from scipy.stats import t

    n, (sd, tau) = len(losses), _noise(losses)
    at = np.arange(n) - (n - 1) / 2
    error, independent = sd * math.sqrt(12 * tau / n), n / tau
    seen = float(t.isf(CHANCE, max(independent - 3, 1))) * error
    seen = max(seen, 8 * sd) if independent < FEW else seen
    return _Trend(part, float(at @ losses / (at @ at) * n), error, max(seen, rounding), sd)


def trends(losses: np.ndarray) -> list[str]:
    """Of each objective: its first loss, and the mean over the last tenth of the steps with its standard error."""
    found = []
    for column in losses.reshape(len(losses), -1).T:
        recent, course = column[-max(len(column) // 10, 1) :].astype(float), course_of(column)
        moving = f", still {'falling' if course.change < 0 else 'rising'}" if course and course.change else ""
        error = recent.std() / math.sqrt(len(recent))
        found.append(f"{column[0]:.5g} -> {recent.mean():.5g} +- {error:.1g}{moving}")
    return found


def converged(losses: np.ndarray) -> str:
    """Whether the losses have settled, in words that begin with yes, no or unknown."""
    found = course_of(losses)
    if found is None:
        return f"unknown: fewer than {LEAST} steps, or losses that are not finite"
    return f"{'no' if found.change else 'yes' if found.settled else 'unknown'}: the loss {found}"


def smoothed(losses: np.ndarray, points: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses of one objective in windows of equal numbers of steps, `points` at most of twenty steps or more: the step in the
    middle of each, its mean and the mean's standard error."""
    width = max(math.ceil(len(losses) / points), min(20, len(losses)))
    n = len(losses) // width
    windows = losses[len(losses) - n * width :].astype(float).reshape(n, width)
    middles = len(losses) - n * width + width * (np.arange(n) + 0.5)
    return middles, windows.mean(1), windows.std(1) / math.sqrt(width)
