"""Choosing a strategy for each site: the user's, or the first default that is cheap; refusals of what is biased or endless."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from ppvi._doors import close_to
from ppvi.analysis.inlined import flatten
from ppvi.analysis.intervals import interval
from ppvi.analysis.ranges import Ranges
from ppvi.compiler.dependence import Lanes, breadth, own_lanes, site_lanes, sources_of
from ppvi.compiler.joint import SMALL_SUPPORT, Joint, support_size
from ppvi.compiler.terms import Decomposition, Sites, Term
from ppvi.errors import StrategyError
from ppvi.ir import POINT, Atom, Candidate, Equation, Program, Sited, SiteInfo, Var, equations_behind, union
from ppvi.strategies import Draw, Strategy
from ppvi.strategies.alternatives import LIMIT


@dataclass(frozen=True)
class Choice:
    """The strategy of a site, and why."""

    equation: Equation[Sited]
    candidate: Candidate
    coupling: Callable[[], str] | None
    """Where its lanes are coupled, if they are; found only when somebody asks."""
    joint: Joint | None = None
    """The sites that it is enumerated together with."""

    @property
    def reason(self) -> str:
        return _reason(self)

    @property
    def strategy(self) -> Strategy:
        return self.candidate.strategy

    @property
    def kept(self) -> list[Atom]:
        """What its strategy has of the site's distribution, beside the value."""
        places = zip(Draw._fields, self.candidate.fields, strict=True)
        return [self.equation.inputs[i] for name, i in places if i is not None and name not in ("value", "values")]

    @property
    def info(self) -> SiteInfo:
        return self.equation.role.info


def choose(
    sites: list[Equation[Sited]],
    parts: Decomposition,
    dependence: dict[Var, Sites],
    terms_of: dict[Equation, frozenset[int]],
    joints: Sequence[Joint] = (),
) -> dict[Equation, Choice]:
    """Give each site the first of its candidates that is cheap; refuse one that the user named and that is not.

    Enumerated sites multiply the runs of the terms that they share, so sites are chosen for in order; those that can be
    enumerated together do so once.
    """
    total = [1] * len(parts.terms)
    joint_of = {site: joint for joint in joints for site in joint.candidates}
    choices: dict[Equation, Choice] = {}
    for site in sites:
        joint = joint_of.get(site)
        if site not in choices and joint and max(total[i] for i in joint.terms) * joint.largest <= LIMIT:
            choices |= {other: Choice(other, candidate, None, joint) for other, candidate in joint.candidates.items()}
            for i in joint.terms:
                total[i] *= joint.largest
        if site in choices:
            continue
        mine = {i: parts.terms[i] for i in sorted(terms_of.get(site, ()))}
        widest = max(mine.values(), key=lambda term: breadth(term.reach[site]), default=None)
        place = None
        if widest is not None and coupled(site, widest):
            place = functools.partial(coupling, parts.equations, dependence, site, widest)
        *preferred, last = site.role.info.candidates
        follows = site.role.info in site.role.past  # one round after the other, as far as they are coupled
        cheap = (c for c in preferred if (place is None or follows) and support_size(site, c) <= SMALL_SUPPORT)
        cheap = (c for c in cheap if _most_runs(site, c, mine, total) <= LIMIT)
        candidate = next(cheap, last)
        most = _most_runs(site, candidate, mine, total)
        asked = support_size(site, candidate) if site.role.info.named else 1
        if most > max(LIMIT, asked, *(total[i] for i in mine)):
            raise StrategyError(_too_expensive(site, candidate, most, place))
        for i, term in mine.items():
            total[i] *= runs(site, candidate, term)
        choices[site] = Choice(site, candidate, place)
    return {site: choices[site] for site in sites}


def first_candidate(site: Equation[Sited]) -> Candidate:
    """The candidate that a site prefers. Candidates of one site have one route."""
    return site.role.info.candidates[0]


def runs(site: Equation[Sited], candidate: Candidate, term: Term) -> int:
    """Differentiable runs of a term that a candidate costs."""
    return candidate.strategy.runs(support_size(site, candidate), _coupled_lanes(site, term))


def evaluations(site: Equation[Sited], candidate: Candidate, term: Term) -> int:
    """Plain evaluations of a term that a candidate costs beside its runs."""
    return candidate.strategy.evaluations(support_size(site, candidate), _coupled_lanes(site, term))


def _coupled_lanes(site: Equation[Sited], term: Term) -> int:
    return math.prod(coupled(site, term).values())


def _most_runs(site: Equation[Sited], candidate: Candidate, terms: dict[int, Term], total: list[int]) -> int:
    return max((total[i] * runs(site, candidate, term) for i, term in terms.items()), default=1)


def coupled(site: Equation[Sited], term: Term) -> dict[int, int]:
    """The lane axes of a site that a term couples, each with how many lanes in a row an entry of the term depends on."""
    sized = zip(term.reach[site], site_lanes(site), strict=True)
    widths = (size if place is None else min(place.width, size) for place, size in sized)
    return {axis: int(width) for axis, width in enumerate(widths) if width > 1}


