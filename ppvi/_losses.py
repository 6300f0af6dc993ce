"""How the losses of a fit have gone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def change_of(losses: Any) -> float | None:
    """The change of the mean loss between the last two tenths of the steps that exceeds three standard errors, or 0."""
    if losses is None or len(losses) < 40:
        return None
    per_step = np.asarray(losses, float).reshape(len(losses), -1).sum(-1)
    tenth = len(per_step) // 10
    before, last = per_step[-2 * tenth : -tenth], per_step[-tenth:]
    if not np.isfinite(per_step[-2 * tenth :]).all():
        return None
    error = math.sqrt((before.var() + last.var()) / tenth)
    change = float(last.mean() - before.mean())
    return change if abs(change) > 3 * error else 0.0


def trends(losses: np.ndarray) -> list[str]:
    """Of each objective: its first loss, and the mean over the last tenth of the steps with its standard error."""
    found = []
    for column in losses.reshape(len(losses), -1).T:
        recent, change = column[-max(len(column) // 10, 1) :].astype(float), change_of(column)
        moving = f", still {'falling' if change < 0 else 'rising'}" if change else ""
        error = recent.std() / math.sqrt(len(recent))
        found.append(f"{column[0]:.5g} -> {recent.mean():.5g} +- {error:.1g}{moving}")
    return found


def converged(losses: np.ndarray) -> str:
    """Whether the losses have settled, in words that begin with yes, no or unknown."""
    change = change_of(losses)
    if change is None:
        return "unknown: fewer than 40 steps, or losses that are not finite"
    if not change:
        return "yes: the mean loss of the last tenth of the steps is that of the tenth before, but for noise"
    way = "falling" if change < 0 else "rising"
    return f"no: the loss was still {way}, by {abs(change):.3g} over the last tenth of the steps"


def smoothed(losses: np.ndarray, points: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses of one objective in windows of equal numbers of steps, `points` at most of twenty steps or more: the step in the
    middle of each, its mean and the mean's standard error."""
    width = max(math.ceil(len(losses) / points), min(20, len(losses)))
    n = len(losses) // width
    windows = losses[len(losses) - n * width :].astype(float).reshape(n, width)
    middles = len(losses) - n * width + width * (np.arange(n) + 0.5)
    return middles, windows.mean(1), windows.std(1) / math.sqrt(width)
