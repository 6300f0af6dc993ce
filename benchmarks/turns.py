"""Contenders in processes of their own, which take turns: only one works at a time, and each round gives one ratio.

A contender is a program that calls `serve` with its step. It needs nothing of this project, so that it can run in the
environment of another library.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def serve(step: Callable[[], Any], started: float) -> None:
    """Answer each number on the standard input with the seconds per call of so many calls, `step` returning when it is done.

    The first answer is how long it took from `started` until the first call was done.
    """
    step()
    _say({"first": time.perf_counter() - started})
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        _say({"seconds": (time.perf_counter() - start) / int(line)})


def _say(answer: dict[str, float]) -> None:
    print(json.dumps(answer), flush=True)


class Contender:
    """A process that serves steps."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(env)
        )
        self.first = self._answer()["first"]

    def seconds(self, calls: int) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        return self._answer()["seconds"]

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.process.args} ended: what it said is above")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def rounds(contenders: Mapping[str, Contender], number: int, seconds: float) -> dict[str, list[float]]:
    """Seconds per call of each contender in each round; in a round each works for about so many seconds, in turn."""
    calls = {name: max(1, round(seconds / contender.seconds(2))) for name, contender in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(number):
        order.reverse()
        for name in order:
            times[name].append(contenders[name].seconds(calls[name]))
    return times
