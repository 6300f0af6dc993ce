"""Findings: what the static check has to say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["biased", "suspect", "note"]
Verdict = Literal["proved", "suspect", "biased", "biased by design"]
Rule = Literal[
    "jump", "density jump", "held constant", "nonlinear estimate", "support", "moving density", "derivative rule", "strategy",
    "tails", "probability zero", "pole", "not finite", "assumption", "no graph",
]  # fmt: skip

UNBIASED_INSTEAD = (
    "Take one that is unbiased, such as LeaveOneOut() for any site, Reparam() for one that is reparameterised, or DisARM() for "
    "a finite one."
)
"""What to do about a strategy that is biased by design, which may be the user's own, of a site of any kind."""


@dataclass(frozen=True)
class Finding:
    """One thing that the static check has found.

    **Attributes**

    - `severity`: `biased` where that is certain, `suspect` where it could not be decided, or a `note`.
    - `rule`: which rule has found it.
    - `subject`: the sites or parameters that it is about; `operation`: at which operation, and `where` in the user's files.
    - `why`: why it matters; `remedy`: the next thing to try.
    """

    severity: Severity
    rule: Rule
    subject: str
    operation: str
    where: str
    why: str
    remedy: str = ""

    def __str__(self) -> str:
        lines = (f"{self.severity}: {self.subject}: {self.operation} at {self.where}", self.why, self.remedy)
        return "\n    ".join(line for line in lines if line)


@dataclass(frozen=True)
class StaticReport:
    """What the static check says of an objective. Printable."""

    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """`proved` where every rule was decided and none found a bias."""
        biased = {finding.rule for finding in self.findings if finding.severity == "biased"}
        if biased:
            return "biased by design" if biased == {"strategy"} else "biased"
        return "suspect" if any(finding.severity == "suspect" for finding in self.findings) else "proved"

    def __str__(self) -> str:
        granted = (GRANTED,) if self.verdict == "proved" else ()
        return "\n".join((f"static check: {self.verdict}", *granted, *map(str, self.findings)))


GRANTED = (
    "taken for granted: that the objective and its gradient have means, but for densities whose tails are known, and that "
    "distributions draw what their densities say"
)
"""What a proof does not look at."""


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each finding once, the gravest first."""
    order = ("biased", "suspect", "note")
    return tuple(sorted(dict.fromkeys(findings), key=lambda finding: order.index(finding.severity)))


CONTINUOUS = {
    **dict.fromkeys(("solve", "triangular_solve", "slogdet"), "the matrix has an inverse, as A A^T + I has"),
    "interp": "the knots are constants, each greater than the one before",
    "searchsorted": "the knots are constants that all differ, and what is looked up beside each of them meets",
}
"""Conditions on which operations are continuous."""


def unless(operation: str, has_pole: bool) -> str:
    """The condition on which an operation is continuous, of which it could not be shown that it holds."""
    where = CONTINUOUS.get(operation, "its operand keeps clear of a pole" if has_pole else None)
    return "" if where is None else f": it is continuous where {where}, which was not shown"
