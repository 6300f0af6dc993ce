"""What a contender does with what it is asked for; it needs NumPy alone."""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(os.environ.get("PPVI_DATA", "../shared/data")) / "posteriordb"
DRAWS = 4000
LIMIT = 300
"""Processor seconds of a call."""

Draws = Mapping[str, Any]
"""By site, of shape `(draw, *shape)`."""
Way = Callable[[str, dict[str, Any]], Callable[[int], Draws]]
"""From the name of a posterior and its data to what draws from it with a seed."""


def data_of(name: str) -> dict[str, Any]:
    with zipfile.ZipFile(DATA / name / "data.json.zip") as archive:
        data = json.loads(archive.read(archive.namelist()[0]))
    return {key: np.asarray(x) if isinstance(x, list) else x for key, x in data.items()}


def processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(x.ru_utime + x.ru_stime for x in used)


def serve(
    ways: Mapping[str, Way],
    packages: Sequence[str],
    log_density: Callable[..., list[float]] | None = None,
    *,
    compiles: bool = True,
) -> None:
    """Go one way to one posterior, twice; or tell the log density at points.

    The first call counts what it takes to build and compile the model. The second, with another seed, tells what it takes
    without, unless nothing is compiled. Imports are counted in neither. What the first has found is written before the second
    begins, which may take too long.
    """
    way, name, *rest = sys.argv[1:]
    data = data_of(name)
    if way == "check":
        assert log_density is not None
        with np.load(rest[0]) as points:
            print(json.dumps(log_density(name, data, dict(points))))
        return
    seed, file = int(rest[0]), rest[1]
    versions = {x: importlib.metadata.version(x) for x in packages}

    def begin():
        draw = ways[way](name, data)
        return draw, arrays(draw(seed))

    (draw, draws), seconds = timed(begin)
    kept = {f"draws/{key}": x for key, x in draws.items()} | {"versions": json.dumps(versions)}
    np.savez(file, seconds=[seconds, np.nan if compiles else seconds], **kept)
    if compiles:
        _, again = timed(lambda: arrays(draw(seed + 1000)))
        np.savez(file, seconds=[seconds, again], **kept)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What work returns, and its processor seconds; past the limit the system ends the process."""
    used, (_, hard) = resource.getrusage(resource.RUSAGE_SELF), resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + LIMIT, hard))
    began = processor_seconds()
    found = work()
    return found, processor_seconds() - began


def arrays(draws: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Which waits for them."""
    return {name: np.asarray(x) for name, x in draws.items()}
