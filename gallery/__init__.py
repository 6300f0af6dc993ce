"""What the pages of the gallery share: their entry in the table, the two modes, and what a full run leaves behind.

    ENTRY = Entry(name="vae", system="Auto-Encoding Variational Bayes", ...)
    steps = choose(quick=50, full=10_000)
    ...
    ENTRY.record("-89.1 ± 0.1 nats", seeds=SEEDS, steps=steps, bound=[-89.0, -89.2])

A page runs in *quick* mode unless the environment has `PPVI_GALLERY=full`, as `make gallery NAME=vae` has. Only a full run
records: numbers into `tutorials/gallery/results/NAME.json`, a figure beside it. The table is made of both (`gallery.table`).
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

PAGES = Path(__file__).parents[1] / "tutorials" / "gallery"
RESULTS = PAGES / "results"
FULL = os.environ.get("PPVI_GALLERY", "quick") == "full"
PACKAGES = ("ppvi", "jax", "numpyro", "torch", "pyro-ppl")


def choose(quick: T, full: T) -> T:
    """What this mode needs of the two."""
    return full if FULL else quick


@dataclass(frozen=True)
class Entry:
    """A row of the gallery's table, which a page states at its top, in literals.

    **Attributes**

    - `name`: that of the page, its model and its results.
    - `system`: the paper's title, or what the system is called.
    - `family`, `engine`, `objective`, `strategies`: what it is, on which library, trained by what.
    - `shows`: what a reader sees here.
    - `paper`: authors and year; `link`: where the paper is.
    """

    name: str
    system: str
    family: str
    engine: str
    objective: str
    strategies: str
    shows: str
    paper: str
    link: str
    _began: float = field(default_factory=time.process_time, repr=False, compare=False)

    @property
    def recorded(self) -> dict[str, Any]:
        """The numbers of the last full run; none before the first."""
        path = RESULTS / f"{self.name}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def record(self, result: str, *, seeds: Sequence[int], steps: int, **numbers: Any) -> None:
        """Keep what a full run gave; in quick mode, say what the last one gave.

        **Arguments**

        - `result`: the claim's number in a few words, for the table.
        - `numbers`: arrays, numbers, or dicts and lists of them.
        """
        if not FULL:
            print(f"{self.name}, last full run: {self.recorded.get('result', 'none yet')}")
            return
        seconds = round(time.process_time() - self._began)
        about = {"seeds": list(seeds), "steps": steps, "seconds": seconds, "versions": _versions()}
        text = json.dumps({"result": result, **about, "numbers": plain(numbers)}, indent=1, ensure_ascii=False)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{self.name}.json").write_text(text + "\n")

    def picture(self, figure: Any) -> None:
        """Keep a figure of a full run beside its numbers."""
        if FULL:
            figure.savefig(RESULTS / f"{self.name}.png", dpi=90)


def show(*programs: Callable[..., Any]) -> None:
    """Print programs as they are written; of one under a handler or with arguments filled in, the program itself."""
    print("\n\n".join(inspect.getsource(_written(program)).rstrip() for program in programs))


def _written(program: Any) -> Any:
    inner = getattr(program, "fn", None) or getattr(program, "func", None)
    return _written(inner) if inner else program


def mean_se(values: Any) -> tuple[float, float]:
    """Mean and standard error over independent values, such as seeds; the error of a single one is not known."""
    x = np.asarray(values, np.float64)
    return float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else float("nan")


def said(values: Any, digits: int = 2) -> str:
    """Mean ± standard error, as text."""
    mean, error = mean_se(values)
    return f"{mean:.{digits}f}" + ("" if np.isnan(error) else f" ± {error:.{digits}f}")


def plain(x: Any) -> Any:
    """Arrays as lists and numbers to five digits, as JSON has them."""
    if isinstance(x, dict):
        return {str(name): plain(value) for name, value in x.items()}
    if isinstance(x, str | bool | None):
        return x
    if isinstance(x, int | np.integer):
        return int(x)
    if np.ndim(x):
        return [plain(value) for value in x]
    return float(f"{float(x):.5g}")


def _versions() -> dict[str, str]:
    found = {x.metadata["Name"]: x.version for x in importlib.metadata.distributions()}
    return {name: found[name] for name in PACKAGES if name in found}
