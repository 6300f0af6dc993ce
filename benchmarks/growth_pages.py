"""What is shown of the records of `benchmarks.growth`: a section of RESULTS.md and a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.posterior_pages import markdown
from benchmarks.posterior_records import Records

HERE = Path(__file__).parent
FILE, FIGURE = HERE / "curves" / "growth.jsonl", HERE / "curves" / "growth.png"
BEGIN, END = "<!-- what benchmarks.growth writes -->", "<!-- that was growth -->"
OURS, HAND = "ppvi", "by hand"
MARKS = {OURS: ("o", "#d62728"), HAND: ("s", "#333333"), "NumPyro": ("^", "#bcbd22")}


class Key(NamedTuple):
    axis: str
    size: int


class Slope(NamedTuple):
    """Of logarithms, by least squares, with its standard error."""

    slope: float
    error: float

    def __str__(self) -> str:
        if math.isnan(self.slope):
            return ""
        return f"{self.slope:.2f}" + ("" if math.isnan(self.error) else f" ± {self.error:.2f}")


Runs = Sequence[tuple[int, Mapping[str, Any]]]
"""Sizes of an axis with their records, from small to large."""


def slope(sizes: Sequence[float], values: Sequence[float]) -> Slope:
    """Over the upper half of the sizes, the middle one among them."""
    upper = len(sizes) // 2
    x, y = np.log(sizes[upper:]), np.log(values[upper:])
    if len(x) < 2:
        return Slope(math.nan, math.nan)
    x, y = x - x.mean(), y - y.mean()
    found = (x @ y) / (x @ x)
    freedom = len(x) - 2
    error = math.sqrt(((y - found * x) ** 2).sum() / freedom / (x @ x)) if freedom else math.nan
    return Slope(float(found), error)


def runs_of(records: Records, axis: str) -> Runs:
    """Those that were measured."""
    return [(key.size, run) for key, run in sorted(records.items()) if key.axis == axis and "ratio" in run]


def curve(runs: Runs, who: str, field: str) -> tuple[list[int], list[float]]:
    """The sizes and values of one field of one contender; of two names joined by +, their sum."""
    names = field.split("+")
    have = [(size, sum(run[who][name] for name in names)) for size, run in runs if set(names) <= set(run.get(who, {}))]
    return [size for size, _ in have], [value for _, value in have]


def draw(records: Records, axes: Sequence[str]) -> None:
    """Write all of it."""
    found = {axis: runs for axis in axes if (runs := runs_of(records, axis))}
    if not found:
        return
    figure(found).savefig(FIGURE, dpi=100)
    page = HERE / "RESULTS.md"
    before, _, rest = page.read_text().partition(BEGIN)
    tables = seconds_table(found), bytes_table(found), peers_table(found)
    page.write_text(before + "\n\n".join([BEGIN, *filter(None, tables), END]) + rest.partition(END)[2])


# Tables -------------------------------------------------------------------------------------------------------------------


def seconds_table(found: Mapping[str, Runs]) -> str:
    header = ["axis", "sizes", "slope of ppvi", "by hand", "seconds at the largest", "ppvi / by hand there", "at most"]
    rows = []
    for panel in panels_of(found):
        runs = found[panel.axis]
        sizes, ours = curve(runs, OURS, panel.field)
        theirs = curve(runs, HAND, panel.field)[1]
        ratios = [x / y for x, y in zip(ours, theirs, strict=True)]
        if panel.field == "seconds":
            ratios = [run["ratio"] for _, run in runs]
        worst = int(np.argmax(ratios))
        row = [
            panel.title,
            f"{short(sizes[0])} to {short(sizes[-1])}",
            str(slope(sizes, ours)),
            str(slope(sizes, theirs)),
        ]
        if panel.field != "bytes":
            rows.append([*row, took(ours[-1]), f"{ratios[-1]:.2f}", f"{ratios[worst]:.2f} at {short(sizes[worst])}"])
    return markdown(header, rows)


def bytes_table(found: Mapping[str, Runs]) -> str:
    """At the largest size: arguments, results and temporary arrays."""
    header = ["axis", "size", "bytes at the peak", "ppvi / by hand", "temporary alone", "the first at most"]
    rows = []
    for axis, runs in found.items():
        if "bytes" in runs[-1][1][OURS]:
            size, last = runs[-1]
            whole, temporary = (last[OURS][x] / max(last[HAND][x], 1) for x in ("bytes", "temporary"))
            ratios = [run[OURS]["bytes"] / run[HAND]["bytes"] for _, run in runs]
            worst = int(np.argmax(ratios))
            at = f"{ratios[worst]:.2f} at {short(runs[worst][0])}"
            rows.append([axis, short(size), of_bytes(last[OURS]["bytes"]), f"{whole:.2f}", f"{temporary:.2f}", at])
    return markdown(header, rows) if rows else ""


def peers_table(found: Mapping[str, Runs]) -> str:
    header = ["axis", "processes", "rows each", "a step", "over one process", "by hand", "bytes moved", "by hand "]
    rows = []
    for axis, runs in found.items():
        one = runs[0][1]
        if "moved" in one[OURS]:
            for n, run in runs:
                over = (f"{run[who]['seconds'] / one[who]['seconds']:.2f}" for who in (OURS, HAND))
                bytes_moved = (f"{run[who]['moved']} in {run[who]['moves']}" for who in (OURS, HAND))
                rows.append([axis, str(n), f"{run['rows']:,}", took(run[OURS]["seconds"]), *over, *bytes_moved])
    return markdown(header, rows) if rows else ""


def short(n: float) -> str:
    """A size, in words from a million on."""
    return f"{n:,.0f}" if n < 1e6 else f"{n / 1e6:g} million"


def took(x: float) -> str:
    return f"{1e6 * x:.0f} us" if x < 1e-3 else f"{1e3 * x:.3g} ms" if x < 1 else f"{x:.3g} s"


def of_bytes(x: float) -> str:
    return (
        f"{x:.0f} B"
        if x < 1e3
        else f"{x / 1e3:.3g} kB"
        if x < 1e6
        else f"{x / 1e6:.3g} MB"
        if x < 1e9
        else f"{x / 1e9:.3g} GB"
    )


# Figure -------------------------------------------------------------------------------------------------------------------


class Panel(NamedTuple):
    axis: str
    field: str
    title: str


def panels_of(found: Mapping[str, Runs]) -> list[Panel]:
    """One of each axis; where it matters, one of the first call or of the bytes, too."""
    panels = []
    for axis in found:
        panels.append(Panel(axis, "seconds", axis))
        if axis.startswith("sites"):
            panels.append(Panel(axis, "traced+compiled", f"{axis}: first call"))
        if axis.startswith("parameters"):
            panels.append(Panel(axis, "bytes", f"{axis}: peak"))
    return panels


def figure(found: Mapping[str, Runs]) -> plt.Figure:
    """Seconds, or bytes, against sizes, with slopes."""
    panels = panels_of(found)
    columns = 4
    count = math.ceil(len(panels) / columns)
    drawn, axes = plt.subplots(count, columns, figsize=(16, 3.5 * count), constrained_layout=True, squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        slopes = []
        for who, (mark, colour) in MARKS.items():
            sizes, values = curve(found[panel.axis], who, panel.field)
            if sizes:
                filled = colour if who == OURS else "none"
                axis.plot(sizes, values, marker=mark, color=colour, mfc=filled, ms=6, lw=1.2, label=who)
                slopes.append(f"{who} {slope(sizes, values)}")
        axis.set_title(f"{panel.title}\n{'; '.join(slopes)}", fontsize=9 if len(slopes) < 3 else 7.5)
        axis.set(xscale="log", yscale="log", ylabel="bytes" if panel.field == "bytes" else "seconds")
        axis.grid(alpha=0.3)
        if panel.axis.startswith("processes"):
            axis.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"], minor=False)
            axis.minorticks_off()
        low, high = axis.get_ylim()
        if high < 20 * low:
            axis.set_ylim(low / 4, high * 4)
    for axis in list(axes.flat)[len(panels) :]:
        axis.axis("off")
    handles = [plt.Line2D([], [], marker=mark, color=colour, label=who) for who, (mark, colour) in MARKS.items()]
    axes[0, 0].legend(handles=handles, frameon=False, fontsize=9)
    return drawn
