"""What a comparison of posteriors with a reference has found: to read, as a table of pandas, and as a figure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppvi._doors import close_to, listed
from ppvi._losses import Course
from ppvi._tables import entry, render, wrapped
from ppvi.errors import ProgramError

if TYPE_CHECKING:  # which takes seconds to import
    import pandas as pd

LONG = 8
"""Sites of more entries are told of by the worst of them."""

MIXED = 1.05
"""R-hat above which chains have not mixed; Vehtari et al. 2021 have 1.01 for those that are kept."""

SHOWN = 16
"""Rows of marginals that are printed."""


@dataclass(frozen=True)
class Marginal:
    """One scalar of a posterior beside the reference's."""

    site: str
    place: tuple[int, ...]
    """Of the entry in the site's value, counted from 0."""
    mean: float
    sd: float
    reference_mean: float
    reference_sd: float
    mean_error: float
    """(mean - reference mean) / reference sd."""
    wasserstein: float
    """1-Wasserstein distance of the marginals, in reference sds."""

    @property
    def name(self) -> str:
        return entry(self.site, self.place)

    @property
    def sd_ratio(self) -> float:
        """sd / reference sd."""
        return self.sd / self.reference_sd if self.reference_sd else math.nan

    @property
    def badness(self) -> float:
        """By which the worst comes first; what has no unit comes before all."""
        return float(np.nan_to_num(self.wasserstein, nan=math.inf))


@dataclass(frozen=True)
class Beside:
    """One posterior beside the reference.

    **Attributes**

    - `marginals`: one for each scalar that both have.
    - `k_hat`: Pareto shape of its importance weights, and `threshold`, below which they can be averaged:
      min(1 - 1 / log10 S, 0.7) for S draws (Vehtari et al. 2024). Weights know what the guide draws only: those of a guide that
      is far too narrow may look well. None if it has no weights.
    - `only_here`, `only_reference`: names that only one of the two has.
    - `course`: how a fit's loss went on in the end; None where it is not known. `moving` is by how much it changed, where that
      is more than its noise; 0 where it had settled, None where nothing tells.
    """

    name: str
    marginals: tuple[Marginal, ...]
    k_hat: float | None = None
    threshold: float | None = None
    only_here: tuple[str, ...] = ()
    only_reference: tuple[str, ...] = ()
    course: Course | None = None

    @property
    def moving(self) -> float | None:
        return None if self.course is None else self.course.moving

    @property
    def worst(self) -> Marginal:
        """The marginal that is farthest from the reference, by its Wasserstein distance; where the reference is constant there
        is no unit of it."""
        return max(self.marginals, key=lambda m: (m.reference_sd > 0, m.badness))

    def sentences(self) -> list[str]:
        """What there is to say of it beside numbers."""
        worst = self.worst
        far = f"W1 {worst.wasserstein:.2f} sd, its sd {worst.sd_ratio:.2f} of the reference's"
        return [
            *([f"worst marginal: {worst.name}, {far}"] if worst.reference_sd else []),
            f"importance weights: {_of_weights(self.k_hat, self.threshold)}",
            *(
                []
                if self.course is None
                else [f"loss: {self.course}{'; fit for longer' if self.course.change else ''}"]
            ),
        ]


@dataclass(frozen=True)
class Reference:
    """What the others are measured by.

    **Attributes**

    - `r_hat`: the largest, NaN where it has one chain; `ess`: the smallest bulk effective sample size.
    - `divergences`: how many there were, None where nobody says.
    """

    name: str
    r_hat: float
    ess: float
    divergences: int | None = None

    def __str__(self) -> str:
        chains = "one chain, no R-hat" if math.isnan(self.r_hat) else f"R-hat <= {self.r_hat:.3f}"
        if self.r_hat > MIXED:
            chains += (
                f" (above {MIXED}: its chains have not mixed, so that it is no reference yet: run them for longer)"
            )
        more = "" if self.divergences is None else f", {self.divergences} divergence{'s' * (self.divergences != 1)}"
        gap = " (where the sampler cannot go its draws have a gap: it may be the reference that is wrong)"
        return f"{self.name}: {chains}, ESS >= {self.ess:.0f}{more}{gap if self.divergences else ''}"


