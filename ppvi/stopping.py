"""When a fit is to stop: rules for `until=`, each a function of the fit so far to the reason, or None."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ppvi.errors import ProgramError


class SoFar(Protocol):
    """What rules look at of a fit."""

    @property
    def losses(self) -> np.ndarray: ...

    @property
    def seconds(self) -> float: ...


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
        if self.window < 2:
            raise ProgramError(f"Plateau: a window has at least 2 steps, not {self.window!r}.")

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

    def __call__(self, fit: SoFar) -> str | None:
        return f"{self.seconds:g} seconds have passed" if fit.seconds >= self.seconds else None
