"""A posterior in numbers: mean, sd and a central interval of each marginal."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppvi._tables import render
from ppvi.engine._arviz import group_of

HEADER = ("site", "mean", "sd", "5%", "95%")

SHOWN = 24
"""Rows that are printed."""


def summary_of(data: Any) -> dict[str, dict[str, Any]]:
    """By name of a site: mean, sd and quantiles, in lists of the shape of the site."""
    found: dict[str, dict[str, Any]] = {}
    for name, x in _variables(data).items():
        low, high = np.quantile(x, (0.05, 0.95), axis=0)
        numbers = {"mean": x.mean(0), "sd": x.std(0), "5%": low, "95%": high}
        found[name] = {said: np.asarray(value, float).tolist() for said, value in numbers.items()}
    return found


def rows_of(data: Any) -> list[tuple[str, ...]]:
    """One row for each scalar."""
    found = []
    for name, x in _variables(data).items():
        for place in np.ndindex(*x.shape[1:]):
            draws = x[(slice(None), *place)].astype(float)
            numbers = (draws.mean(), draws.std(), *np.quantile(draws, (0.05, 0.95)))
            label = f"{name}[{','.join(map(str, place))}]" if place else name
            found.append((label, *(f"{value:.3g}" for value in numbers)))
    return found


def text_of(data: Any, title: str = "posterior") -> str:
    """The first rows as a table."""
    rows = rows_of(data)
    more = f"\nand {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return render(title, HEADER, rows[:SHOWN], numbers=True) + more


def _variables(data: Any) -> dict[str, np.ndarray]:
    group = group_of(data, "posterior")
    variables = {} if group is None else group.data_vars
    return {str(name): x.values.reshape(-1, *x.shape[2:]) for name, x in variables.items()}
