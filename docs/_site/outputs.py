"""What the code of pages prints and draws, run where a page or what it runs on has changed, several pages at a time."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "docs" / "_built"
"""Outputs, figures and pages that are made; nothing in it is kept in the repository."""
CODE = ("ppvi", "models", "guides", "docs/_site")
LIBRARIES = ("jax", "numpyro", "torch", "pyro-ppl", "matplotlib")


class Failure(NamedTuple):
    """A page whose code has failed, and the end of what it said."""

    page: Path
    said: str


def output_of(page: Path) -> Path:
    """The file of what a page has printed."""
    return BUILT / ("_".join(page.relative_to(ROOT).with_suffix("").parts) + ".json")


def outputs(page: Path) -> list[dict[str, Any]]:
    """Of each cell that runs what it has printed, and its figures."""
    return json.loads(output_of(page).read_text())


def run_outdated(pages: Iterable[Path], jobs: int) -> list[Failure]:
    """Run every page that is not as it was when it ran last; those that fail."""
    BUILT.mkdir(exist_ok=True)
    beneath = _digest(path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py")))
    versions = " ".join(map(version, LIBRARIES))
    due = []
    for page in pages:
        mark = f"{beneath} {versions} {_digest([page])}"
        if not (output_of(page).exists() and _mark(page).exists() and _mark(page).read_text() == mark):
            due.append((page, mark))
    with ThreadPoolExecutor(jobs) as pool:
        done = list(pool.map(_run, due))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"ran {len(due)} pages, which took {used.ru_utime + used.ru_stime:.0f} s of processor time", flush=True)
    took = ((seconds, page.name) for (page, _), (seconds, _) in zip(due, done, strict=True))
    slowest = sorted(took, reverse=True)[:5]
    print("the longest:", ", ".join(f"{name} {seconds:.0f} s" for seconds, name in slowest) or "none", flush=True)
    return [failure for _, failure in done if failure is not None]


def _run(due: tuple[Path, str]) -> tuple[float, Failure | None]:
    """How long it took, and whether it has failed."""
    began = time.perf_counter()
    failure = _outcome(*due)
    return time.perf_counter() - began, failure


def _outcome(page: Path, mark: str) -> Failure | None:
    print(f"running {page.relative_to(ROOT)}", flush=True)
    command = [sys.executable, str(ROOT / "docs" / "_site" / "run.py"), str(page), str(output_of(page))]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return Failure(page, done.stderr[-4000:])
    _mark(page).write_text(mark)
    return None


def _mark(page: Path) -> Path:
    return output_of(page).with_suffix(".run")


def _digest(paths: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()