@dataclass(frozen=True)
class Comparison:
    """What `compare` returns. Printable.

    **Attributes**

    - `posteriors`: one for each that was compared; `comparison["elbo"]` is that of the name.
    - `reference`: what they were compared with.

    Of one posterior alone, its `marginals`, `worst`, `k_hat`, `threshold` and `moving` are the comparison's too.
    """

    posteriors: tuple[Beside, ...]
    reference: Reference

    def __getitem__(self, name: str) -> Beside:
        names = [x.name for x in self.posteriors]
        if name not in names:
            raise ProgramError(
                f"compare: there is no posterior {name!r} here, but {listed(names)}.{close_to(name, names)}"
            )
        return self.posteriors[names.index(name)]

    @property
    def only(self) -> Beside:
        """The posterior, of one alone."""
        first, *others = self.posteriors
        if others:
            raise ProgramError(f"compare: there are several posteriors: choose one, as in comparison[{first.name!r}].")
        return first

    @property
    def marginals(self) -> tuple[Marginal, ...]:
        return self.only.marginals

    @property
    def worst(self) -> Marginal:
        return self.only.worst

    @property
    def k_hat(self) -> float | None:
        return self.only.k_hat

    @property
    def threshold(self) -> float | None:
        return self.only.threshold

    @property
    def moving(self) -> float | None:
        return self.only.moving

    @property
    def r_hat(self) -> float:
        """The worst R-hat of the reference."""
        return self.reference.r_hat

    @property
    def ess(self) -> float:
        """The smallest effective number of the reference's draws."""
        return self.reference.ess

    def worst_first(self, most: int | None = None) -> list[tuple[str, list[tuple[Beside, Marginal]]]]:
        """Marginals with those of every posterior that has them, the worst first; of a long site the worst entry alone."""
        found: dict[str, list[tuple[Beside, Marginal]]] = {}
        sizes: dict[str, set[str]] = {}
        for posterior in self.posteriors:
            for m in posterior.marginals:
                found.setdefault(m.name, []).append((posterior, m))
                sizes.setdefault(m.site, set()).add(m.name)
        rows = sorted(found.items(), key=lambda row: -max(m.badness for _, m in row[1]))
        told: set[str] = set()
        kept = []
        for name, marginals in rows:
            site = marginals[0][1].site
            entries = len(sizes[site])
            if site not in told:
                kept.append((f"{name} of {entries:,}" if entries > LONG else name, marginals))
            told |= {site} if entries > LONG else set()
        return kept[:most]

    def __str__(self) -> str:
        several, most = len(self.posteriors) > 1, max(SHOWN // len(self.posteriors), 4)
        names, rows = ", ".join(x.name for x in self.posteriors), self.worst_first()
        title = f"{names} against {self.reference.name}"
        parts = [self._summary(title), self._table("\nthe worst marginals", rows[:most])] if several else []
        parts = parts or [self._table(title, rows[:most])]
        if rows[most:]:
            bound = max(m.badness for _, marginals in rows[most:] for _, m in marginals)
            parts.append(f"and {len(rows) - most} more, none with W1 above {bound:.2f} sd: to_dataframe() has all")
        return "\n".join([*parts, *self._sentences()])

    def _table(self, title: str, rows: list[tuple[str, list[tuple[Beside, Marginal]]]]) -> str:
        """Marginals, each with a row for every posterior that has it."""
        own = ["posterior"] if len(self.posteriors) > 1 else []
        lines = [
            [label if i == 0 else "", *([posterior.name] if own else []), *_numbers(m, i == 0)]
            for label, marginals in rows
            for i, (posterior, m) in enumerate(marginals)
        ]
        return render(title, ["", *own, "ref mean", "ref sd", *HEADER], lines, numbers=True)

    def _summary(self, title: str) -> str:
        """The worst of each posterior."""
        rows = [(x.name, x.worst.name, *_numbers(x.worst, False)[2:], _k_hat(x), _course(x)) for x in self.posteriors]
        return render(title, ("", "worst\nmarginal", *HEADER, "k-hat", "loss"), rows, numbers=True)

    def _sentences(self) -> Iterator[str]:
        if len(self.posteriors) == 1:
            yield from map(wrapped, self.only.sentences())
        else:
            yield wrapped("k-hat: " + SAID_OF_WEIGHTS)
        said = str(self.reference)
        yield wrapped(said if self.reference.name == "reference" else f"reference {said}")
        constant = list(dict.fromkeys(m.name for x in self.posteriors for m in x.marginals if not m.reference_sd))
        if constant:
            yield wrapped(f"constant in the reference, so that no sd is a unit: {', '.join(constant)}")
        for names in dict.fromkeys(x.only_here for x in self.posteriors if x.only_here):
            sides = [_the(x.name) for x in self.posteriors if x.only_here == names]
            yield wrapped(f"only in {', '.join(sides)}, not compared: {', '.join(names)}")
        lacking: dict[tuple[str, ...], list[str]] = {}
        for name in dict.fromkeys(name for x in self.posteriors for name in x.only_reference):
            lacking.setdefault(tuple(x.name for x in self.posteriors if name in x.only_reference), []).append(name)
        for sides, names in lacking.items():
            everywhere = len(sides) == len(self.posteriors)
            where = f"only in {_the(self.reference.name)}" if everywhere else f"not in {', '.join(map(_the, sides))}"
            yield wrapped(f"{where}, not compared{'' if everywhere else ' there'}: {', '.join(names)}")

    def to_dataframe(self) -> pd.DataFrame:
        """All marginals of all posteriors, the worst of each first, one a row."""
        import pandas as pd

        fields = (
            "name",
            "site",
            "mean",
            "sd",
            "reference_mean",
            "reference_sd",
            "mean_error",
            "sd_ratio",
            "wasserstein",
        )
        rows = [
            {"posterior": x.name, **{field: getattr(m, field) for field in fields}, "k_hat": x.k_hat}
            for x in self.posteriors
            for m in sorted(x.marginals, key=lambda m: -m.badness)
        ]
        return pd.DataFrame(rows).rename(columns={"name": "marginal"})

    def plot(self, ax: Any = None, most: int = 20) -> Any:
        """Draw the worst marginals: mean and one and two sds of each posterior, in sds of the reference from its mean; the axes
        of matplotlib."""
        from ppvi._plots import plot_marginals

        return plot_marginals(self, ax, most)


HEADER = ("mean error\n/ sd", "sd ratio", "W1 / sd")


def _the(name: str) -> str:
    return f"the {name}" if name in ("fit", "reference") else name


def _numbers(m: Marginal, with_reference: bool) -> list[str]:
    theirs = [f"{m.reference_mean:.3g}", f"{m.reference_sd:.3g}"] if with_reference else ["", ""]
    return [*theirs, f"{m.mean_error:+.2f}", f"{m.sd_ratio:.2f}", f"{m.wasserstein:.2f}"]


def _k_hat(posterior: Beside) -> str:
    if posterior.k_hat is None or posterior.threshold is None:
        return "-"
    if posterior.k_hat == -math.inf:
        return "none"
    return f"{posterior.k_hat:.2f}{'' if posterior.k_hat < posterior.threshold else ' (!)'}"


def _course(posterior: Beside) -> str:
    if posterior.course is None:
        return "-"
    return {None: "noisy", 0.0: "settled"}.get(posterior.moving, "moving")


SAID_OF_WEIGHTS = (
    "importance weights can correct a posterior where it draws, and (!) cannot at this number of draws; they say nothing of "
    "where it does not draw: a guide far too narrow looks the same"
)


def _of_weights(k_hat: float | None, limit: float | None) -> str:
    """What k-hat says, and what it cannot say."""
    if k_hat is None or limit is None:
        return "none, so that nothing is known of the fit but its marginals"
    if k_hat == -math.inf:
        return (
            "all are one, but for rounding, so that there is no tail and nothing that they would correct where it draws"
        )
    if not k_hat < limit:
        return f"PSIS k-hat {k_hat:.2f}, not below {limit:.2f}: they do not correct this fit, at this number of draws"
    return (
        f"PSIS k-hat {k_hat:.2f}, below {limit:.2f}: they can correct the fit where it draws, and say nothing of where it does "
        f"not: a guide far too narrow looks the same"
    )
