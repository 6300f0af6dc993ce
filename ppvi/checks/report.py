"""Reports: what a check found, as a person, a test suite or a program reads it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ppvi.errors import BiasError

Outcome = Literal["unbiased within delta", "biased", "inconclusive"]

SEEN = 0.999
"""Probability with which a bias, or an event, that "would have been seen" would have been seen."""


def rarest(draws: int) -> float:
    """Probability of the rarest event that so many draws would have seen."""
    return min(1.0, -math.log(1 - SEEN) / draws)


@dataclass(frozen=True)
class Measurement:
    """The bias along one direction in the parameters, from one point to another.

    **Attributes**

    - `bias`, `low`, `high`: mean of estimated minus actual change of the objective, per unit of length, and the interval that
      holds it at the report's level.
    - `scale`: root mean square of the gradient's component; `delta`: the bias that counts as none, and `of_coordinate`, if it
      is all in one of the `size` coordinates that the direction moves: a random direction has delta sqrt(size) for it.
    - `draws`, `k_hat`: number of draws, and the Pareto shape of their tail.
    """

    point: str
    direction: str
    bias: float
    low: float
    high: float
    gradient: float
    """Mean of the gradient's component."""
    scale: float
    delta: float
    visible: float
    """The smallest bias that this many draws would have shown, with probability 0.999."""
    draws: int
    k_hat: float
    outcome: Outcome
    reason: str = ""
    size: int = 1
    length: float = 0.0
    """Of the path; 0 at one point."""
    close: bool = False
    """Whether the path is a short one, which finds biases of short periods where draws allow it, and decides nothing else."""
    exact: bool = False
    """Whether every outcome of the estimator was gone through, and none drawn."""

    @property
    def of_coordinate(self) -> float:
        return self.delta * math.sqrt(self.size)


