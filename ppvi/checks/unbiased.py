"""Is a gradient unbiased? The path-integral test, and when to stop it.

Along a path theta(u), 0 <= u <= 1, with u uniform,

    D = theta'(u) . G(theta(u)) - (V(theta(1)) - V(theta(0))),    E[D] = int theta' . (E[G] - dJ) du

where G and V estimate gradient and value, J = E[V]. The gradient is unbiased along the path only if E[D] = 0, whatever
jumps there are; nothing is differenced to a limit and no oracle is needed. A random path does not let two biases cancel.
G and V may share their randomness, which leaves the mean of D alone and takes most of its variance; the mean of G at u and
at 1 - u takes what is left where G changes evenly.

Biases of short periods average out along a path, unless it is close to its point, where a value that jumps now and then hides
them. So a close path may find a bias, and where it is left open the others decide.

Where the gradient itself is known, by enumeration, D is the difference at one point. The engine makes the draws; here
they are judged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from ppvi._doors import count, number
from ppvi.checks.report import SEEN, Measurement, Outcome, rarest
from ppvi.checks.sequential import Asymptotic, Bounded, Catoni, MeanTest, Moments
from ppvi.checks.tails import HEAVY, k_hat


class Draws(NamedTuple):
    """A batch of draws, `(draw, question)` each."""

    differences: Any
    """Of D."""
    components: Any
    """Of the gradient's component."""
    spacing: Any = 0.0
    """What the last digit of the numbers whose differences D is makes of it."""


Draw = Callable[[int, int], tuple[Any, ...]]
"""From the number of a batch, and of draws that it should have at most, to what `Draws` holds."""

FIRST = 4
"""Draws of the first batch; then twice as many each time that one takes a small part of the budget."""

TAIL_DRAWS = 50_000
"""Draws by which tails are judged."""
RARE = 1e-4
"""Probability of the rarest events in which a mean may lie: there is no verdict on fewer draws than show them."""
ROUNDING = 1e-4
"""Bias relative to the scale that is put down to single precision."""
DIGITS = 16
"""Bias in last digits of the values that is put down to their rounding: a sum of many terms is wrong by a few of them."""
ROUNDED = "below the rounding of the values"
"""Why a bias is not seen, where it is the arithmetic that hides it."""
OPEN = "open when it stopped"
"""The same where it is the budget."""


@dataclass(frozen=True)
class Question:
    """What one sequence of draws is about."""

    point: str
    direction: str
    size: int = 1
    """Coordinates that the direction moves."""
    length: float = 0.0
    """Of the path; 0 at one point."""
    close: bool = False
    """Whether it is there to find a bias, and not to say that there is none."""


def enough(rare: float) -> int:
    """Runs of an estimator that show events of this probability."""
    return math.ceil(-math.log(1 - SEEN) / rare)


@dataclass(frozen=True)
class Budget:
    """How long a check may take: seconds, or draws of each question, whichever ends first."""

    seconds: float = 30.0
    draws: int = 10_000_000

    def __post_init__(self) -> None:
        if self.seconds != math.inf:
            number("Budget: the budget, in seconds,", self.seconds, above=0)
        count("Budget: draws", self.draws)

    @staticmethod
    def of(given: Budget | float | None) -> Budget:
        """A budget, or one of these seconds.

        **Raises** `ProgramError` where it is none.
        """
        return given if isinstance(given, Budget) else Budget() if given is None else Budget(given)


def measure(
    draw: Draw,
    questions: Sequence[Question],
    *,
    alpha: float = 1e-3,
    delta: float | None = None,
    budget: Budget | float | None = None,
    bounds: tuple[float, float] | None = None,
    variance: float | None = None,
    rare: float = RARE,
    progress: bool = True,
) -> tuple[Measurement, ...]:
    """Draw until every question is answered, one answer is "biased", or the budget is spent.

    **Arguments**

    - `alpha`: probability of any wrong answer, "biased" or "unbiased within delta"; shared by all questions and both.
    - `delta`: bias that counts as none, relative to the gradient's scale; 0.01 by default.
    - `rare`: probability of the rarest events in which a mean may lie. On fewer runs than show them there is never a "biased",
      and no other verdict until the budget is spent.
    - `budget`: seconds, or seconds and draws.
    - `bounds`: between which every D lies, where that is known: the level is then exact. `variance`: the same for a bound on
      the variance of D. With neither the level is asymptotic.

    **Raises** `ProgramError` for an alpha or delta outside (0, 1), or bounds that a draw exceeds.
    """
    from tqdm.auto import tqdm

    delta = 0.01 if delta is None else delta
    budget = Budget.of(budget)
    for name, value in (("alpha", alpha), ("delta", delta), ("rare", rare)):
        number(f"check: {name}", value, above=0, below=1)
    level = alpha / len(questions)
    if variance is not None:
        number("check: the variance", variance, above=0)
    judge = Judge(questions, level, delta, bounds, variance, rare)
    start, batch, size = time.monotonic(), 0, FIRST
    with tqdm(total=100, disable=not progress, desc="check", unit="%", leave=False) as bar:
        while True:
            begun = time.monotonic()
            judge.add(*(np.asarray(x, float) for x in draw(batch, size)))
            batch += 1
            size *= 2 if time.monotonic() - begun < budget.seconds / 50 else 1
            spent = max((time.monotonic() - start) / budget.seconds, judge.draws / budget.draws)
            bar.update(min(100, round(100 * spent)) - bar.n)
            outcomes = judge.outcomes()
            open_ones = (q for q, outcome in zip(questions, outcomes, strict=True) if outcome is None and not q.close)
            if not any(open_ones) or "biased" in outcomes or spent >= 1:
                return judge.measurements()