def coupling(equations: tuple[Equation, ...], dependence: dict[Var, Sites], site: Equation[Sited], term: Term) -> str:
    """Where lanes of a site that were apart first meet on the way to a term: "operation at file:line"."""
    behind = union(equations_behind(equations).get(part.atom, 0) for part in term.parts)
    for i, equation in enumerate(equations):
        if behind >> i & 1 and equation is not site:
            before = [lanes for atom in equation.inputs if (lanes := _lanes(dependence, atom, site)) is not None]
            after = [lanes for var in equation.outputs if (lanes := _lanes(dependence, var, site)) is not None]
            apart = min((breadth(lanes) for lanes in before), default=math.inf)
            if any(breadth(lanes) > max(apart, breadth(own_lanes(site))) for lanes in after):
                return f"{equation.op} at {equation.where()}"
    return f"the site itself at {site.role.info.where}"


def _lanes(dependence: dict[Var, Sites], atom: Atom, site: Equation[Sited]) -> Lanes | None:
    return sources_of(dependence, atom).get(site)


# Messages -------------------------------------------------------------------------------------------------------------


def _reason(choice: Choice) -> str:
    site, candidate, place = choice.equation, choice.candidate, choice.coupling
    together = (
        "" if choice.joint is None else f"summed over together with {len(choice.joint.candidates) - 1} other sites"
    )
    if site.role.info.named:
        return ", ".join(filter(None, ("named by the user", together)))
    if candidate.strategy.route == "path":
        return "reparameterised sampler, support free of parameters"
    if len(site.role.info.candidates) == 1:
        return "no reparameterised sampler, no finite support"
    if candidate is first_candidate(site):
        how = together or ("lanes separable in every term" if place is None else "a Markov chain")
        return f"finite support of {support_size(site, candidate)}, {how}"
    if place is not None:
        return f"finite support, but lanes coupled by {place()}"
    return f"finite support, but more than {SMALL_SUPPORT} values or more than {LIMIT} runs"


def _too_expensive(site: Equation[Sited], candidate: Candidate, runs: int, place: Callable[[], str] | None) -> str:
    info = site.role.info
    coupled = place and f"its lanes {site_lanes(site)} are coupled by {place()}"
    return (
        f"site {info.name!r} ~ {info.distribution} at {info.where}: {candidate.strategy} would cost {float(runs):.3g} runs "
        f"of the objective, more than {LIMIT}, because {coupled or 'it nests in other enumerated sites'}. "
        f"LeaveOneOut() or Reinforce() cost one run whatever is coupled{_MARKED if info.named else ''}."
    )


_MARKED = "; and without a mark infer={'enumerate': ...} or config_enumerate, if it has one, the site has a default"


def refuse_unknown(strategies: Iterable[str], drawn: Collection[str]) -> None:
    """Strategies are for sites that the objective draws."""
    unknown = sorted(set(strategies) - set(drawn))
    if unknown:
        raise StrategyError(
            f"strategies name the site {unknown[0]!r}, which the objective never draws; it draws {sorted(drawn)}."
            f"{close_to(unknown[0], drawn)}"
        )


def refuse_moving_supports(program: Program, choices: dict[Equation, Choice]) -> None:
    """A support that moves with a parameter biases a score function, and is no default for anything."""
    if not any(site.role.info.bounds for site in choices):
        return
    moving = set(program.params)
    for equation in program.equations:
        carries = equation.differentiable and any(atom in moving for atom in equation.inputs)
        if carries and (not equation.is_site or choices[equation].strategy.route != "credit"):
            moving.update(equation.outputs)
        if not equation.is_site:
            continue
        site, strategy = equation.role.info, choices[equation].strategy
        bounds = [bound for i in site.bounds if (bound := equation.inputs[i]) in moving]
        asked = site.named or site.support.name == POINT  # which has no ends that a value could pass
        if bounds and (strategy.fixed_support or not asked) and not _stay(bounds, program):
            raise moving_support(site.name, site.distribution, site.where, strategy)


def _stay(bounds: Sequence[Atom], program: Program) -> bool:
    """Whether the ends of a support are the same numbers whatever they are made of, as infinities are."""
    flat = flatten(program.equations, bounds, lambda site: True, program.constants)
    ranges = Ranges(flat.makers, {var: interval(support) for var, support in program.supports.items()})
    return all(ranges.is_number(flat.atom(bound)) for bound in bounds)


def moving_support(name: str, distribution: str, where: str, strategy: Strategy) -> StrategyError:
    """The error of a strategy for a site whose support moves with a parameter."""
    return StrategyError(
        f"site {name!r} ~ {distribution} at {where}: its support moves with a parameter, which "
        f"{'biases' if strategy.fixed_support else 'may bias'} {strategy}. Name Reparam() for it if the objective is "
        f"continuous in the site, up to the ends of the support."
    )
