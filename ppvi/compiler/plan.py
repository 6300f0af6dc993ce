"""The plan: a staged program with its terms, a strategy for each site, and what both cost.

Sites whose draw carries its own gradient (`pathwise`) need no credit and play no part in the analysis: given the noise,
everything else is a function of the other sites, the *credited* ones.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass

from ppvi.compiler.dependence import Lanes, propagate, site_lanes
from ppvi.compiler.ir import Atom, Candidate, Equation, Program, SiteInfo, Var
from ppvi.compiler.terms import Sites, Term, decompose
from ppvi.errors import StrategyError
from ppvi.strategies import Draw, Strategy

LIMIT = 4096
"""The most runs of a term that enumeration may cost before it is refused."""

SMALL_SUPPORT = 16
"""The largest support that is enumerated without being asked for."""


@dataclass(frozen=True)
class Choice:
    """The strategy of a site, and why."""

    equation: Equation
    candidate: Candidate
    reason: str

    @property
    def strategy(self) -> Strategy:
        return self.candidate.strategy

    @property
    def info(self) -> SiteInfo:
        return info(self.equation)


@dataclass(frozen=True)
class Plan:
    """Everything that the surrogate needs, found once per staging."""

    program: Program
    equations: tuple[Equation, ...]
    terms: tuple[Term, ...]
    tail: tuple[Equation, ...]
    dependence: dict[Var, Sites]
    choices: dict[Equation, Choice]
    terms_of: dict[Equation, frozenset[int]]
    """The terms that depend on a credited site."""
    fixed: tuple[Equation, ...]
    """Equations that no credited site reaches: the same in every run."""
    effects: int
    """Equations that side effects need, as a bit set."""
    needs: tuple[int, ...]
    """For each term the equations behind it that credited sites reach, as a bit set."""


def plan(program: Program) -> Plan:
    """Analyse a staged program and choose a strategy for every site.

    **Raises** `StrategyError` where a strategy would be biased or would cost more than `LIMIT` runs.
    """
    sites = [equation for equation in program.equations if equation.site is not None]
    credited = {site for site in sites if not _first(site).strategy.pathwise}
    dependence: dict[Var, Sites] = propagate(
        program.equations, {}, lambda site: {site: _own_lanes(site)} if site in credited else {}
    )
    parts = decompose(program, dependence)
    terms_of = {site: frozenset[int]() for site in credited}
    for i, term in enumerate(parts.terms):
        for site in term.dependence:
            terms_of[site] |= {i}
    choices = _choose(sites, parts.equations, dependence, parts.terms, terms_of)
    _refuse_moving_supports(program, choices)

    behind = equations_behind(parts.equations)
    reached = _bits(_is_reached(equation, dependence, credited) for equation in parts.equations)
    effects = _union(behind[equation] for equation in parts.equations if equation.effect)
    coefficients = (atom for equation in parts.tail for atom in equation.inputs)
    needs = tuple(_union(behind.get(part.atom, 0) for part in term.parts) for term in parts.terms)
    wanted = effects | _union(needs) | _union(behind.get(atom, 0) for atom in coefficients)
    return Plan(
        program=program,
        equations=parts.equations,
        terms=parts.terms,
        tail=parts.tail,
        dependence=dependence,
        choices=choices,
        terms_of=terms_of,
        fixed=tuple(e for i, e in enumerate(parts.equations) if (wanted & ~reached) >> i & 1),
        effects=effects & reached,
        needs=tuple(need & reached for need in needs),
    )


def coupled_axes(site: Equation, term: Term) -> tuple[int, ...]:
    """The lane axes of a site that a term couples."""
    sized = zip(term.dependence[site], site_lanes(site), strict=True)
    return tuple(i for i, (axis, size) in enumerate(sized) if axis is None and size > 1)


def coupling(equations: tuple[Equation, ...], dependence: dict[Var, Sites], site: Equation, term: Term) -> str:
    """Where lanes of a site that were apart first meet on the way to a term: "operation at file:line"."""
    behind = _union(equations_behind(equations).get(part.atom, 0) for part in term.parts)
    for i, equation in enumerate(equations):
        if behind >> i & 1 and equation is not site:
            before = [lanes for atom in equation.inputs if (lanes := _lanes(dependence, atom, site)) is not None]
            after = [lanes for var in equation.outputs if (lanes := _lanes(dependence, var, site)) is not None]
            apart = min((lanes.count(None) for lanes in before), default=len(site_lanes(site)))
            if any(lanes.count(None) > apart for lanes in after):
                return f"{equation.op} at {equation.where()}"
    return f"the site itself at {info(site).where}"


def equations_behind(equations: tuple[Equation, ...]) -> dict[Atom | Equation, int]:
    """For each variable, and each equation run for its effect, the equations that it needs, as a bit set."""
    behind: dict[Atom | Equation, int] = {}
    for i, equation in enumerate(equations):
        needs = _union(behind.get(atom, 0) for atom in equation.inputs) | 1 << i
        for key in (*equation.outputs, *([equation] if equation.effect else ())):
            behind[key] = needs
    return behind


def info(site: Equation) -> SiteInfo:
    """What is known of a site equation."""
    assert site.site is not None
    return site.site


def _first(site: Equation) -> Candidate:
    return info(site).candidates[0]


def _lanes(dependence: dict[Var, Sites], atom: Atom, site: Equation) -> Lanes | None:
    return dependence.get(atom, {}).get(site) if isinstance(atom, Var) else None


def _own_lanes(site: Equation) -> Lanes:
    return tuple(axis if size > 1 else None for axis, size in enumerate(site_lanes(site)))


def _is_reached(equation: Equation, dependence: dict[Var, Sites], credited: set[Equation]) -> bool:
    atoms = (*equation.inputs, *equation.outputs)
    return equation in credited or any(isinstance(atom, Var) and bool(dependence.get(atom)) for atom in atoms)


def _union(sets: Iterable[int]) -> int:
    return functools.reduce(operator.or_, sets, 0)


def _bits(flags: Iterable[bool]) -> int:
    return sum(1 << i for i, flag in enumerate(flags) if flag)


# Choosing strategies ------------------------------------------------------------------------------------------------


def _choose(
    sites: list[Equation],
    equations: tuple[Equation, ...],
    dependence: dict[Var, Sites],
    terms: tuple[Term, ...],
    terms_of: dict[Equation, frozenset[int]],
) -> dict[Equation, Choice]:
    """Give each site the first of its candidates that is cheap; refuse one that the user named and that is not."""
    total = [1] * len(terms)
    choices: dict[Equation, Choice] = {}
    for site in sites:
        mine = sorted(terms_of.get(site, ()))
        worst = max(mine, key=lambda i: len(coupled_axes(site, terms[i])), default=None)
        place = None if worst is None else functools.partial(coupling, equations, dependence, site, terms[worst])
        for candidate in info(site).candidates:
            runs = {i: _runs(site, candidate, terms[i]) for i in mine}
            expensive = max((total[i] * runs[i] for i in mine), default=1)
            coupled = worst is not None and bool(coupled_axes(site, terms[worst]))
            small = support_size(site, candidate) <= SMALL_SUPPORT and not coupled
            last = candidate is info(site).candidates[-1]
            if last or (small and expensive <= LIMIT):
                break
        if expensive > LIMIT:
            raise StrategyError(_too_expensive(site, candidate, expensive, place() if coupled and place else None))
        for i in mine:
            total[i] *= runs[i]
        choices[site] = Choice(site, candidate, _reason(site, candidate, place() if coupled and place else None))
    return choices


def support_size(site: Equation, candidate: Candidate) -> int:
    """Number of alternative values that a candidate keeps, 1 if none."""
    values = candidate.fields[Draw._fields.index("values")]
    return 1 if values is None else site.inputs[values].shape[site.mapped]


def _runs(site: Equation, candidate: Candidate, term: Term) -> int:
    lanes = math.prod(site_lanes(site)[axis] for axis in coupled_axes(site, term))
    return candidate.strategy.runs(support_size(site, candidate), lanes)


def _reason(site: Equation, candidate: Candidate, place: str | None) -> str:
    if info(site).named:
        return "named by the user"
    if candidate.strategy.pathwise:
        return "reparameterised sampler, support free of parameters"
    if len(info(site).candidates) == 1:
        return "no reparameterised sampler, no finite support"
    if candidate is _first(site):
        return f"finite support of {support_size(site, candidate)}, lanes separable in every term"
    if place is not None:
        return f"finite support, but lanes coupled by {place}"
    return f"finite support, but more than {SMALL_SUPPORT} values or more than {LIMIT} runs"


def _too_expensive(site: Equation, candidate: Candidate, runs: int, place: str | None) -> str:
    cause = f"its lanes {site_lanes(site)} are coupled by {place}" if place else "it nests in other enumerated sites"
    return (
        f"site {info(site).name!r} ~ {info(site).distribution} at {info(site).where}: {candidate.strategy} would cost "
        f"{float(runs):.3g} runs of the objective, more than {LIMIT}, because {cause}. "
        f"LeaveOneOut() or Reinforce() cost one run whatever is coupled."
    )


def _refuse_moving_supports(program: Program, choices: dict[Equation, Choice]) -> None:
    """A support that moves with a parameter biases a score function, and is no default for anything."""
    if not any(info(site).bounds for site in choices):
        return
    moving = set(program.params)
    for equation in program.equations:
        carries = equation.differentiable and any(atom in moving for atom in equation.inputs)
        if carries and (equation.site is None or choices[equation].strategy.pathwise):
            moving.update(equation.outputs)
        if equation.site is None or not any(equation.inputs[i] in moving for i in equation.site.bounds):
            continue
        strategy = choices[equation].strategy
        if strategy.fixed_support or not equation.site.named:
            raise StrategyError(
                f"site {equation.site.name!r} ~ {equation.site.distribution} at {equation.site.where}: its support moves "
                f"with a parameter, which {'biases' if strategy.fixed_support else 'may bias'} {strategy}. Name Reparam() "
                f"for it if the objective is continuous in the site, up to the ends of the support."
            )
