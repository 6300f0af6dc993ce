"""Averages of iterates: what the parameters of a fit are that is asked whether it has converged.

They are the mean of the unconstrained parameters over the last half of the blocks of steps (Polyak and Juditsky 1992): of
stationary iterates with an sd of s that forget themselves in tau steps it is off by s sqrt(tau / steps) and not by s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ppvi.engine.protocol import Params
from ppvi.engine.trail import Trail
from ppvi.engine.training import State, Trainer

PARTS = 32
"""Averages that are compared."""


@dataclass(frozen=True, eq=False)
class Averages:
    """What the parameters of a fit are averaged over.

    **Attributes**

    - `steps`: how many, which are the last half of all.
    - `iterates`: means of all unconstrained numbers over blocks of these steps, `(block, number)`.
    - `parts`: the parameters averaged over each of the parts of these steps, in order.
    """

    steps: int
    iterates: np.ndarray = field(repr=False)
    parts: list[Params] = field(repr=False)


def with_trail(trainer: Trainer, state: State) -> State:
    """A state with a trail that nothing is in yet."""
    like = ((name, state.arrays[name]) for name in trainer.averages)
    return replace(state, trail=Trail({name: np.zeros((*x.shape, 0), str(x.dtype).split(".")[-1]) for name, x in like}))


def averaged(state: State) -> State:
    """A state whose averages are those over the last half of its steps, of all of its starts."""
    if state.trail is None or not state.trail.blocks:
        return state
    return _with(state, state.trail.recent().mean())


def averages_of(trainer: Trainer, state: State, start: int) -> Averages | None:
    """What the parameters of one start are averaged over; None where there are too few steps."""
    recent = _one(trainer, state, state.trail, start).recent() if state.trail is not None else None
    if recent is None or recent.blocks < PARTS:
        return None
    one = trainer.one(state, start)
    parts = [trainer.params(_with(one, part.mean())) for part in recent.parts(PARTS)]
    return Averages(recent.blocks * recent.width, recent.iterates(), parts)


def restored(trainer: Trainer, state: State, start: int | None = None) -> State:
    """A state of another fit of the same objectives, as one of this; that of one of its starts."""
    if start is None:
        return replace(trainer.restored(state), trail=state.trail)
    trail = None if state.trail is None else _one(trainer, state, state.trail, start)
    return replace(trainer.restored(trainer.one(state, start)), trail=trail)


def _one(trainer: Trainer, state: State, trail: Trail, start: int) -> Trail:
    """The trail of one start."""
    return replace(trail, means=trainer.one(replace(state, arrays=trail.means), start).arrays)


def _with(state: State, averages: Mapping[str, np.ndarray]) -> State:
    return replace(state, arrays={**state.arrays, **averages})
