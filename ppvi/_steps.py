"""The steps of a fit: what data each has, how many are taken at once, and what their losses were."""

from __future__ import annotations

import itertools
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppvi._doors import described
from ppvi.engine.training import CHUNK
from ppvi.errors import ProgramError


class Stream(Iterator[tuple[Any, ...]]):
    """The arguments of one step after the other."""

    def __init__(self, batches: Iterable[Any], step: int, engine: str):
        if not isinstance(batches, Iterable) or isinstance(batches, str | bytes | Mapping):
            raise ProgramError(
                f"fit: batches= must be something to iterate over, such as a list of batches or a DataLoader, not "
                f"{described(batches)}."
            )
        if len(getattr(batches, "shape", ())) == 1:
            warnings.warn(
                f"fit: batches= is {described(batches)}, so that each step is given one number of it: for steps on all of "
                f"them pass the argument by position, or batches=[y].",
                stacklevel=3,
            )
        self._once = once = isinstance(batches, Iterator)
        rounds = [batches] if once else itertools.repeat(batches)
        self._batches = itertools.chain.from_iterable(_not_empty(each) for each in rounds)
        skipped = 0 if once else step % _length(batches) if step else 0
        self._batches = itertools.islice(self._batches, skipped, None)
        self._foreign = "torch" if engine == "numpyro" else ""
        self._ahead: list[tuple[Any, ...]] = []

    def refuse_once(self, why: str) -> None:
        """Batches that are gone through once only are refused."""
        if self._once:
            raise ProgramError(
                f"fit: {why}, and batches= is an iterator, which gives each batch once: give a list or a DataLoader."
            )

    def first(self) -> tuple[Any, ...]:
        """The arguments of the step to come."""
        batch = next(self, None)
        if batch is None:
            raise ProgramError("fit: batches= gives nothing.")
        self._ahead.append(batch)
        return batch

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self

    def __next__(self) -> tuple[Any, ...]:
        if self._ahead:
            return self._ahead.pop()
        batch = next(self._batches)
        parts = batch if isinstance(batch, list | tuple) else (batch,)
        return tuple(x.numpy() if type(x).__module__ == self._foreign else x for x in parts)


def _length(batches: Iterable[Any]) -> int:
    """How many there are, if they know; else more than anybody goes through."""
    try:
        return len(batches) or 1  # type: ignore[arg-type]
    except TypeError:
        return sys.maxsize


def _not_empty(batches: Iterable[Any]) -> Iterator[Any]:
    empty = True
    for batch in batches:
        empty = False
        yield batch
    if empty:
        raise ProgramError("fit: batches= gives nothing.")


@dataclass
class Pace:
    """How many steps to take at once: as many as take a quarter of a second, which makes no difference to their numbers."""

    n: int = 1
    began: float = field(default_factory=time.monotonic)

    def steps(self, left: int) -> int:
        self.began = time.monotonic()
        return min(self.n, left)

    def took(self, n: int) -> None:
        seconds = max(time.monotonic() - self.began, 1e-9)
        self.n = min(max(int(n * 0.25 / seconds), 1), 8 * self.n, CHUNK)


class History:
    """The losses of one fit, in memory that grows by doubling; what it has given away stays as it is."""

    def __init__(self, losses: np.ndarray):
        self._rows = losses.copy()

    def after(self, step: int, losses: np.ndarray) -> np.ndarray:
        """All losses, with these after so many steps."""
        end = step + len(losses)
        if end > len(self._rows):
            grown = np.empty((max(2 * len(self._rows), end), *losses.shape[1:]), losses.dtype)
            grown[:step] = self._rows[:step]
            self._rows = grown
        self._rows[step:end] = losses
        return self._rows[:end]
