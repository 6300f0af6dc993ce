"""What is shown of the records of `benchmarks.posteriors`: a section of RESULTS.md, POSTERIORS.md and a figure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.posterior_records import Records

HERE = Path(__file__).parent
FIGURE = HERE / "curves" / "posteriors.png"
BEGIN, END = "<!-- what benchmarks.posteriors writes -->", "<!-- until here -->"
PLACES = "By posterior, the median W1, bold where it is at most 0.15, and the median seconds of the first call:"
GOOD, FAIR = 0.15, 0.3
MARKS = {
    "approximate": ("*", "#d62728"),
    "fit": ("o", "#ff7f0e"),
    "NumPyro SVI": ("s", "#bcbd22"),
    "Pyro SVI": ("D", "#8c564b"),
    "PyMC ADVI": ("v", "#1f77b4"),
    "PyMC DADVI": ("^", "#17becf"),
    "PyMC Pathfinder": ("P", "#9467bd"),
    "BlackJAX Pathfinder": ("X", "#e377c2"),
    "NUTS": ("+", "#333333"),
}
TITLE = """# Fifteen posteriors: all ways

`python -m benchmarks.posteriors --table` writes this page. Errors are medians over the runs, and in brackets the worst, of the
worst marginal in sds of the reference; seconds are medians. See [RESULTS.md](RESULTS.md)."""


@dataclass(frozen=True)
class Cell:
    """The runs of one way to one posterior."""

    runs: Sequence[dict[str, Any]]

    def numbers(self, field: str) -> np.ndarray:
        """By run; infinite where it has failed."""
        return np.array([math.inf if run.get(field) is None else run[field] for run in self.runs])

    def median(self, field: str) -> float:
        return float(np.median(self.numbers(field))) if self.runs else math.nan

    def error(self, field: str) -> str:
        """The median, and the worst in brackets."""
        return f"{number(self.median(field))} ({number(self.numbers(field).max())})"


def number(x: float) -> str:
    return "failed" if not math.isfinite(x) else f"{x:.2f}" if x < 9.995 else f"{x:.0f}" if x < 1e4 else f"{x:.0e}"


def seconds(x: float) -> str:
    return "" if not math.isfinite(x) else f"{x:.2g}" if x < 1 else f"{x:.1f}" if x < 9.95 else f"{x:.0f}"


Cells = dict[tuple[str, str], Cell]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def draw(records: Records, names: Sequence[str], ways: Sequence[str]) -> None:
    """Write all of it."""
    found = {
        (name, way): Cell([run for key, run in sorted(records.items()) if key[:2] == (name, way)])
        for name in names
        for way in ways
    }
    cells = {where: cell for where, cell in found.items() if cell.runs}
    if not cells:
        return
    figure(cells, names).savefig(FIGURE, dpi=110)
    page = HERE / "RESULTS.md"
    told = [BEGIN, summary(cells, ways), PLACES, grid(cells, names, ways), *versions(records), END]
    page.write_text(replaced(page.read_text(), "\n\n".join(told)))
    (HERE / "POSTERIORS.md").write_text("\n\n".join([TITLE, whole(cells), *failures(records, ways)]) + "\n")


def replaced(page: str, told: str) -> str:
    """The page with what is told between the marks."""
    before, _, rest = page.partition(BEGIN)
    return before + told + rest.partition(END)[2]


# Tables -------------------------------------------------------------------------------------------------------------------


def summary(cells: Cells, ways: Sequence[str]) -> str:
    """By way, over the posteriors."""
    header = ["way", f"W1 ≤ {GOOD}", f"W1 ≤ {FAIR}", "of", "seconds", "again", "runs", "failed"]
    rows = []
    for way in ways:
        own = [cell for (_, x), cell in cells.items() if x == way]
        if own:
            w1 = np.array([cell.median("w1") for cell in own])
            runs = [run for cell in own for run in cell.runs]
            took = [middle([cell.median(field) for cell in own]) for field in ("seconds", "again")]
            failed = sum(run.get("w1") is None for run in runs)
            rows.append([way, *(str((w1 <= x).sum()) for x in (GOOD, FAIR)), str(len(own)), *map(seconds, took)])
            rows[-1] += [str(len(runs)), str(failed)]
    return markdown(header, rows)


def middle(numbers: Sequence[float]) -> float:
    """The median of those that there are."""
    finite = [x for x in numbers if math.isfinite(x)]
    return float(np.median(finite)) if finite else math.nan


def grid(cells: Cells, names: Sequence[str], ways: Sequence[str]) -> str:
    """Posteriors by ways: the median W1, and the median seconds with compilation."""

    def told(name: str, way: str) -> str:
        cell = cells.get((name, way))
        if cell is None:
            return ""
        w1 = cell.median("w1")
        took = seconds(cell.median("seconds"))
        return f"{f'**{number(w1)}**' if w1 <= GOOD else number(w1)}{f', {took} s' if took else ''}"

    return markdown(["posterior", *ways], [[short(name), *(told(name, way) for way in ways)] for name in names])


def whole(cells: Cells) -> str:
    header = ["posterior", "way", "runs", "mean error", "log sd ratio", "W1", "seconds", "again"]
    return markdown(
        header,
        [
            [name, way, str(len(cell.runs))]
            + [cell.error(field) for field in ("mean_error", "log_sd_ratio", "w1")]
            + [seconds(cell.median(field)) for field in ("seconds", "again")]
            for (name, way), cell in cells.items()
        ],
    )


def failures(records: Records, ways: Sequence[str]) -> Iterator[str]:
    """By way and reason, the runs that failed."""
    failed = [(key.way, run["error"], key) for key, run in records.items() if run["error"]]
    if failed:
        yield "## What failed"
    for (way, error), group in groupby(sorted(failed, key=lambda x: (ways.index(x[0]), *x[1:])), lambda x: x[:2]):
        seeds: dict[str, list[str]] = {}
        for *_, key in group:
            seeds.setdefault(key.posterior, []).append(str(key.seed))
        where = "; ".join(f"{name} ({', '.join(each)})" for name, each in seeds.items())
        yield f"- {way}: {error}. By posterior (seeds): {where}."


def versions(records: Records) -> Iterator[str]:
    found = {
        f"{name} {version}"
        for run in records.values()
        for name, version in run.get("versions", {}).items()
        if name != "ppvi"
    }
    yield f"Versions: {', '.join(sorted(found))}."


def short(name: str) -> str:
    """Its model's name, by which the fifteen differ."""
    return name.partition("-")[2]


