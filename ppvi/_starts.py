"""Several starts of a fit: which of them leads, which are lost, and which is kept.

They are compared on the same draws, so that of two bounds only the difference is noisy, and on draws that no step has seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ppvi.engine.training import Data, State, Trainer

ROUND, MOST = 100, 1000
"""Draws that are taken before the starts are compared again, and in all."""

SHOWN = 20
"""Starts that are printed."""

LEAD = 4.0
"""Standard errors that tell two starts apart."""


@dataclass(frozen=True)
class Chosen:
    """The start of a fit that is kept, and what all of them have reached.

    **Attributes**

    - `start`: its number.
    - `losses`: mean losses of the first objective in fresh draws, `(start,)`; minus what was maximised, NaN of a lost start.
    - `errors`: their standard errors.
    """

    start: int
    losses: np.ndarray
    errors: np.ndarray
    draws: int

    def __str__(self) -> str:
        others = [
            f"{'lost' if np.isnan(loss) else f'{loss:.5g}'} ({i})"
            for i, loss in enumerate(self.losses)
            if i != self.start
        ]
        mine = f"{self.losses[self.start]:.5g} +- {self.errors[self.start]:.1g}"
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        return (
            f"start {self.start} of {len(self.losses)} was kept, whose loss is {mine} in {self.draws} fresh estimates; the "
            f"others' are {', '.join(others[:SHOWN])}{more}"
        )


def leading(state: State) -> int:
    """The start whose last losses of the first objective are the lowest on average."""
    if not state.step:
        return 0
    recent = state.losses[-min(state.step, ROUND) :].reshape(-1, state.starts, state.losses[0].size // state.starts)
    return int(np.argmin(np.where(state.lost, np.inf, recent[:, :, 0].mean(0))))


def chosen(trainer: Trainer, state: State, data: Iterator[tuple[Data, int]]) -> Chosen:
    """Draw until one start is ahead of all others, by several standard errors of the difference, or there are as many draws as
    steps, or `MOST`.

    **Arguments**

    - `data`: with the number of draws that each is for.
    """
    found, lost, most = np.zeros((0, state.starts)), state.lost, min(MOST, max(ROUND, state.step))
    while True:
        wanted = len(found) + ROUND
        while len(found) < wanted:
            on_data, n = next(data)
            found = np.concatenate([found, trainer.estimates(state, range(len(found), len(found) + n), on_data)])
        with np.errstate(invalid="ignore"):
            means = found.mean(0)
            best = int(np.argmin(np.where(lost, np.inf, np.nan_to_num(means, nan=np.finfo(float).max))))
            behind = found - found[:, [best]]
            clear = behind.mean(0) > LEAD * behind.std(0, ddof=1) / np.sqrt(len(found))
            errors = found.std(0, ddof=1) / np.sqrt(len(found))
        clear |= lost
        clear[best] = True
        if clear.all() or len(found) >= most:
            return Chosen(trainer.agreed(best), np.where(lost, np.nan, means), errors, len(found))
