"""What a diagnosis of a fit has found, to read at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ppvi._comparison import Comparison
from ppvi._tables import prose, render

Verdict = Literal["good", "poor", "unsure"]


@dataclass(frozen=True)
class Finding:
    """One look at a fit.

    **Attributes**

    - `name`: what was looked at.
    - `number`: the number that it comes to; None where there is none.
    - `verdict`: what it says of the fit, alone.
    - `said`: what was found.
    - `blind`: what it cannot see.
    - `then`: what to do next; empty where there is nothing to do.
    - `decides`: whether the verdict on the fit is of it: what does not may be poor where the posterior's marginals are right.
    """

    name: str
    number: float | None
    verdict: Verdict
    said: str
    blind: str
    then: str = ""
    decides: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` returns. Printable.

    **Attributes**

    - `findings`: by name, the first those that decide.
    - `comparison`: the fit beside the chains that were started from its draws; None where they could not be run.
    """

    findings: Mapping[str, Finding]
    comparison: Comparison | None = None

    @property
    def verdict(self) -> Verdict:
        """Poor where a look that decides says so; good where all of them do; else unsure."""
        found = [x.verdict for x in self.findings.values() if x.decides]
        return "poor" if "poor" in found else "good" if set(found) == {"good"} else "unsure"

    def __getitem__(self, name: str) -> Finding:
        return self.findings[name]

    def to_dict(self) -> dict[str, Any]:
        """The verdict, and of every finding its attributes, of plain Python."""
        found = {name: {k: x for k, x in asdict(f).items() if k != "name"} for name, f in self.findings.items()}
        return {"verdict": self.verdict, "findings": found}

    def __str__(self) -> str:
        rows = [
            (name, "-" if f.number is None else f"{f.number:.2f}", f"{f.verdict}{'' if f.decides else ' *'}", f.said)
            for name, f in self.findings.items()
        ]
        table = render(f"diagnosis: {self.verdict}", ("look at", "number", "says", "found"), rows)
        worst = [f for f in self.findings.values() if f.then]
        lines = [
            *(f"next, {f.name}: {f.then}." for f in worst),
            *(f"not seen by {f.name}: {f.blind}." for f in self.findings.values()),
            *(["* does not decide."] if not all(f.decides for f in self.findings.values()) else []),
        ]
        return "\n".join([table, *map(prose, lines)])
