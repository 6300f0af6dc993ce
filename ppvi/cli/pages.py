"""The report of a run, as one HTML file: what was asked, what was found, and figures. It is made of the files of the run."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib.util import find_spec
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np

from ppvi._tables import entries
from ppvi.cli.failures import InputError
from ppvi.cli.options import Course, Question, command_line
from ppvi.cli.runs import Run
from ppvi.cli.summaries import HEADER, rows_of, variables_of
from ppvi.cli.tables import is_number
from ppvi.engine._arviz import group_of, read

MOST = 200
"""Rows of the table of the posterior."""

PANELS = 12
"""Marginals that are drawn."""

NO_FIGURES = "There are no figures, for matplotlib is not installed: pip install matplotlib, then"

STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #5b6674; --line: #d9dee5; --page: #fff;
  --good: #1a7f4b; --bad: #b3261e; --unsure: #8a6100; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebef; --soft: #a3adb9; --line: #39424e; --page: #14181d;
    --good: #56c88c; --bad: #ff8a80; --unsure: #f0c050; }
  img { background: #fff; border-radius: 6px; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { font-weight: 600; } .good { color: var(--good); } .bad { color: var(--bad); } .unsure { color: var(--unsure); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; } .number { text-align: right; white-space: nowrap; }
img { max-width: 100%; height: auto; } code { font-size: .9em; } p.note { color: var(--soft); }
"""


def write(run: Run) -> None:
    """Write the report of a run that is finished."""
    config, result = run.read("config"), run.read("result")
    if config is None or result is None or not run.posterior.is_file():
        raise InputError(f"{run.folder} is not finished: {run.resumed} goes on with it.")
    data = read(run.posterior)
    parts = [
        _verdict(result),
        _asked(config, data),
        *_figures(run, data),
        _posterior(data),
        *_diagnosis(run.read("diagnosis")),
        *_comparison(run.read("comparison")),
    ]
    title = f"{config['question']['program']}: a fit by ppvi"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}'
    page = f'<!doctype html>\n<html lang="en"><head>{head}</title><style>{STYLE}</style></head><body>\n'
    body = f"<h1>{escape(config['question']['program'])}</h1>\n" + "\n".join(parts)
    run.report.write_text(f"{page}{body}\n</body></html>\n", encoding="utf-8")


def _verdict(result: dict[str, Any]) -> str:
    said = result["converged"]
    kind = {"yes": "good", "no": "bad"}.get(said.partition(":")[0], "unsure")
    return f'<p class="verdict {kind}">converged: {escape(said)}</p>\n<p class="note">{escape(result["fit"])}</p>'


def _asked(config: dict[str, Any], data: Any) -> str:
    asked = command_line(Question(**config["question"]), Course(**config["course"]))
    rows = [("data", config.get("arguments", "")), ("versions", str(data.attrs.get("versions", "")))]
    return f"<h2>What was asked</h2>\n<p><code>ppvi fit {escape(asked)}</code></p>\n{table((), rows)}"


def _posterior(data: Any) -> str:
    rows, left = rows_of(data, MOST)
    more = f'<p class="note">and {left:,} more, in posterior.nc</p>' if left else ""
    draws = group_of(data, "posterior")
    count = draws.sizes["draw"] if draws is not None else 0
    return f"<h2>Posterior, of {count:,} draws</h2>\n{table(HEADER, rows)}{more}"


def _diagnosis(found: dict[str, Any] | None) -> Iterable[str]:
    if found is not None:
        kind = {"good": "good", "poor": "bad"}.get(found["verdict"], "unsure")
        yield f'<h2>Is it near to the posterior?</h2>\n<p class="verdict {kind}">diagnosis: {escape(found["verdict"])}</p>'
        rows = [
            (name, "" if x["number"] is None else f"{x['number']:.2f}", x["verdict"], x["said"], x["then"] or "")
            for name, x in found["findings"].items()
        ]
        yield table(("look at", "number", "says", "found", "next"), rows)


def _comparison(found: dict[str, Any] | None) -> Iterable[str]:
    if found is not None:
        yield f"<h2>Beside {escape(found['reference'])}</h2>"
        yield table(("marginal", "mean", "sd", "reference mean", "reference sd", "W1 / sd"), found["rows"][:MOST])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, numbers to the right."""
    rows = list(rows)
    right = [all(map(is_number, filter(None, column))) for column in zip(*rows, strict=True)]
    lines = [_line("th", header, right)] if header else []
    lines += [_line("td", row, right) for row in rows]
    return f'<div class="wide"><table>\n{"".join(lines)}</table></div>'


def _line(tag: str, cells: Sequence[str], right: Sequence[bool]) -> str:
    kinds = [' class="number"' if number else "" for number in right] or [""] * len(cells)
    return f"<tr>{''.join(f'<{tag}{kind}>{escape(x)}</{tag}>' for x, kind in zip(cells, kinds, strict=True))}</tr>\n"


# Figures -------------------------------------------------------------------------------------------------------------------


def _figures(run: Run, data: Any) -> Iterable[str]:
    if find_spec("matplotlib") is None:
        yield f'<p class="note">{NO_FIGURES} <code>{escape(run.resumed)}</code> draws them.</p>'
        return
    yield f"<h2>Losses</h2>\n{_image('the losses by step', 3.2, lambda figure: _losses(figure, data))}"
    panels = _panels(data)
    rows = -(-len(panels) // 4)
    more = " (the first ones)" if len(panels) == PANELS else ""
    yield f"<h2>Marginals{more}</h2>\n{_image('marginals', 2.0 * rows, lambda figure: _marginals(figure, panels, rows))}"


def _image(said: str, height: float, draw: Callable[[Any], None]) -> str:
    from matplotlib.figure import Figure

    figure, file = Figure(figsize=(9.0, height), layout="constrained"), io.BytesIO()
    draw(figure)
    figure.savefig(file, format="png", dpi=130)
    return f'<img alt="{escape(said)}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _losses(figure: Any, data: Any) -> None:
    from ppvi._plots import plot_losses

    group = group_of(data, "losses")
    losses = np.zeros(0) if group is None else group["loss"].values
    course = SimpleNamespace(losses=losses, steps=np.arange(1, len(losses) + 1), why=data.attrs["why"])
    columns = losses.reshape(len(losses), -1).shape[1] if len(losses) else 1
    plot_losses(course, list(figure.subplots(columns, 1, squeeze=False)[:, 0]))


def _panels(data: Any) -> list[tuple[str, np.ndarray]]:
    """The first marginals by name, each with its draws."""
    return list(islice(entries(variables_of(data)), PANELS))


def _marginals(figure: Any, panels: Sequence[tuple[str, np.ndarray]], rows: int) -> None:
    for ax, (label, draws) in zip(figure.subplots(rows, 4, squeeze=False).ravel(), panels, strict=False):
        low, high = np.quantile(draws, (0.005, 0.995))
        ax.hist(draws[(draws >= low) & (draws <= high)], bins=40, color="C0", alpha=0.8)
        ax.set_title(label, fontsize=9)
        ax.set_yticks([])
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right", "left"]].set_visible(False)
    for ax in figure.axes[len(panels) :]:
        ax.set_visible(False)