def exactly(
    question: Question, probabilities: Any, components: Any, truth: Any, spacing: float = 0.0, delta: float = 0.01
) -> Measurement:
    """What every outcome of an estimator and their probabilities say, which is the bias itself.

    **Arguments**

    - `spacing`: the last digit of the objective's value.
    """
    weights, x = np.asarray(probabilities, float), np.asarray(components, float)
    mean, scale = float(weights @ x), math.sqrt(weights @ x**2)
    bias, rounding = mean - float(truth), max(ROUNDING * max(scale, abs(float(truth))), DIGITS * spacing)
    return Measurement(
        point=question.point,
        direction=question.direction,
        bias=bias,
        low=bias,
        high=bias,
        gradient=mean,
        scale=scale,
        delta=delta * scale,
        visible=rounding,
        draws=len(x),
        k_hat=-math.inf,
        outcome="unbiased within delta" if abs(bias) <= rounding else "biased",
        exact=True,
    )


class Judge:
    """The draws so far, and what they say."""

    def __init__(
        self,
        questions: Sequence[Question],
        level: float,
        delta: float,
        bounds: tuple[float, float] | None = None,
        variance: float | None = None,
        rare: float = RARE,
    ):
        self.questions, self.level, self.delta, self.rare = questions, level, delta, rare
        tests = self.tests = len(questions)
        widest = max(question.size for question in questions)
        self.together = sum(question.size == widest for question in questions)
        """Questions of which each would show whatever is rare."""
        self.bounds, self.variance = bounds, variance
        self.lengths = np.array([question.length for question in questions])
        self.close = np.array([question.close for question in questions])
        self.change = 0.0
        """The largest change of the value along any path."""
        self.components, self.first = Moments(tests), np.zeros((0, tests))
        self.lost = np.zeros(tests, int)
        self.spacing = np.zeros(tests)
        self.sequence: MeanTest | None = None
        self.shapes: Any = None
        self.judged = 0

    @property
    def draws(self) -> int:
        return self.components.count

    def add(self, differences: Any, components: Any, spacing: Any = 0.0) -> None:
        finite = np.isfinite(differences) & np.isfinite(components)
        self.spacing += np.where(finite, spacing, 0.0).sum(0)
        self.lost += (~finite).sum(0)
        self.components.add(np.where(finite, components, 0.0))
        changes = np.where(finite, components - differences, 0.0) * self.lengths
        self.change = max(self.change, abs(changes).max())
        differences = np.where(finite, differences, 0.0)
        self.first = np.concatenate([self.first, differences[: max(0, TAIL_DRAWS - len(self.first))]])
        if self.sequence is None:
            self.sequence = self._sequence()
        self.sequence.add(differences)

    def _sequence(self) -> MeanTest:
        if self.bounds is None and self.variance is None:
            return Asymptotic(self.tests, self.level)
        size = self.bounds[1] - self.bounds[0] if self.bounds is not None else 20 * math.sqrt(self.variance or 0.0)
        steps = np.geomspace(1e-4, 1, 40) * size
        near = self.delta * np.unique(self.scale())
        grid = np.unique(np.concatenate([-steps, [0.0], steps, near, -near]))
        if self.bounds is not None:
            return Bounded(self.tests, self.level, *self.bounds, grid)
        return Catoni(self.tests, self.level, self.variance or 0.0, grid)

    def scale(self) -> Any:
        """Root mean square of the gradient's components."""
        return np.sqrt(self.components.mean() ** 2 + self.components.variance())

    def rounding(self) -> Any:
        """The bias that the arithmetic alone may make."""
        return DIGITS * self.spacing / self.draws

    @property
    def runs(self) -> int:
        """Runs of the estimator that would have shown a rare event."""
        return self.draws * self.together

    def is_enough(self) -> bool:
        """Whether rare events have been drawn, or cannot decide. Where one question has met some, all wait until they have.

        One that has met events of ten times their probability has a skewness to show for it.
        """
        if not isinstance(self.sequence, Asymptotic):
            return True
        least, lopsided = enough(self.rare), (10 * self.rare) ** -0.5
        return self.draws >= least or (
            self.runs >= least and abs(self.sequence.skewness()[~self.close]).max() < lopsided
        )

    def jumps_seen(self, low: Any, high: Any) -> Any:
        """Whether jumps of the value along a close path that none of its draws has met cannot make up for a bias.

        They come with less than the probability of the rarest event that would have been seen, and a jump is no larger than
        the largest change along any path.
        """
        unseen = rarest(self.draws) * self.change
        return ~self.close | (np.where(self.close, np.maximum(low, -high), 0) * self.lengths > unseen)

    def outcomes(self, last: bool = False) -> list[Outcome | None]:
        """The answers there are; the last ones, whether or not there will be more draws.

        What is less than the rounding of the values is neither a bias nor, where the gradient is not much more, none.
        """
        assert self.sequence is not None
        low, high = self.sequence.interval()
        bound, rounding = self.delta * self.scale(), np.maximum(ROUNDING * self.scale(), self.rounding())
        heavy = np.zeros(self.tests, bool)
        if self.bounds is None and self.variance is None:
            heavy = self.k_hats() >= HEAVY
        jumps_seen = self.jumps_seen(low, high)
        found: list[Outcome | None] = []
        for test in range(self.tests):
            if self.lost[test] or (heavy[test] and len(self.first) >= TAIL_DRAWS):
                found.append("inconclusive")
            elif heavy[test]:
                found.append(None)  # few draws of few values look heavy, too
            elif low[test] > rounding[test] or high[test] < -rounding[test]:
                found.append("biased" if self.is_enough() and jumps_seen[test] else None)
            elif low[test] >= -bound[test] and high[test] <= bound[test]:
                found.append("unbiased within delta" if last or self.is_enough() else None)
            elif low[test] >= -rounding[test] and high[test] <= rounding[test]:
                found.append("inconclusive")
            else:
                found.append(None)
        return found

    def k_hats(self) -> Any:
        """Pareto shapes by the first draws."""
        if self.shapes is None or (
            self.judged < min(TAIL_DRAWS, len(self.first)) and len(self.first) >= 2 * self.judged
        ):
            self.shapes, self.judged = np.array([k_hat(x) for x in self.first.T]), len(self.first)
        return self.shapes

    def measurements(self) -> tuple[Measurement, ...]:
        assert self.sequence is not None
        low, high = self.sequence.interval()
        mean, scale, outcomes = self.sequence.mean(), self.scale(), self.outcomes(last=True)
        sd = np.sqrt(self.sequence.variance())
        power = -NormalDist().inv_cdf(self.level / 2) + NormalDist().inv_cdf(SEEN)
        out = []
        for i, question in enumerate(self.questions):
            shape, reason = float(self.k_hats()[i]), ""
            if self.lost[i]:
                reason = f"inconclusive: {self.lost[i]} draws are not finite"
            elif outcomes[i] == "inconclusive":
                narrow = max(-low[i], high[i]) <= self.rounding()[i]
                reason = f"inconclusive: {ROUNDED if narrow else 'tails too heavy'}"
            elif outcomes[i] is None and not self.is_enough() and max(low[i], -high[i]) > self.rounding()[i]:
                reason = f"biased, unless events rarer than 1 in {round(1 / rarest(self.runs)):,} make up for it"
            elif outcomes[i] is None:
                reason = OPEN
            out.append(
                Measurement(
                    point=question.point,
                    direction=question.direction,
                    bias=float(mean[i]),
                    low=float(low[i]),
                    high=float(high[i]),
                    gradient=float(self.components.mean()[i]),
                    scale=float(scale[i]),
                    delta=float(self.delta * scale[i]),
                    size=question.size,
                    length=question.length,
                    close=question.close,
                    visible=math.inf
                    if self.lost[i]
                    else max(float(power * sd[i] / math.sqrt(self.draws)), float(self.rounding()[i])),
                    draws=self.draws,
                    k_hat=shape,
                    outcome=outcomes[i] or "inconclusive",
                    reason=reason,
                )
            )
        return tuple(out)