@dataclass(frozen=True)
class Report:
    """What a check found. Printable.

    **Attributes**

    - `static`: the static report, or None where there is no program to look at.
    - `measurements`: one for each point and direction.
    - `alpha`: probability that any of them is called biased, or unbiased within delta, by mistake.
    - `notes`: what else there is to know.
    """

    alpha: float
    measurements: tuple[Measurement, ...]
    static: Any = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """What was wrong before anything could be measured."""

    @property
    def statistical(self) -> Outcome:
        """The statistical part's verdict."""
        if self.problems or any(m.outcome == "biased" for m in self.measurements):
            return "biased"
        return "inconclusive" if self.undecided or not self.measurements else "unbiased within delta"

    @property
    def undecided(self) -> tuple[Measurement, ...]:
        """What draws have left open, close paths aside."""
        return tuple(m for m in self.measurements if m.outcome == "inconclusive" and not m.close)

    @property
    def verdict(self) -> Outcome:
        """`biased` if either part says so, else what the statistical part says."""
        return "biased" if self.biased_by else self.statistical

    @property
    def biased_by(self) -> tuple[str, ...]:
        """Which parts call it biased: `static`, `statistical`."""
        static = self.static is not None and self.static.verdict in ("biased", "biased by design")
        return ("static",) * static + ("statistical",) * (self.statistical == "biased")

    @property
    def worst(self) -> Measurement | None:
        """The measurement whose bias shows most, in widths of its interval."""
        return max(self.measurements, key=lambda m: abs(m.bias) / max((m.high - m.low) / 2, 1e-300), default=None)

    def raise_if_biased(self, *, inconclusive: bool = False) -> None:
        """Raise a `BiasError` if the verdict is `biased`; with `inconclusive`, if it is anything but unbiased."""
        if self.verdict == "biased" or (inconclusive and self.verdict == "inconclusive"):
            raise BiasError(str(self), self)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {
            "verdict": self.verdict,
            "biased_by": list(self.biased_by),
            "alpha": self.alpha,
            "static": None
            if self.static is None
            else {"verdict": self.static.verdict, "findings": [asdict(finding) for finding in self.static.findings]},
            "measurements": [{k: _plain(v) for k, v in asdict(m).items()} for m in self.measurements],
            "problems": list(self.problems),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        from ppvi._tables import prose, render

        header = (
            "at",
            "along",
            "bias",
            "interval",
            "gradient",
            "bias /\nscale",
            "would\nsee",
            "draws",
            "k-hat",
            "verdict",
            "because",
        )
        rows = [
            (
                m.point, m.direction, _short(m.bias), f"[{_short(m.low)}, {_short(m.high)}]", _short(m.gradient),
                _percent(m.bias, m.scale), _percent(m.visible, m.scale), f"{m.draws:,}",
                "-" if math.isinf(m.k_hat) else f"{m.k_hat:.2f}", m.outcome.removesuffix(" within delta"), m.reason,
            )
            for m in self.measurements
        ]  # fmt: skip
        by = f", by the {' and the '.join(self.biased_by)} part" if self.biased_by else self._known()
        lines = [f"verdict: {self.verdict}{by} (alpha {self.alpha:g})"]
        lines += [str(self.static)] if self.static is not None else []
        lines += [f"problem: {problem}" for problem in self.problems]
        options = {"below": ("because",), "spare": ("interval", "gradient", "draws"), "named": 2}
        lines = [prose(line) for line in lines]
        lines += [render("measured bias of the gradient", header, rows, **options)] if rows else []
        if self.statistical == "inconclusive" and self.measurements:
            lines.append(prose(_inconclusive(self.undecided, len(self.measurements))))
        drawn = [m for m in self.measurements if not m.exact and math.isfinite(m.visible)]
        lines += [prose(_limits(drawn))] if drawn else []
        return "\n".join([*lines, *(prose(f"note: {note}") for note in self.notes)])

    def _known(self) -> str:
        """What is known where draws have not decided."""
        if self.statistical != "inconclusive" or not self.measurements:
            return ""
        proof = "proved from the program; " if self.static is not None and self.static.verdict == "proved" else ""
        if all(math.isinf(m.visible) for m in self.measurements):
            return ": no draw is finite, so that nothing was seen, and a proof is of what is finite"
        hint = any(m.low > 0 or m.high < 0 for m in self.undecided)
        draws = "draws hint at a bias" if hint else "draws show no bias"
        return f": {proof}{draws}, and are too few to decide"


def _inconclusive(open_ones: tuple[Measurement, ...], directions: int) -> str:
    said = f"inconclusive along {len(open_ones)} of {directions} directions"
    lost = [m for m in open_ones if math.isinf(m.visible)]
    if lost:
        return (
            f"{said}: along {len(lost)} of these some draws are not finite, and of a bias there nothing is known. Look at the "
            f"sites' densities there; a fit names the first site whose density is not finite."
        )
    if any(m.low > 0 or m.high < 0 for m in open_ones):
        return f"{said}: a larger budget sees more."
    least = max(open_ones, key=lambda m: m.visible / m.scale if m.scale else 0.0)
    against = f", {_percent(least.visible, abs(least.gradient))} of the mean gradient" if least.gradient else ""
    return (
        f"{said}: a bias above {_short(least.visible)} "
        f"({_percent(least.visible, least.scale)} of the gradient's scale{against}) would have been seen, with probability "
        f"0.999; a larger budget sees smaller ones."
    )


def _limits(drawn: list[Measurement]) -> str:
    """What none of the draws could have shown."""
    fewest, widest = min(m.draws for m in drawn), max(drawn, key=lambda m: m.of_coordinate)
    periods = [m.length for m in drawn if m.length and m.outcome == "unbiased within delta"]
    period = f" one that goes to and fro within a length of {_short(min(periods))} averages out;" if periods else ""
    unseen = round(1 / rarest(fewest))
    return (
        f"a bias below {_short(widest.delta)} along a direction counts as none, or below {_short(widest.of_coordinate)} in one "
        f"coordinate of {widest.size} alone;{period} what lies in events rarer than 1 in {unseen:,} was not seen."
    )


def _plain(value: Any) -> Any:
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _short(x: float) -> str:
    return f"{x:.3g}"


def _percent(x: float, scale: float) -> str:
    return f"{100 * x / scale:.2g}%" if scale else "-"
