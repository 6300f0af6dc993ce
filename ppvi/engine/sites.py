"""A site's draw: which strategies it has, and how they draw it and are marked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ppvi import strategies
from ppvi._ops import Array
from ppvi.engine.distributions import SiteDistribution
from ppvi.errors import ProgramError, StrategyError
from ppvi.ir import Candidate, SiteInfo
from ppvi.strategies import Distribution, Draw, Strategy, default_strategies

if TYPE_CHECKING:
    from ppvi.engine.sessions import Session


class Drawn(NamedTuple):
    """What a site was drawn as."""

    value: Array
    intermediates: Sequence[Any]
    """What its sampler computed on the way."""
    route: str
    """Of its gradient."""


@dataclass(frozen=True)
class Place:
    """A latent site that a run has reached."""

    name: str
    where: str
    site: SiteDistribution
    strategies: tuple[Strategy, ...]
    """Those that it may have, of which the compiler chooses the first that fits; without it, it has the last."""
    named: bool
    """Whether the user has named the strategy."""


def route_of(strategy: Strategy, site: SiteDistribution) -> str:
    """How the gradient reaches a distribution; of what is credited, the density's own gradient has mean zero.

    Not where the support moves, as that of a Uniform with its bounds: E[d log q(z)] is what the support loses, and stays.
    """
    moves = strategy.route == "credit" and not strategy.fixed_support and bool(site.bounds())
    return "both" if moves else strategy.route


def by_strategies(session: Session, at: Place) -> Drawn:
    """Draw a site by every strategy that it may have, and mark it; or by the first, where nothing is marked."""
    key = session.engine.key(session.scope)
    site, route = at.site, route_of(at.strategies[0], at.site)
    try:
        draws = [strategy.draw(site, key) for strategy in at.strategies]
    except NotImplementedError as error:
        raise StrategyError(
            f"site {at.name!r} ~ {site.name} at {at.where} cannot be drawn: {site.name} has no sampler ({error}). Draw the "
            f"site from another distribution in the guide."
        ) from error
    if (marks := session.marks) is None:
        return Drawn(draws[0].value, site.intermediates, route)
    inputs: list[Array] = []
    candidates = [
        Candidate(strategy, _collect(draw, inputs, session.array))
        for strategy, draw in zip(at.strategies, draws, strict=True)
    ]
    bounds, (kind, numbers) = site.bounds(), site.masses()
    info = SiteInfo(
        name=at.name,
        distribution=site.name,
        where=at.where,
        ndim=len(site.lanes),
        candidates=tuple(candidates),
        named=at.named,
        bounds=tuple(range(1 + len(inputs), 1 + len(inputs) + len(bounds))),
        support=site.support,
        masses=kind,
    )
    return Drawn(marks.mark_site(info, key, [*inputs, *bounds, *numbers]), site.intermediates, route)


def _collect(drawn: Draw, inputs: list[Array], array: Callable[[Any], Array]) -> tuple[int | None, ...]:
    """Append a draw's arrays to a site's inputs; where each field went. Input 1 is the site's key."""
    places: list[int | None] = []
    for field in drawn:
        if field is None:
            places.append(None)
            continue
        inputs.append(array(field))
        places.append(0 if len(inputs) == 1 else len(inputs))
    return tuple(places)


Shapes = tuple[tuple[int, ...], tuple[int, ...]]
"""Batch and event shape of a site."""


def refuse_shape(name: str, shapes: Shapes, role: str, where: Callable[[], str], found: tuple[int, ...]) -> None:
    """A choice has the shape of its site."""
    batch, event = shapes
    if found != batch + event:
        raise ProgramError(
            f"site {name!r} of the {role} at {where()} has shape {batch + event}, batch {batch} and event {event}, but its "
            f"choice has shape {found}: give the site the same plates and to_event in the model and the guide."
        )


def strategies_of(name: str, site: SiteDistribution, named: Any, where: str) -> tuple[Strategy, ...]:
    """The strategies that a site may have: the one that the user has named, or those of its kind."""
    if site.undrawable:
        raise StrategyError(f"site {name!r} ~ {site.name} at {where}: {site.undrawable}.")
    return default_strategies(site) if named is None else (_as_strategy(named, name, site, where),)


def _as_strategy(strategy: Any, name: str, site: Distribution, where: str) -> Strategy:
    """The strategy that a user named for a site, or a `StrategyError` that says why it cannot be."""
    problem = not_a_strategy(strategy) or strategy.misfit(site)
    if problem:
        raise StrategyError(f"site {name!r} ~ {site.name} at {where}: {problem}.")
    return strategy


def not_a_strategy(strategy: Any) -> str | None:
    """What is wrong with something that should be a strategy, if anything."""
    if isinstance(strategy, Strategy):
        return None
    if isinstance(strategy, type) and issubclass(strategy, Strategy):
        return f"{strategy.__name__} is a class; write {strategy.__name__}()"
    classes = [cls for cls in vars(strategies).values() if isinstance(cls, type) and issubclass(cls, Strategy)]
    known = ", ".join(sorted(f"{cls.__name__}()" for cls in classes if dataclasses.is_dataclass(cls)))
    return f"{strategy!r} is not a gradient strategy; in ppvi.strategies there are {known}"


def refuse_learning(strategies: Mapping[str, Strategy], library: str) -> None:
    """Strategies that learn need a loop that carries their states."""
    for name, strategy in strategies.items():
        if strategy.stateful:
            raise StrategyError(
                f"as_loss: {strategy} of site {name!r} learns from step to step, and {library}'s SVI has no place for its "
                f"state. Use `fit`, or `Objective.update` in a loop of your own."
            )
