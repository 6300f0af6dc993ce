"""Ratios of times on a noisy machine: contenders take turns, and each round gives one ratio."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def rounds(
    contenders: dict[str, Callable[[], Any]],
    seconds: float = 12.0,
    block: float = 0.05,
    least: int = 15,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Seconds per call of each contender, `(round,)`; every round times a block of calls of each, in alternating
    order. There are at least so many rounds. By `time.process_time` they are processor seconds."""
    calls = {}
    for name, function in contenders.items():
        jax.block_until_ready(function())
        once = _seconds(function)
        several = once if once > block else _seconds(lambda: [function() for _ in range(5)]) / 5
        calls[name] = max(1, int(block / max(several, 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order, stop = list(contenders), time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times[order[0]]) < least:
        order.reverse()
        for name in order:
            start = clock()
            for _ in range(calls[name]):
                out = contenders[name]()
            jax.block_until_ready(out)
            times[name].append((clock() - start) / calls[name])
    return {name: np.array(x) for name, x in times.items()}


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def ratio(times: dict[str, np.ndarray], name: str, to: str) -> str:
    """Median of the ratios by round, with the smallest and the largest."""
    return summary(times[name] / times[to])


def summary(ratios: np.ndarray) -> str:
    """Median, smallest and largest."""
    return f"{np.median(ratios):.3f} [{np.min(ratios):.3f}, {np.max(ratios):.3f}]"


def microseconds(x: np.ndarray) -> str:
    return f"{1e6 * np.median(x):.0f} us"
