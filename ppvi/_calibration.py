"""What simulation-based calibration has found: ranks, and what they say of each number."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ppvi._tables import entries, render

ALARM = 1e-3
"""How often all of a report calls posteriors poor that are right."""

SLOPE = 1 / (2 * math.sqrt(math.pi))
"""By how much the mean rank of a normal posterior moves for a small bias of its mean, in its standard deviations."""

TESTS = 3
"""Of the ranks of a number: their mean, their variance, and how far they are from uniform."""

FAILED = 0.05
"""The share of data sets without a fit from which on nothing is known."""

SURE = 2.0
"""Standard errors beyond those of an alarm, of a bias that is seen nearly always."""


@dataclass(frozen=True)
class Row:
    """Of one number of a site.

    **Attributes**

    - `bias`: of the posterior's mean, in its standard deviations, as the mean rank tells it of a normal one.
    - `spread`: the variance of ranks by that of uniform ones: above 1 posteriors are too narrow, below too wide.
    - `covered`: how often central intervals of half and of nine tenths of the mass had the truth.
    - `p`: the probability of ranks so far from uniform, by their mean, their variance or the Kolmogorov-Smirnov distance: the
      least of the three, times three.
    """

    name: str
    bias: float
    spread: float
    covered: tuple[float, float]
    p: float


@dataclass(frozen=True)
class Calibration:
    """Ranks of what data sets were drawn with among draws of their posteriors.

    **Attributes**

    - `rows`: one for each number, the least `p` first.
    - `ranks`: site -> `(data set, *shape)`, from 0 to 1, uniform where posteriors are right.
    - `failed`: what was said of data sets that could not be fitted.
    """

    rows: tuple[Row, ...]
    ranks: Mapping[str, np.ndarray] = field(repr=False)
    failed: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, truths: Mapping[str, np.ndarray], draws: Mapping[str, np.ndarray], failed: list[str] | None = None
    ) -> Calibration:
        """Of truths, `(data set, *shape)`, and draws, `(data set, draw, *shape)`, of the sites that both have."""
        told = b"".join(np.ascontiguousarray(x).tobytes() for x in truths.values())
        rng = np.random.default_rng(zlib.crc32(told))  # another one in each report
        ranks = {name: _ranks(truths[name], draws[name], rng) for name in sorted(truths.keys() & draws.keys())}
        rows = [_row(name, u) for name, u in entries(ranks)]
        return cls(tuple(sorted(rows, key=lambda row: row.p)), ranks, tuple(failed or ()))

    @property
    def data_sets(self) -> int:
        """How many have been fitted."""
        return len(next(iter(self.ranks.values())))

    @property
    def verdict(self) -> Literal["good", "poor", "unsure"]:
        """Poor where the ranks of a number are not uniform, whose false alarms are one in a thousand reports; unsure where more
        than one in twenty data sets could not be fitted; else good as far as so many can tell."""
        if self.rows[0].p * len(self.rows) < ALARM:
            return "poor"
        return "unsure" if len(self.failed) > FAILED * (self.data_sets + len(self.failed)) else "good"

    @property
    def sees(self) -> float:
        """The least bias of a number, in posterior standard deviations, that so many data sets nearly always show."""
        from scipy.stats import norm

        alarm = float(norm.isf(ALARM / (2 * TESTS * len(self.rows))))
        return (alarm + SURE) / (math.sqrt(12 * self.data_sets) * SLOPE)

    def to_dict(self) -> dict[str, Any]:
        """Of plain numbers and texts, for JSON."""
        rows = {row.name: {k: x for k, x in vars(row).items() if k != "name"} for row in self.rows}
        return {
            "verdict": self.verdict,
            "data_sets": self.data_sets,
            "sees": self.sees,
            "rows": rows,
            "failed": self.failed,
        }

    def __str__(self) -> str:
        header = ["number", "bias (sd)", "spread", "in 50%", "in 90%", "p"]
        shown = [
            [x.name, f"{x.bias:+.2f}", f"{x.spread:.2f}", *(f"{c:.0%}" for c in x.covered), f"{x.p:.2g}"]
            for x in self.rows[:MOST]
        ]
        title = f"calibration: {self.verdict}, of {self.data_sets} data sets that the model drew"
        more = [f"and {len(self.rows) - MOST} more numbers with larger p"] if len(self.rows) > MOST else []
        failed = [f"{len(self.failed)} data sets could not be fitted: {self.failed[0]}"] if self.failed else []
        sees = f"so many see a bias of {self.sees:.2f} posterior sds; spread above 1: posteriors too narrow"
        return "\n".join([render(title, header, shown, numbers=True), *more, *failed, sees])


MOST = 12
"""Rows that are printed."""


def _ranks(truth: np.ndarray, draws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The share of draws below the truth; among equal ones, and between two draws, at random."""
    below = (draws < truth[:, None]).sum(1)
    equal = (draws == truth[:, None]).sum(1)
    return (below + rng.uniform(size=truth.shape) * (equal + 1)) / (draws.shape[1] + 1)


def _row(name: str, u: np.ndarray) -> Row:
    from scipy.stats import kstest, norm

    n, away = len(u), u - 0.5
    mean, variance = away.mean() * math.sqrt(12 * n), ((away**2).mean() * 12 - 1) * math.sqrt(n * 5 / 4)
    p = min(*2 * norm.sf(np.abs([mean, variance])), kstest(u, "uniform").pvalue)
    covered = float((np.abs(away) < 0.25).mean()), float((np.abs(away) < 0.45).mean())
    bias = -math.sqrt(2) * float(norm.ppf(u.mean()))  # u = Phi(z - bias) has the mean Phi(-bias / sqrt 2)
    return Row(name, bias, float((away**2).mean() * 12), covered, min(1.0, TESTS * float(p)))
