"""The plan: a staged program with its terms, a strategy for each site, and the order of its computations.

Sites whose gradient goes along the path of the draw alone (`route`) need no credit and play no part in the analysis:
given the noise, everything else is a function of the other sites, the *credited* ones. What no credited site reaches is
computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ppvi._ops import Ops
from ppvi.compiler.choose import Choice, choose, first_candidate, refuse_moving_supports
from ppvi.compiler.dependence import join, own_lanes, propagate, site_lanes, sources_of
from ppvi.compiler.infinities import Edges, guarded
from ppvi.compiler.joint import Joint, joints, joints_last
from ppvi.compiler.terms import Decomposition, Sites, Term, decompose
from ppvi.ir import Atom, Equation, Program, Var, equations_behind, union


@dataclass(frozen=True)
class Plan:
    """Everything that the surrogate needs, found once per staging."""

    program: Program
    edges: Edges
    equations: tuple[Equation, ...]
    terms: tuple[Term, ...]
    tail: tuple[Equation, ...]
    choices: dict[Equation, Choice]
    terms_of: dict[Equation, frozenset[int]]
    """The terms that depend on a credited site."""
    joints: Mapping[Equation, Joint]
    """The sites that are enumerated together with others."""
    late: int
    """Where the equations begin that depend on such sites."""
    fixed: tuple[Equation, ...]
    """Equations that can be run before any credited site is drawn: the same in every run."""
    stateful: dict[str, Equation]
    """The sites whose strategies have a state, by name; another site of one name has its number appended."""
    effects: int
    """Equations that side effects need, as a bit set."""
    beside: int
    """Equations that credited sites reach and that coefficients of the tail need, which do not depend on what is drawn: an
    operation may return both."""
    needs: tuple[int, ...]
    """For each term the equations behind it that run after a credited site, as a bit set."""


def plan(program: Program, ops: Ops) -> Plan:
    """Guard and analyse a staged program, and choose a strategy for every site.

    **Raises** `StrategyError` where a strategy would be biased or would cost more than `LIMIT` runs.
    """
    edges = Edges.of(program, ops)
    program = guarded(program, edges)
    sites = [equation for equation in program.equations if equation.is_site]
    credited = {site for site in sites if first_candidate(site).strategy.route != "path"}
    equation_of = {site.role.info: site for site in credited}

    def own(site: Equation) -> Sites:
        return {site: own_lanes(site)} if site in credited else {}

    def given_past(site: Equation) -> Sites:
        return own(site) | {equation_of[info]: lanes for info, lanes in site.role.past.items()}

    dependence: dict[Var, Sites] = propagate(program.equations, {}, given_past)
    parts = decompose(program, dependence)
    if any(site.role.past for site in credited):
        parts = _with_reach(parts, propagate(parts.equations, {}, own))
    terms_of = {site: frozenset[int]() for site in credited}
    for i, term in enumerate(parts.terms):
        for site in term.dependence:
            terms_of[site] |= {i}
    choices = choose(
        sites, parts, dependence, terms_of, joints([site for site in sites if site in credited], parts, dependence)
    )
    refuse_moving_supports(program, choices)
    together = list(dict.fromkeys(choice.joint for choice in choices.values() if choice.joint is not None))
    ordered, late = joints_last(parts.equations, together)
    parts = replace(parts, equations=ordered)

    behind = equations_behind(parts.equations)
    drawn = _bits(equation in credited for equation in parts.equations)
    reached = _bits(bool(_behind(equation, behind) & drawn) for equation in parts.equations)
    effects = union(behind[equation] for equation in parts.equations if equation.effect)
    of_terms = {part.atom for term in parts.terms for part in term.parts} | {v for e in parts.tail for v in e.outputs}
    of_tail = {atom for equation in parts.tail for atom in equation.inputs} - of_terms
    coefficients = union(behind.get(atom, 0) for atom in of_tail)
    needs = tuple(union(behind.get(part.atom, 0) for part in term.parts) for term in parts.terms)
    wanted = effects | union(needs) | coefficients
    return Plan(
        program=program,
        edges=edges,
        equations=parts.equations,
        terms=parts.terms,
        tail=parts.tail,
        choices=choices,
        terms_of=terms_of,
        joints={site: joint for joint in together for site in joint.candidates},
        late=late,
        fixed=tuple(e for i, e in enumerate(parts.equations) if (wanted & ~reached) >> i & 1),
        stateful=_stateful(choices),
        effects=effects & reached,
        beside=coefficients & reached,
        needs=tuple(need & reached for need in needs),
    )


def _stateful(choices: dict[Equation, Choice]) -> dict[str, Equation]:
    found: dict[str, Equation] = {}
    for site, choice in choices.items():
        if choice.strategy.stateful:
            name, number = choice.info.name, 1
            while name in found:
                number += 1
                name = f"{choice.info.name} ({number})"
            found[name] = site
    return found


def initial_states(plan: Plan, ops: Ops) -> dict[str, Any]:
    """The states before the first gradient."""
    return {name: plan.choices[site].strategy.init(site_lanes(site), ops) for name, site in plan.stateful.items()}


def _with_reach(parts: Decomposition, direct: dict[Var, Sites]) -> Decomposition:
    """Terms that know which lanes they are functions of, beside those on which their distribution depends."""

    def reach(term: Term) -> Sites:
        found: Sites = {}
        for part in term.parts:
            found = join(found, sources_of(direct, part.atom))
        return {site: found.get(site, lanes) for site, lanes in term.dependence.items()}

    return replace(parts, terms=tuple(replace(term, reach=reach(term)) for term in parts.terms))


def _behind(equation: Equation, behind: Mapping[Atom | Equation, int]) -> int:
    """What has run when an equation has, whether or not its results depend on it."""
    return union(behind.get(key, 0) for key in (equation, *equation.outputs))


def _bits(flags: Iterable[bool]) -> int:
    return sum(1 << i for i, flag in enumerate(flags) if flag)
