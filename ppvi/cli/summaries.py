"""A posterior in numbers: mean, sd and a central interval of each marginal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ppvi._tables import entries, render
from ppvi.engine._arviz import group_of

HEADER = ("site", "mean", "sd", "5%", "95%")

SHOWN = 24
"""Rows that are printed."""

LARGE = 1000
"""Entries of a site that are told to machines."""


def summary_of(data: Any) -> dict[str, dict[str, Any]]:
    """By name of a site: mean, sd and quantiles, in lists of the shape of the site; those of very large sites are in files
    alone."""
    found: dict[str, dict[str, Any]] = {}
    for name, x in variables_of(data).items():
        if x[0].size > LARGE:
            continue
        low, high = np.quantile(x, (0.05, 0.95), axis=0)
        numbers = {"mean": x.mean(0), "sd": x.std(0), "5%": low, "95%": high}
        found[name] = {said: np.asarray(value, float).tolist() for said, value in numbers.items()}
    return found


def rows_of(data: Any, most: int) -> tuple[list[tuple[str, ...]], int]:
    """One row for each scalar, of at most so many, and how many there are beyond."""
    found: list[tuple[str, ...]] = []
    variables = variables_of(data)
    for name, x in itertools.islice(entries(variables), most):
        draws = x.astype(float)
        numbers = (draws.mean(), draws.std(), *np.quantile(draws, (0.05, 0.95)))
        found.append((name, *shown(numbers, float(draws.std()))))
    return found, sum(x[0].size for x in variables.values()) - len(found)


def shown(numbers: Iterable[float], sd: float) -> Iterator[str]:
    """Numbers with as many decimals as show two digits of the sd."""
    decimals = 1 - math.floor(math.log10(sd)) if math.isfinite(sd) and sd > 0 else 7
    fixed = f".{max(decimals, 0)}f" if decimals < 7 else ".4g"
    for x in numbers:
        yield f"{x:{fixed}}" if abs(x) < 1e6 else f"{x:.4g}"


def text_of(data: Any, title: str = "posterior") -> str:
    """The first rows as a table."""
    rows, left = rows_of(data, SHOWN)
    return render(title, HEADER, rows, numbers=True) + (f"\nand {left} more" if left else "")


def variables_of(data: Any) -> dict[str, np.ndarray]:
    """The draws of a posterior by site, `(draw, *shape)`."""
    group = group_of(data, "posterior")
    variables = {} if group is None else group.data_vars
    return {str(name): x.values.reshape(-1, *x.shape[2:]) for name, x in variables.items()}
