"""Explanations: what the compiler saw in a program and decided, as a person wants to read it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ppvi.compiler.choose import Choice, coupled, evaluations, runs
from ppvi.compiler.dependence import site_lanes
from ppvi.compiler.joint import Joint
from ppvi.compiler.plan import Plan
from ppvi.compiler.terms import Term
from ppvi.ir import (
    Along,
    Atom,
    Constant,
    Density,
    Equation,
    Estimate,
    Lifted,
    Looped,
    Marginalised,
    Role,
    Sited,
    Summed,
)
from ppvi.proofs.findings import StaticReport


@dataclass(frozen=True)
class SiteReport:
    """One site of an objective."""

    name: str
    distribution: str
    where: str
    lanes: tuple[int, ...]
    strategy: str
    reason: str
    credit: str
    runs: int
    """Differentiable runs of a term that depends on the site."""
    evaluations: int
    """Plain evaluations of it beside them."""


@dataclass(frozen=True)
class TermReport:
    """One term of an objective."""

    parts: tuple[str, ...]
    """What it adds up, each with the user's file and line."""
    shape: tuple[int, ...]
    sites: dict[str, str]
    """Site -> how the term depends on its lanes."""
    runs: int
    """Differentiable runs, the product of its sites' runs."""
    evaluations: int
    """Plain evaluations: for each site its own, in every run of the sites before it."""


@dataclass(frozen=True)
class Explanation:
    """What `Objective.explain` returns: the sites and terms of an objective. Printable."""

    sites: tuple[SiteReport, ...]
    terms: tuple[TermReport, ...]
    static: StaticReport
    """What can be proved of the gradient."""
    engine: str = "staged as one straight-line program"
    """How the objective runs, and why."""
    summed: tuple[Marginalised, ...] = ()
    """Which sites are summed out, and how."""

    def __str__(self) -> str:
        from ppvi._tables import prose, render

        sites = [
            (s.name, s.distribution, s.where, _shape(s.lanes), s.strategy, s.credit, _cost(s), s.reason)
            for s in self.sites
        ]
        terms = [
            (
                "; ".join(t.parts),
                _shape(t.shape),
                ", ".join(f"{name} ({how})" for name, how in t.sites.items()) or "-",
                _cost(t),
            )
            for t in self.terms
        ]
        header = ("site", "distribution", "at", "lanes", "strategy", "credit", "runs", "because")
        found = [
            prose(f"engine: {self.engine}"),
            render("sites", header, sites, below=("because", "at", "credit", "distribution")),
        ]
        if terms:
            found.append(render("terms: the objective adds up", ("parts", "shape", "depends on", "runs"), terms))
        sums = [(", ".join(x.order), f"{x.largest:.3g}", ", ".join(x.of)) for x in self.summed]
        if sums:
            found.append(render("sites that are summed out", ("in this order", "entries", "of the table over"), sums))
        return "\n".join([*found, prose(str(self.static))])


def explain(plan: Plan, static: StaticReport) -> Explanation:
    """Report on a plan, with what the static check says of it."""
    makers: dict[Atom, Equation] = {var: equation for equation in plan.equations for var in equation.outputs}
    return Explanation(
        sites=tuple(_site(plan, equation, choice) for equation, choice in plan.choices.items()),
        terms=tuple(
            TermReport(
                parts=tuple(_operation(makers.get(part.atom)) for part in term.parts),
                shape=term.shape,
                sites={site.role.info.name: _how(site, term) for site in term.dependence},
                **_total(plan, term),
            )
            for term in plan.terms
        ),
        static=static,
        summed=tuple(e.role for e in plan.program.equations if isinstance(e.role, Marginalised)),
    )


def _site(plan: Plan, equation: Equation, choice: Choice) -> SiteReport:
    mine = [plan.terms[i] for i in sorted(plan.terms_of.get(equation, ()))]
    lanes = site_lanes(equation)
    return SiteReport(
        name=choice.info.name,
        distribution=choice.info.distribution,
        where=choice.info.where,
        lanes=lanes,
        strategy=str(choice.strategy) if choice.strategy.unbiased else f"{choice.strategy}: biased by design",
        reason=choice.reason,
        credit=_credit(choice, mine, lanes),
        runs=max((_runs(choice, term) for term in mine), default=1),
        evaluations=max((evaluations(equation, choice.candidate, term) for term in mine), default=0),
    )


def _total(plan: Plan, term: Term) -> dict[str, int]:
    """What a term costs, its sites taken in the order of the program."""
    total, plain, met = 1, 0, set[Joint]()
    for site, choice in plan.choices.items():
        if site in term.dependence and choice.joint not in met:
            plain += total * evaluations(site, choice.candidate, term)
            total *= _runs(choice, term)
            met |= {choice.joint} - {None}
    return {"runs": total, "evaluations": plain}


def _runs(choice: Choice, term: Term) -> int:
    return runs(choice.equation, choice.candidate, term) if choice.joint is None else choice.joint.largest


def _cost(report: SiteReport | TermReport) -> str:
    return f"{report.runs} and {report.evaluations} plain" if report.evaluations else str(report.runs)


def _credit(choice: Choice, terms: list[Term], lanes: tuple[int, ...]) -> str:
    if choice.strategy.route == "path":
        return "by the path"
    if not terms:
        return "no term depends on it"
    if math.prod(lanes) == 1:
        return f"{len(terms)} terms"
    joint = sum(bool(coupled(choice.equation, term)) for term in terms)
    return f"{len(terms)} terms, {len(terms) - joint} lane by lane, {joint} coupled"


def _how(site: Equation, term: Term) -> str:
    if math.prod(site_lanes(site)) == 1:
        return "one lane"
    places = term.dependence[site]
    joint = tuple(axis for axis, place in enumerate(places) if place is None and site_lanes(site)[axis] > 1)
    found = [f"couples lane axes {joint}"] if joint else []
    found += [
        f"{_window(place)} along lane axis {axis}" for axis, place in enumerate(places) if place and place.width > 1
    ]
    return ", ".join(found) or "lane by lane"


def _window(place: Along) -> str:
    if place.width < math.inf:
        return f"{place.width:.0f} lanes in a row"
    return "lanes up to its own" if math.isinf(place.first) else "lanes from its own on"


def _operation(equation: Equation[Role] | None) -> str:
    if equation is None:
        return "input"
    match equation.role:
        case Sited(site):
            return f"{site.name} itself ({equation.where()})"
        case Estimate(of):
            return f"estimate: {of} ({equation.where()})"
        case Density(site, at="credited draw"):
            return f"log_prob of {site} ({equation.where()}, own draw)"
        case Density(site):
            return f"log_prob of {site} ({equation.where()})"
        case Marginalised(order):
            return f"log of the sum over {', '.join(order)} ({equation.where()})"
        case Constant() | Summed() | Looped() | Lifted() | None:
            return f"{equation.op} ({equation.where()})"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "1"
