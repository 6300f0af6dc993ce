"""When a fit is to stop: rules for `until=`, each a function of the fit so far to the reason, or None."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ppvi._doors import count, described, function, number, takes
from ppvi._losses import course_of, memory, split_r_hat
from ppvi.engine.trail import BLOCK
from ppvi.errors import PpviError, ProgramError


class SoFar(Protocol):
    """What rules look at of a fit."""

    @property
    def losses(self) -> np.ndarray: ...

    @property
    def seconds(self) -> float: ...


Callback = Callable[[int, Any], Any]
"""Takes the number of steps taken and the fit so far; stops the fit by returning True."""

Rule = Callable[[Any], str | None]
"""Takes the fit so far to why it is to stop, or None."""


@dataclass(frozen=True)
class Plateau:
    """Stop when the losses no longer fall: of two windows of steps in a row the later is not lower on average,

        mean of the earlier - mean of the later <= errors * standard error of the difference.

    An improvement that is smaller than the noise of a window is not seen: with losses of standard deviation s, what falls by
    less than errors * s * sqrt(2 / window) in a window counts as none. Of several objectives, all have to rest.

    **Arguments**

    - `window`: number of steps, at least 2.
    - `errors`: how many standard errors count as a fall.
    """

    window: int = 1000
    errors: float = 1.0

    def __post_init__(self) -> None:
        count("Plateau: the window, in steps,", self.window, least=2)
        number("Plateau: errors", self.errors)

    def __call__(self, fit: SoFar) -> str | None:
        losses = fit.losses.reshape(len(fit.losses), -1)[-2 * self.window :].astype(float)
        if len(losses) < 2 * self.window:
            return None
        earlier, later = losses[: self.window], losses[self.window :]
        error = np.sqrt((earlier.var(0, ddof=1) + later.var(0, ddof=1)) / self.window)
        if (earlier.mean(0) - later.mean(0) > self.errors * error).any():
            return None
        return f"the loss has not fallen in {self.window} steps"


@dataclass(frozen=True)
class TimeLimit:
    """Stop after so many seconds, those of the first compilation included.

    **Arguments**

    - `seconds`: of wall time in this call of `fit`.
    """

    seconds: float

    def __post_init__(self) -> None:
        number("TimeLimit: seconds", self.seconds, least=0)

    def __call__(self, fit: SoFar) -> str | None:
        return f"{self.seconds:g} seconds have passed" if fit.seconds >= self.seconds else None


@dataclass(frozen=True)
class Converged:
    """Stop when the guide no longer moves by what matters, and give back the average of the parameters.

    Iterates of a constant step size never rest: they become stationary, and it is their average that is near to the optimum.
    `params` of the fit are averages over the last half of its steps. The rule takes averages over each of 32 parts of these
    steps, draws from the guide at every one of them with the same random numbers, and looks at

        m_k / s  and  log s_k,    k = 1 .. 32,    s^2 the mean of s_k^2,

    where m_k and s_k are mean and sd of a number at a latent site. The fit has converged when of all of these

    - split R-hat, the sd of all 32 to that within each half, is at most 1.7. That of a straight line is 2.6, and independent
      values exceed 1.7 once in 225,000 times: what still drifts is told from noise, in whatever units, and however slow it is;
    - the means of both halves differ by at most 2 `tolerance`. If their errors are independent, the average of both is off by
      half of that. In words: the average is known to `tolerance` sds of the guide, and its sds to that factor;

    and the loss was not seen to fall by 0.3 nats (see `Fit.course`). What cannot be judged so is judged by what there is:

    - where no draws are to be had, as of guides of points, and where a batch is all that is known of the rows, each
      unconstrained number takes the place of those of the sites, and its average is to be off by at most `tolerance` of its
      iterates' own sd, which is an effective sample size of 1 / tolerance^2;
    - of more than 10,000 numbers, such as the weights of networks, which wander where the loss is flat, only the guide's draws
      and the loss are looked at, and the loss is to have settled.

    No rule sees what lies behind a plateau. The step size is the optimizer's, and is to be constant: where it decays, iterates
    rest wherever they are. The bias of the average, which is of the order of the step size, is not seen either;
    `fit(..., params=fit.params, optimizer=0.003, until=ppvi.Converged())` tells. The rule is asked whenever there are a tenth
    more steps; memory is at most that of 4 million numbers, or of 128 times the parameters.

    Parameters of the model, and sites of the guide without spread, are in no draw that varies: of them only the loss tells.

    Stationarity, averages and errors in sds as in Dhaka et al. 2020, "Robust, accurate stochastic optimization for variational
    inference", and Welandawe et al. 2022, "Robust, automated, and accurate black-box variational inference", whose R-hat, of
    the parameters' iterates and at most 1.1, takes many more steps: it is as strict with numbers that matter to no draw.

    **Arguments**

    - `tolerance`: error of the average, in sds of the guide.

    **Raises** `ProgramError` where another rule calls it: `fit` averages for those of `until=` itself.
    """

    tolerance: float = 0.1

    def __post_init__(self) -> None:
        number("Converged: the tolerance, in sds,", self.tolerance, above=0)

    def __call__(self, fit: Any) -> str | None:
        if getattr(getattr(fit, "state", None), "trail", None) is None:
            raise ProgramError("Converged is for until= of a fit, which averages its parameters for it.")
        averages, course = fit.averages, course_of(fit.losses)
        if averages is None or course is None or course.change < -FALL:
            return None
        few = averages.iterates.shape[1] <= NUMBERS
        if not (few or course.settled):
            return None
        moves = moves_of(fit)
        if moves is not None:
            moved = drift(moves)
            said = f"converged: {averages.steps} steps moved the guide by {moved:.1g} sds"
            return said if moved <= 2 * self.tolerance else None
        if not few:
            return f"converged: the loss has settled, and {NOTHING}"
        deviations = averages.iterates - averages.iterates.mean(0)
        deviations[:, np.abs(deviations).max(0) <= ROUNDING * np.abs(averages.iterates[-1])] = 0.0
        error = float(np.sqrt(np.where(deviations.any(0), memory(deviations), 0.0) / len(deviations)).max())
        if error > self.tolerance or drift(deviations) == math.inf:
            return None
        return f"converged: the parameters were stationary in {averages.steps} steps, and {NOTHING}"


def drift(moves: np.ndarray) -> float:
    """By how much numbers, `(part, number)`, differ at most between the means of both halves; infinite if any drifts."""
    half = len(moves) // 2
    moved = float(np.abs(moves[:half].mean(0) - moves[-half:].mean(0)).max())
    return moved if split_r_hat(moves).max() <= R_HAT else math.inf


NOTHING = "there are no draws that tell more"

R_HAT = 1.7
"""At most that of what does not drift."""

ROUNDING = 1e-5
"""Of a number, by which it may move as if it were still, for what has no noise comes to rest by ever smaller steps."""

FALL = 0.3
"""Nats that a loss falls by in what is no noise."""

NUMBERS = 10_000
"""Parameters that are to be stationary."""

GROWTH = math.log(1.1)
"""Of the logarithm of the steps, after which it is asked again whether a fit has converged."""

DRAWS, ENTRIES = 256, 1000
"""Draws of the guide, and numbers of each site that are looked at."""


def moves_of(fit: Any) -> np.ndarray | None:
    """Where the guide is at the averages over parts of the steps, `(part, number)`: means in sds and logarithms of sds of every
    number at a latent site. None where there are no draws, or none that vary."""
    from ppvi.objective import estimator_of  # which loads SciPy

    bound, key = estimator_of(fit.objectives[0]), fit.objectives[0].engine.fixed_key(0)

    def sites(_: Any, q: Any) -> dict[str, Any]:
        return {name: x.reshape(-1)[:ENTRIES] for name, x in q.simulate().items()}

    try:
        found = bound.many(key, fit.averages.parts, fit.args, fit.kwargs, DRAWS, sites)
    except PpviError:
        return None
    if not found[0]:
        return None
    drawn = np.stack([np.concatenate([np.reshape(x, (DRAWS, -1)) for x in each.values()], 1) for each in found])
    means, sds = drawn.mean(1, dtype=float), drawn.std(1, dtype=float)
    moving = (sds > 0).all(0)
    means, sds = means[:, moving], sds[:, moving]
    return np.concatenate([means / np.sqrt((sds**2).mean(0)), np.log(sds)], 1) if moving.any() else None


@dataclass(frozen=True)
class Asked:
    """Who may stop a fit."""

    every: int
    rules: Sequence[Rule]
    callback: Callback | None

    @property
    def averages(self) -> bool:
        """Whether the fit is to average its parameters."""
        return any(isinstance(rule, Converged) for rule in self.rules)

    def next(self, step: int) -> float:
        """The step at which they want to be asked, or an average ends, after this one; however many are taken at once, it is
        the same."""
        asks = self.callback is not None or not all(isinstance(rule, TimeLimit) for rule in self.rules)
        times = [self.every] * asks + [BLOCK] * self.averages
        return min((step - step % n + n for n in times), default=math.inf)

    def _is_due(self, rule: Rule, step: int) -> bool:
        """Whether a rule is asked after so many steps; `Converged` the less often, the more there were."""
        if isinstance(rule, TimeLimit) or step % self.every:
            return isinstance(rule, TimeLimit)
        before = max(step - self.every, 1)
        return not isinstance(rule, Converged) or math.log(step) // GROWTH > math.log(before) // GROWTH

    def __call__(self, step: int, so_far: Callable[[bool], SoFar]) -> str | None:
        """Why the fit is to stop, if it is.

        **Arguments**

        - `so_far`: of whether it is to have its averages.
        """
        due = step % self.every == 0
        rules = [rule for rule in self.rules if self._is_due(rule, step)]
        if not rules and not (due and self.callback):
            return None
        fit = so_far(any(isinstance(rule, Converged) for rule in rules))
        said = self.callback(step, fit) if due and self.callback else None
        if said is not None and bool(said):
            return "the callback said so"
        return next((why for rule in rules if (why := rule(fit))), None)


def asked(every: int, until: Any, callback: Any) -> Asked:
    """Those that a fit is given.

    **Raises** `ProgramError` where they are none.
    """
    rules: Any = [until] if callable(until) else until
    if not isinstance(rules, Iterable) or not all(callable(x) and not isinstance(x, type) for x in rules):
        raise ProgramError(f"fit: until= is a rule, such as ppvi.Plateau(), or a list of them, not {described(until)}.")
    rules = list(rules)
    for rule in rules:
        takes("fit: until=", rule, "fit")
    if callback is not None:
        function("fit: callback=", callback, of=("step", "fit"))
    return Asked(every, rules, callback)