# Figure -------------------------------------------------------------------------------------------------------------------

LOWEST, HIGHEST = 0.01, 30.0


def figure(cells: Cells, names: Sequence[str]) -> plt.Figure:
    """Accuracy against seconds: the lower and the further to the left, the better."""
    drawn, axes = plt.subplots(4, 4, figsize=(15, 13), sharex=True, sharey=True, constrained_layout=True)
    for axis, name in zip(axes.flat, names, strict=False):
        axis.axhspan(LOWEST, GOOD, color="0.94", zorder=0)
        for way, (mark, colour) in MARKS.items():
            if (name, way) in cells:
                point(axis, cells[name, way], mark, colour)
        axis.set_title(short(name), fontsize=10)
        axis.set(xscale="log", yscale="log", ylim=(LOWEST, HIGHEST * 1.3))
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3, which="major")
    legend = axes.flat[-1]
    legend.axis("off")
    handles = [legend.plot([], [], mark, color=colour, ms=9, label=way)[0] for way, (mark, colour) in MARKS.items()]
    legend.legend(handles=handles, loc="center", frameon=False, fontsize=11)
    for axis in axes[:, 0]:
        axis.set_ylabel("worst W1, sds")
    for axis in axes[-1, :-1]:
        axis.set_xlabel("processor seconds")
    return drawn


def point(axis: plt.Axes, cell: Cell, mark: str, colour: str) -> None:
    """The median of the runs, a bar up to the worst, and a line to the seconds without compilation."""
    w1, took, again = (cell.median(field) for field in ("w1", "seconds", "again"))
    if math.isfinite(w1) and math.isfinite(took):
        y, worst = np.clip([w1, min(cell.numbers("w1").max(), HIGHEST)], LOWEST * 1.1, HIGHEST)
        axis.plot([took, took], [y, worst], color=colour, lw=1, alpha=0.6)
        axis.plot([took, again if math.isfinite(again) else took], [y, y], color=colour, lw=1, alpha=0.6)
        axis.plot(took, y, mark, color=colour, ms=10 if mark == "*" else 7, zorder=3)
