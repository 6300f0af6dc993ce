"""When a fit is to stop: rules for `until=`, each a function of the fit so far to the reason, or None."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ppvi._doors import count, described, function, number, takes
from ppvi.errors import ProgramError


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
class Asked:
    """Who may stop a fit."""

    every: int
    rules: Sequence[Rule]
    callback: Callback | None

    def next(self, step: int) -> float:
        """The step at which they want to be asked after this one; however many are taken at once, it is the same."""
        asks = self.callback is not None or not all(isinstance(rule, TimeLimit) for rule in self.rules)
        return step - step % self.every + self.every if asks else math.inf

    def __call__(self, step: int, so_far: Callable[[], SoFar]) -> str | None:
        """Why the fit is to stop, if it is."""
        due = step % self.every == 0
        rules = [rule for rule in self.rules if due or isinstance(rule, TimeLimit)]
        if not rules and not (due and self.callback):
            return None
        fit = so_far()
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
