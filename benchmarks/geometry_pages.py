"""What is shown of the records of `benchmarks.geometry`: a section of RESULTS.md and a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.posterior_pages import markdown, middle, number, seconds, short
from benchmarks.posterior_records import Records

HERE = Path(__file__).parent
FILE, FIGURE = HERE / "curves" / "geometry.jsonl", HERE / "curves" / "geometry.png"
BEGIN, END = "<!-- what benchmarks.geometry writes -->", "<!-- that was geometry -->"
ADAM, APPROXIMATE = "Adam", "approximate"
NAT = 1.0
COLOURS = {
    "Adam": "#ff7f0e",
    "Natural": "#d62728",
    "BuresWasserstein": "#1f77b4",
    "Proximal": "#2ca02c",
}


class Cell(NamedTuple):
    """One way to one posterior."""

    gradients: float
    """To within a nat; infinite where it was never."""
    w1: float
    seconds: float
    gaps: Sequence[float]
    """Nats to the best bound, by step."""


Cells = Mapping[str, Mapping[str, Cell]]
"""By posterior and way."""


def cells(records: Records, names: Sequence[str], steps: Sequence[int]) -> dict[str, dict[str, Cell]]:
    """Of Adam's step sizes the one that was near first."""
    found: dict[str, dict[str, Cell]] = {}
    for name in names:
        own = {key.way: record for key, record in sorted(records.items()) if key.posterior == name}
        best = max((x for record in own.values() for x in record["bounds"] if math.isfinite(x)), default=math.nan)
        for way, record in own.items():
            if way != APPROXIMATE:
                of = ADAM if way.startswith(ADAM) else way
                cell = cell_of(record, best, steps)
                before = found.setdefault(name, {}).get(of)
                if before is None or rank(cell) < rank(before):
                    found[name][of] = cell
    return found


def rank(cell: Cell) -> tuple[float, float]:
    return cell.gradients, cell.gaps[-1] if len(cell.gaps) else math.inf


def cell_of(record: Mapping[str, Any], best: float, steps: Sequence[int]) -> Cell:
    gaps = [best - x if math.isfinite(x) else math.inf for x in record["bounds"]]
    near = next((step for step, gap in zip(steps, gaps, strict=False) if gap <= NAT), math.inf)
    return Cell(near, record.get("w1", math.inf), record["seconds"], gaps)


def draw(records: Records, names: Sequence[str], steps: Sequence[int]) -> None:
    """Write all of it."""
    found = cells(records, names, steps)
    if not found:
        return
    figure(found, steps).savefig(FIGURE, dpi=100)
    page = HERE / "RESULTS.md"
    before, _, rest = page.read_text().partition(BEGIN)
    told = "\n\n".join([BEGIN, summary(found, steps[-1]), table(found), END])
    page.write_text(before + told + rest.partition(END)[2])


def ways_of(found: Cells) -> list[str]:
    return [way for way in COLOURS if any(way in own for own in found.values())]


def summary(found: Cells, last: int) -> str:
    """By way: on how many posteriors it was near, and the median of its gradients over Adam's where both were."""
    header = ["way", "within a nat", "of", "gradients / Adam's", "W1 ≤ 0.15", "seconds"]
    rows = []
    for way in ways_of(found):
        own = {name: each[way] for name, each in found.items() if way in each}
        near = sum(math.isfinite(cell.gradients) for cell in own.values())
        ratios = [
            ratio(cell.gradients, found[name][ADAM].gradients, last)
            for name, cell in own.items()
            if ADAM in found[name]
        ]
        good = sum(cell.w1 <= 0.15 for cell in own.values())
        took = seconds(middle([cell.seconds for cell in own.values()]))
        rows.append([way, str(near), str(len(own)), median(ratios), str(good), took])
    return markdown(header, rows)


def ratio(gradients: float, of_adam: float, last: int) -> float:
    """Of gradients to Adam's, at most: where Adam was never near, to all the steps that it took. Infinite where this was not,
    and no number where neither was."""
    if math.isinf(gradients):
        return math.nan if math.isinf(of_adam) else math.inf
    return gradients / min(of_adam, last)


def median(ratios: Sequence[float]) -> str:
    """Over the posteriors on which either was near."""
    known = [x for x in ratios if not math.isnan(x)]
    middle_one = float(np.median(known)) if known else math.nan
    return "-" if math.isnan(middle_one) else "∞" if math.isinf(middle_one) else f"{middle_one:.2g}"


def table(found: Cells) -> str:
    ways = ways_of(found)

    def told(cell: Cell | None) -> str:
        if cell is None:
            return ""
        gradients = f"{cell.gradients:.0f}" if math.isfinite(cell.gradients) else f"never ({nats(cell.gaps)})"
        return f"{gradients}, {number(cell.w1)}, {seconds(cell.seconds)} s"

    return markdown(
        ["posterior", *ways], [[short(name), *(told(own.get(way)) for way in ways)] for name, own in found.items()]
    )


def nats(gaps: Sequence[float]) -> str:
    """How far the last bound was."""
    last = gaps[-1] if len(gaps) else math.inf
    return "lost" if not math.isfinite(last) else f"{last:.1f} nats" if last < 1e3 else f"{last:.0e} nats"


def figure(found: Cells, steps: Sequence[int]) -> plt.Figure:
    """Nats to the best bound against gradients."""
    drawn, axes = plt.subplots(3, 5, figsize=(15, 8.5), sharex=True, constrained_layout=True)
    for axis, (name, own) in zip(axes.flat, found.items(), strict=False):
        axis.axhspan(1e-3, NAT, color="0.93", zorder=0)
        for way, colour in COLOURS.items():
            if way in own and len(own[way].gaps):
                gaps = np.clip(own[way].gaps, 1e-3, 1e6)
                axis.plot(steps[: len(gaps)], gaps, color=colour, lw=1.4)
        axis.set(xscale="log", yscale="log", ylim=(1e-2, 1e5))
        axis.set_title(short(name), fontsize=10)
    for axis in axes[:, 0]:
        axis.set_ylabel("nats to the best bound")
    for axis in axes[-1]:
        axis.set_xlabel("gradients")
    handles = [plt.Line2D([], [], color=colour, label=way) for way, colour in COLOURS.items()]
    axes[0, 0].legend(handles=handles, frameon=False, fontsize=8)
    return drawn
