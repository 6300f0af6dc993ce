"""Sites that are drawn one after the other: what their lanes depend on, and which strategies fit them.

A loop draws its sites round by round. As a function of given values of some of them it draws the others; so a site whose
distribution depends on no other draw of the loop is a site like any other, with a lane for every round, and one that depends
on earlier rounds of itself, or of sites that depend on it in turn, is *sequential*: its lanes are drawn given those before.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from ppvi.compiler.dependence import Dependence, Lanes, join, push
from ppvi.errors import StrategyError
from ppvi.ir import Along, AxisMap, SiteInfo, along
from ppvi.strategies import Strategy

S = TypeVar("S", bound=Hashable)

Steps = Mapping[S, Mapping[S, AxisMap]]
"""For each site the sites that its distribution is a function of, and where their axes lie in it."""


def groups(steps: Steps[S]) -> list[tuple[list[S], bool]]:
    """The sites in an order in which they can be drawn, those together that depend on one another; and whether they do."""
    behind = {site: set(steps[site]) for site in steps}
    for middle in steps:
        for site in steps:
            if middle in behind[site]:
                behind[site] |= behind[middle]
    found = []
    for site in sorted(steps, key=lambda site: len(behind[site] | {site})):
        group = [other for other in steps if other in behind[site] and site in behind[other]]
        if not group or group[0] == site:
            found.append((group or [site], bool(group)))
    return found


def meets(axes: AxisMap, shape: Sequence[int], into: Sequence[int]) -> bool:
    """Whether an entry of the one is anywhere in a window of the other; in a loop of one round nothing comes before."""
    placed = ((place, size) for place, size in zip(map(along, axes), shape, strict=True) if place is not None)
    return all(place.last >= 1 - into[place.axis] and place.first <= size - 1 for place, size in placed)


def pasts(own: Mapping[S, Lanes], steps: Steps[S]) -> dict[S, Dependence[S]]:
    """For each of some sites that depend on one another, which lanes of which its draw depends on: the least solution."""
    found: dict[S, Dependence[S]] = {site: {site: lanes} for site, lanes in own.items()}
    while True:
        further = {
            site: functools.reduce(
                join, (push(found[other], axes) for other, axes in steps[site].items() if other in found), found[site]
            )
            for site in found
        }
        if further == found:
            return found
        found = further


def time_of(lanes: Lanes, step: AxisMap) -> tuple[int, bool] | None:
    """The lane axis along which a site is a Markov chain, and whether it runs backwards; None where it is none."""
    moved = None
    for axis, (mine, axes) in enumerate(zip(lanes, step, strict=False)):
        place = along(axes)
        if mine is None or place == Along(axis):
            continue
        forward, backward = Along(axis, -1, -1), Along(axis, 1, 1)
        if moved is not None or place not in (forward, backward):
            return None
        moved = (axis, place == backward)
    return moved


def fitting(info: SiteInfo, others: Sequence[SiteInfo], markov: bool) -> SiteInfo:
    """The site with those of its strategies that fit a sequence, alone or with others that depend on it in turn.

    **Raises** `StrategyError` where the user named one that does not.
    """

    def fits(strategy: Strategy) -> bool:
        alone = strategy.chained == "draws" or (strategy.chained == "chain" and markov)
        return strategy.chained == "draw" or (alone and not others)

    candidates = tuple(candidate for candidate in info.candidates if fits(candidate.strategy))
    if candidates:
        return replace(info, candidates=candidates)
    strategy = info.candidates[0].strategy
    if strategy.chained is None:
        cause = f"and {strategy} changes one draw with the others held: all later rounds would have to be run again for each"
    elif others:
        cause = (
            f"together with {', '.join(repr(other.name) for other in others)}, which {strategy} cannot draw in its turn"
        )
    else:
        cause = "by more than the draw of the round before, so that it is no Markov chain, which Enumerate() needs"
    raise StrategyError(
        f"site {info.name!r} ~ {info.distribution} at {info.where}: in its loop each draw depends on those of earlier rounds, "
        f"{cause}. Reinforce() fits{'' if others else ', and LeaveOneOut() does'}; or let the distribution depend on nothing "
        f"that is drawn in the loop."
    )
