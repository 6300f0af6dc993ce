"""The course of a fit: its states, one after the other, and what is lost on the way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ppvi._steps import History, Pace
from ppvi.engine.training import Data, State, Trainer


class LostError(Exception):
    """No start of a fit is left.

    **Attributes**

    - `state`: the last good one.
    - `causes`: what was wrong after it.
    """

    def __init__(self, state: State, causes: Sequence[str]):
        super().__init__(state, causes)
        self.state, self.causes = state, causes


def states(
    trainer: Trainer, at: State, last: int, data: Iterator[Data], until: Callable[[int], float]
) -> Iterator[State]:
    """Those after this one, up to so many steps or to the end of the data.

    **Arguments**

    - `data`: of the steps that are taken at once.
    - `until`: of a number of steps, the next one that is a state's.

    **Raises** `LostError`.
    """
    history, pace = History(at.losses), Pace()
    while at.step < last and (each := next(data, None)) is not None:
        n = trainer.agreed(pace.steps(int(min(last, until(at.step))) - at.step))
        after, lost = taken(trainer, at, n, each, history)
        if lost.any():
            after, causes = one_by_one(trainer, at, n, each, history)
            if after.step < at.step + n or not causes:
                raise LostError(after, causes)
            for cause in causes:
                warnings.warn(f"fit: {cause}. The others go on.", stacklevel=4)
        pace.took(n)
        at = after
        yield at


def taken(trainer: Trainer, state: State, n: int, data: Data, history: History) -> tuple[State, np.ndarray]:
    """The state after the next steps, and which starts were lost in them."""
    arrays, losses, fine = trainer.advance(state, n, data)
    lost = ~fine & ~state.lost
    if state.starts > 1:
        gone = (state.lost | (lost & (n == 1))).reshape(1, state.starts, *[1] * (losses.ndim - 2))
        losses = np.where(gone, np.asarray(np.nan, losses.dtype), losses)
    trail = state.trail and state.trail.after(state.step + n, arrays)
    return State(arrays, history.after(state.step, losses), state.starts, trail), lost


def one_by_one(trainer: Trainer, state: State, n: int, data: Data, history: History) -> tuple[State, list[str]]:
    """The state after the next `n` steps, or the last one in which a start is left; and why starts were lost in them."""
    why = []
    for _ in range(n):
        after, lost = taken(trainer, state, 1, data, history)
        for i in map(int, np.flatnonzero(lost)):
            which = f"start {i} of {state.starts} was lost at step {state.step}: " if state.starts > 1 else ""
            cause = trainer.cause(trainer.one(state, i), data) or trainer.problem(trainer.one(after, i))
            why.append(f"{which}{cause}")
        if (state.lost | lost).all():
            break
        state = after
    return state, why
