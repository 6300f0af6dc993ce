"""Finite sites that are enumerated together, rather than one within the other.

In a nest of sums each of T sites that follow one another multiplies the runs of the rest, K^T of them. A term that is a
function of two of them needs no more than the probabilities of their pairs (`ppvi.compiler.marginals`), which of a Markov
chain take T K^2. Which sites these are is known from what their distributions and the terms are functions of.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ppvi.compiler.dependence import own_lanes, propagate, push, site_lanes, sources_of
from ppvi.compiler.elimination import in_order
from ppvi.compiler.factors import Classes, Part, lanes_alone
from ppvi.compiler.terms import Decomposition, Sites
from ppvi.ir import Along, Atom, Candidate, Equation, Sited, Var, equations_behind, union
from ppvi.strategies.alternatives import LIMIT

SMALL_SUPPORT = 16
"""The largest support that is enumerated without being asked for."""

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

    What depends on them must do so lane by lane, and no other site may be drawn after any of them.
    """
    summed = _summed(sites, parts.equations, dependence)
    equations = [equation for equation in parts.equations if equation not in summed]
    direct = propagate(equations, {site.outputs[0]: {site: own_lanes(site)} for site in summed}, lambda site: {})
    together = Classes()
    for term in parts.terms:
        together.join_all([site for site in summed if site in term.dependence])
    found = []
    for group in together.groups(summed):
        terms = {i: term for i, term in enumerate(parts.terms) if not term.dependence.keys().isdisjoint(group)}
        sizes = {site: support_size(site, summed[site]) for site in group}
        nest = max((math.prod(sizes[x] for x in term.dependence if x in sizes) for term in terms.values()), default=1)
        own = {site: _own_scope(site, summed[site], direct) for site in group}
        atoms = dict.fromkeys(part.atom for term in terms.values() for part in term.parts)
        others = [(sources_of(direct, atom), atom.shape) for atom in atoms]
        largest = _largest(sizes, own, others)
        if largest < nest and largest <= LIMIT:
            found.append(Joint({site: summed[site] for site in group}, frozenset(terms), int(largest)))
    return found


def _summed(
    sites: Sequence[Site], equations: Sequence[Equation], dependence: Mapping[Var, Sites]
) -> dict[Site, Candidate]:
    """The sites that may be summed over. No other may need an operation that they take part in, of whatever it returns."""
    behind, bit = equations_behind(tuple(equations)), {equation: 1 << i for i, equation in enumerate(equations)}
    needed = {site: union(behind.get(atom, 0) for atom in site.inputs) for site in sites}
    in_loops = {info for site in sites for info in site.role.past}
    found = {}
    for site in sites:
        info = site.role.info
        able = [
            x for x in info.candidates if x.strategy.sums_out and not sources_of(dependence, operand(site, x, "values"))
        ]
        cheap = able and (info.named or support_size(site, able[0]) <= SMALL_SUPPORT)
        if cheap and info not in in_loops and not site.role.past:
            found[site] = able[0]
    while passed := [x for x in found if any(needed[site] & bit[x] for site in sites if site not in found)]:
        found = {site: candidate for site, candidate in found.items() if site not in passed}
    return found


def operand(site: Site, candidate: Candidate, field: str) -> Atom:
    """What a site has as a field of its draw, which is there."""
    place = candidate.place(field)
    assert place is not None
    return site.inputs[place]


def support_size(site: Site, candidate: Candidate) -> int:
    """Number of alternative values that a candidate keeps, 1 if none."""
    values = candidate.place("values")
    return 1 if values is None else site.inputs[values].shape[site.role.mapped]


def own_part(site: Site, candidate: Candidate) -> Part:
    """A site's probabilities, as a factor."""
    info, atom = site.role.info, operand(site, candidate, "log_probs")
    return Part(info.name, info.where, atom, site, log_probs_axis=site.role.mapped, is_probability=True)


Scope = tuple[Sites, tuple[int, ...]]
"""How something of this shape depends on sites."""


def _own_scope(site: Site, candidate: Candidate, direct: Mapping[Var, Sites]) -> Scope:
    """Of a site's own probabilities, along its lanes."""
    part = own_part(site, candidate)
    return push(sources_of(direct, part.atom), lanes_alone(part)) | {site: own_lanes(site)}, site_lanes(site)


# What they take -----------------------------------------------------------------------------------------------------------


def _largest(sizes: Mapping[Site, int], own: Mapping[Site, Scope], others: Sequence[Scope]) -> float:
    """The values of the largest table, of one lane; infinite where entries do not belong to one lane each."""
    axes = _rows([*own.values(), *others])
    if axes is None:
        return math.inf
    plates = {site: frozenset(axes.of((site, a)) for a, n in enumerate(site_lanes(site)) if n > 1) for site in sizes}
    tied = Classes()
    for lanes, _ in own.values():
        tied.join_all(list(lanes))
    largest = float(max((math.prod(sizes[x] for x in lanes) for lanes, _ in others), default=1))  # type: ignore[index]
    for group in tied.groups(sizes):
        nested = sorted({plates[site] for site in group}, key=len)
        if any(not one <= other for one, other in itertools.pairwise(nested)):
            return math.inf
        scopes = [(frozenset[Hashable](own[site][0]), site) for site in group]
        scopes += [(frozenset[Hashable](lanes.keys() & set(group)), None) for lanes, _ in others]
        order = in_order(scopes, sizes, group, lambda site: len(plates[site]))
        largest = max(largest, *(entries for _, entries in order))
    return largest


def _rows(scopes: Sequence[Scope]) -> Classes | None:
    """Which lane axes run over the same rows; None where entries do not belong to one lane each, or to lanes that cross."""
    axes, used = Classes(), dict[Hashable, set[int]]()
    for n, (lanes, shape) in enumerate(scopes):
        for site, found in lanes.items():
            for axis, (size, place) in enumerate(zip(site_lanes(site), found, strict=True)):  # type: ignore[arg-type]
                if size == 1:
                    continue
                if place is None or place != Along(place.axis) or shape[place.axis] != size:
                    return None
                axes.join((site, axis), (n, place.axis))
                used.setdefault(n, set()).add(place.axis)
                used.setdefault(site, set()).add(axis)
    cross = any(len({axes.of((owner, axis)) for axis in mine}) < len(mine) for owner, mine in used.items())
    return None if cross else axes


def joints_last(equations: Sequence[Equation], found: Iterable[Joint]) -> tuple[tuple[Equation, ...], int]:
    """The equations with those that depend on sites which are enumerated together after all else; and where these begin."""
    after = {var for joint in found for site in joint.candidates for var in site.outputs}
    late = set[Equation]()
    for equation in equations:
        if not after.isdisjoint((*equation.inputs, *equation.outputs)):
            after.update(equation.outputs)
            late.add(equation)
    return tuple(sorted(equations, key=late.__contains__)), len(equations) - len(late)
