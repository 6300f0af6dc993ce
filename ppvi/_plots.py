"""Figures, by matplotlib: of a fit's losses, and of posteriors side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppvi._losses import smoothed
from ppvi.errors import PpviError


def axes_of(ax: Any, rows: int = 1, height: float = 3.5) -> list[Any]:
    """Axes to draw into, the given ones or new ones below each other."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise PpviError("figures need matplotlib: pip install matplotlib.") from error
    if ax is not None:
        return list(np.atleast_1d(ax))
    _, found = plt.subplots(rows, 1, figsize=(7.0, height * rows), layout="constrained", squeeze=False)
    return list(found[:, 0])


def plot_losses(fit: Any, ax: Any = None) -> Any:
    """The losses of a fit; see `Fit.plot`."""
    columns = fit.losses.reshape(len(fit.losses), -1).T
    found = axes_of(ax, max(len(columns), 1))
    for number, (ax, losses) in enumerate(zip(found, columns, strict=False)):
        middles, means, errors = smoothed(losses)
        faint = 0.25 if len(middles) > 3 else 1.0
        ax.plot(fit.steps, losses, color="C0", alpha=faint, linewidth=0.6, label="one estimate a step", rasterized=True)
        ax.plot(middles, means, color="C0", linewidth=1.8, label="mean over windows")
        ax.fill_between(middles, means - 2 * errors, means + 2 * errors, color="C0", alpha=0.35, linewidth=0)
        ax.axvline(len(losses), color="C3", linestyle="--", linewidth=1.2, label=f"stopped: {fit.why}")
        ax.set(xlabel="step", ylabel="loss" if len(columns) == 1 else f"loss of objective {number}")
        ax.set_ylim(*_range(losses))
        ax.legend(frameon=False, fontsize=9)
    return found[0] if len(found) == 1 else found


def _range(losses: np.ndarray) -> tuple[float, float]:
    """Where nearly all losses are, that a few at the beginning may not flatten the rest."""
    finite = losses[np.isfinite(losses)].astype(float)
    low, high = np.quantile(finite, (0.001, 0.98)) if len(finite) else (0.0, 1.0)
    margin = 0.08 * (high - low) or 1.0
    return float(low - margin), float(high + margin)


def plot_marginals(comparison: Any, ax: Any, most: int) -> Any:
    """The worst marginals of a comparison; see `Comparison.plot`."""
    rows = [row for row in comparison.worst_first() if all(m.reference_sd for _, m in row[1])][:most]
    [ax] = axes_of(ax, 1, 1.2 + 0.28 * len(rows))
    ax.axvspan(-2, 2, color="0.92", zorder=0)
    ax.axvspan(-1, 1, color="0.84", zorder=0, label=f"{comparison.reference.name}, one and two sds")
    names = [x.name for x in comparison.posteriors]
    step = 0.6 / max(len(names), 2)
    for row, (_, marginals) in enumerate(rows):
        for posterior, m in marginals:
            number = names.index(posterior.name)
            y, color = row + step * (number - (len(names) - 1) / 2), f"C{number}"
            sd = m.sd_ratio
            ax.plot([m.mean_error - 2 * sd, m.mean_error + 2 * sd], [y, y], color=color, linewidth=1.0)
            ax.plot([m.mean_error - sd, m.mean_error + sd], [y, y], color=color, linewidth=3.0)
            ax.plot(m.mean_error, y, "o", color="white", markeredgecolor=color, markersize=5)
    for number, name in enumerate(names):
        ax.plot([], [], "o-", color=f"C{number}", markerfacecolor="white", label=name)
    ax.set(xlabel=f"sds of {comparison.reference.name} from its mean", yticks=range(len(rows)))
    ax.set_yticklabels([label for label, _ in rows])
    ax.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax
