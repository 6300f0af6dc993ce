"""Finite sites that are enumerated together, rather than one within the other.

In a nest of sums each of T sites that follow one another multiplies the runs of the rest, K^T of them. A term that is a
function of two of them needs no more than the probabilities of their pairs (`ppvi.compiler.marginals`), which of a Markov
chain take T K^2. Which sites these are is known from what their distributions and the terms are functions of.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ppvi.compiler.dependence import own_lanes, propagate, push, site_lanes
from ppvi.compiler.elimination import in_order
from ppvi.compiler.factors import Classes, Part, lanes_alone
from ppvi.compiler.terms import Decomposition, Sites, Term
from ppvi.ir import Along, Atom, Candidate, Equation, Sited, Var
from ppvi.strategies.alternatives import LIMIT

Site = Equation[Sited]


@dataclass(frozen=True, eq=False)
class Joint:
    """Sites that are enumerated together."""

    candidates: Mapping[Site, Candidate]
    terms: frozenset[int]
    """Those that depend on them."""
    largest: int
    """How many values the largest table has, of one lane."""


# Which sites --------------------------------------------------------------------------------------------------------------


def joints(sites: Sequence[Site], parts: Decomposition, dependence: Mapping[Var, Sites]) -> list[Joint]:
    """The groups of sites that can be enumerated together, where that takes less than a nest of sums.

    What depends on them must do so lane by lane, and no other site may be drawn given them.
    """
    summed = _summed(sites, dependence)
    equations = [equation for equation in parts.equations if equation not in summed]
    direct = propagate(equations, {site.outputs[0]: {site: own_lanes(site)} for site in summed}, lambda site: {})
    found = []
    for group in _groups(summed, [term.dependence for term in parts.terms]):
        candidates = {site: candidate for site, candidate in summed.items() if site in group}
        terms = {i: term for i, term in enumerate(parts.terms) if not group.isdisjoint(term.dependence)}
        values = {site: _values(site, candidate) for site, candidate in candidates.items()}
        nest = max(math.prod(values[site] for site in group.intersection(term.dependence)) for term in terms.values())
        largest = _largest(values, *_scopes(candidates, terms.values(), direct))
        if largest < nest and largest <= LIMIT:
            found.append(Joint(candidates, frozenset(terms), int(largest)))
    return found


def _summed(sites: Sequence[Site], dependence: Mapping[Var, Sites]) -> dict[Site, Candidate]:
    """The sites that may be summed over, given which no other site is drawn."""
    behind = {site: {other for atom in site.inputs for other in _of(dependence, atom)} - {site} for site in sites}
    in_loops = {info for site in sites for info in site.role.past}
    found = {}
    for site in sites:
        able = [x for x in site.role.info.candidates if x.strategy.sums_out]
        if able and site.role.info not in in_loops and not site.role.past:
            found[site] = able[0]
    while drawn_given := {site for other in sites if other not in found for site in behind[other]}.intersection(found):
        found = {site: candidate for site, candidate in found.items() if site not in drawn_given}
    return found


def _groups(sites: Collection[Site], together: Iterable[Collection[Hashable]]) -> list[set[Site]]:
    """Those that terms depend on together, or on one after the other."""
    classes = Classes()
    for term in together:
        first, *others = [site for site in sites if site in term] or [None]
        for other in others:
            classes.join(first, other)
    found: dict[Hashable, set[Site]] = {}
    for site in sites:
        found.setdefault(classes.of(site), set()).add(site)
    return [group for group in found.values() if len(group) > 1]


def _values(site: Site, candidate: Candidate) -> int:
    place = candidate.place("values")
    assert place is not None
    return site.inputs[place].shape[site.role.mapped]


Scope = tuple[Sites, tuple[int, ...]]
"""How something of this shape depends on sites."""


def _scopes(
    candidates: Mapping[Site, Candidate], terms: Iterable[Term], direct: Mapping[Var, Sites]
) -> tuple[list[Scope], list[Scope]]:
    """Of each site's own probabilities, along its lanes, and of each part of a term."""
    own = []
    for site, candidate in candidates.items():
        part = own_part(site, candidate)
        found = push(_of(direct, part.atom), lanes_alone(part))
        own.append((found | {site: own_lanes(site)}, site_lanes(site)))
    atoms = dict.fromkeys(part.atom for term in terms for part in term.parts)
    return own, [(_of(direct, atom), atom.shape) for atom in atoms]


def _largest(values: Mapping[Site, int], own: Sequence[Scope], others: Sequence[Scope]) -> float:
    """The values of the largest table, of one lane; infinite where entries do not belong to one lane each."""
    axes, tied = Classes(), Classes()
    for n, (lanes, shape) in enumerate([*own, *others]):
        for site, places in lanes.items():
            for axis, (size, place) in enumerate(zip(site_lanes(site), places, strict=True)):  # type: ignore[arg-type]
                if size > 1 and (place is None or place != Along(place.axis) or shape[place.axis] != size):
                    return math.inf
                if size > 1 and place is not None:
                    axes.join((site, axis), (n, place.axis))
    for lanes, _ in own:
        first, *rest = lanes
        for site in rest:
            tied.join(first, site)
    inner = {site: frozenset(axes.of((site, a)) for a, n in enumerate(site_lanes(site)) if n > 1) for site in values}
    if any(len(inner[site]) < sum(n > 1 for n in site_lanes(site)) for site in values):
        return math.inf
    largest = max((math.prod(values[site] for site in lanes) for lanes, _ in others), default=1)  # type: ignore[index]
    for group in {tied.of(site) for site in values}:
        mine = [site for site in values if tied.of(site) == group]
        plates = sorted({inner[site] for site in mine}, key=len)
        if any(not one <= other for one, other in itertools.pairwise(plates)):
            return math.inf
        scopes = [(frozenset[Hashable](lanes.keys() & set(mine)), None) for lanes, _ in (*own, *others)]
        largest = max(largest, *(entries for _, entries in in_order(scopes, values, mine)))
    return largest


def _of(dependence: Mapping[Var, Sites], atom: Atom) -> Sites:
    return dependence.get(atom, {}) if isinstance(atom, Var) else {}


def last(equations: Sequence[Equation], found: Iterable[Joint]) -> tuple[Equation, ...]:
    """The equations in another order: what depends on sites that are enumerated together comes after all else."""
    after = {var for joint in found for site in joint.candidates for var in site.outputs}
    late = []
    for equation in equations:
        if not after.isdisjoint((*equation.inputs, *equation.outputs)):
            after.update(equation.outputs)
            late.append(equation)
    return (*(equation for equation in equations if equation not in late), *late)


def own_part(site: Site, candidate: Candidate) -> Part:
    """A site's log probabilities, as a factor."""
    place, info = candidate.place("log_probs"), site.role.info
    assert place is not None
    return Part(info.name, info.where, site.inputs[place], site, values_axis=site.role.mapped)
