"""Ratios of times on a noisy machine: contenders take turns, and each round gives one ratio."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def rounds(
    contenders: dict[str, Callable[[], Any]], seconds: float = 12.0, block: float = 0.05
) -> dict[str, np.ndarray]:
    """Seconds per call of each contender, `(round,)`; every round times a block of calls of each, in alternating
    order."""
    calls = {}
    for name, function in contenders.items():
        jax.block_until_ready(function())
        start = time.perf_counter()
        jax.block_until_ready([function() for _ in range(5)])
        calls[name] = max(1, int(block / max((time.perf_counter() - start) / 5, 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order, stop = list(contenders), time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times[order[0]]) < 15:
        order.reverse()
        for name in order:
            start = time.perf_counter()
            for _ in range(calls[name]):
                out = contenders[name]()
            jax.block_until_ready(out)
            times[name].append((time.perf_counter() - start) / calls[name])
    return {name: np.array(x) for name, x in times.items()}


def ratio(times: dict[str, np.ndarray], name: str, to: str) -> str:
    """Median of the ratios by round, with the smallest and the largest."""
    return summary(times[name] / times[to])


def summary(ratios: np.ndarray) -> str:
    """Median, smallest and largest."""
    return f"{np.median(ratios):.3f} [{np.min(ratios):.3f}, {np.max(ratios):.3f}]"


def microseconds(x: np.ndarray) -> str:
    return f"{1e6 * np.median(x):.0f} us"
