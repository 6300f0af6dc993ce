"""A site: what a program says of it, what a run keeps of it, and which strategies it has."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ppvi import strategies
from ppvi._doors import close_to, count, described, function, listed
from ppvi._ops import Array
from ppvi._source import warn_at
from ppvi.engine.distributions import SiteDistribution
from ppvi.errors import ProgramError, StrategyError
from ppvi.ir import Density
from ppvi.program import Plate
from ppvi.strategies import Distribution, Strategy, default_strategies


@dataclass(frozen=True)
class Site:
    """A sample site that a program has reached."""

    name: str
    fn: Any
    """The framework's distribution, masks included."""
    observed: Array | None
    fixed: Array | None
    """The value that a handler of the program has given a latent site, as `substitute`, `replay` and autoguides' models do."""
    scale: Any
    """The program's own, beside those of the plates' minibatches; None for 1."""
    infer: Mapping[str, Any]
    plates: tuple[Plate, ...]


class Arrays(NamedTuple):
    """The arrays that a run keeps of a site."""

    value: Array
    log_prob: Array
    """Without scale."""
    scale: Any
    """None for 1."""
    bounds: Sequence[Array]
    """Those of the support that are arrays, the lower first; and last what says which values are possible."""
    present: Array | None = None
    """Whether the run has the site, in each round of the loops around a branch; None where it is in none."""


@dataclass(frozen=True, eq=False)
class SiteRecord:
    """What a run keeps of a site beside its arrays."""

    name: str
    where: str
    latent: bool
    density: Density | None
    """None where nothing is marked."""
    plates: tuple[Plate, ...] = ()
    deterministic: bool = False


class Layout(NamedTuple):
    """Whose the axes of a value are: those of plates, and the last ones an event's."""

    plates: tuple[Plate, ...]
    event: int | None = None
    """How many axes an event has; None where nothing says it."""


class Counted(NamedTuple):
    """A site's distribution, and how often its log_prob counts."""

    fn: Any
    """The framework's, masks included."""
    scale: Any
    """None for 1."""
    plates: tuple[Plate, ...]


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


def undensed(at: Place, why: str, error: Exception) -> StrategyError:
    """The error of a draw that is weighed by its density where it has none."""
    return StrategyError(
        f"site {at.name!r} ~ {at.site.name} at {at.where}: {why} its draw is weighed by its density, held constant, and a "
        f"transform has no inverse ({error}). Use one that has, or name Reparam(), by which a draw goes along its path: right "
        f"where the objective does not jump in it."
    )


def route_of(strategy: Strategy, site: SiteDistribution) -> str:
    """How the gradient reaches a distribution; of what is credited, the density's own gradient has mean zero.

    Not where the support moves, as that of a Uniform with its bounds: E[d log q(z)] is what the support loses, and stays.
    """
    moves = strategy.route == "credit" and not strategy.fixed_support and bool(site.bounds())
    return "both" if moves else strategy.route


def own_scale(scale: Any, plates: Iterable[Plate]) -> Any:
    """What a site's scale is beside those of the minibatches around it; None for 1."""
    if scale is None:
        return None
    minibatches = math.prod(plate.scale for plate in plates)
    if isinstance(scale, int | float):
        return None if math.isclose(scale, minibatches) else scale / minibatches
    return scale if minibatches == 1 else scale / minibatches


def plates_apart(site: Site, drawn: Counted | None) -> str | None:
    """Which plate lies along another axis of a site's value than where the value was drawn, as a clause of a sentence."""
    axes = {} if drawn is None else _axes(drawn.fn, drawn.plates)
    for name, axis in _axes(site.fn, site.plates).items():
        if axes.get(name, axis) != axis:
            found = f"plate {name!r} is along axis {axis} of its value, and along axis {axes[name]} where it is drawn"
            return f"{found}; give it the same dim in both"
    return None


def minibatches_apart(site: Site, drawn: Counted | None) -> str | None:
    """On which other minibatch a site is than where its value was drawn, as a clause of a sentence. A guide may draw outside of
    any, and count as often by itself."""
    here, there = (
        sorted(plate.name for plate in counted.plates if plate.scale != 1) if counted else []
        for counted in (site, drawn)
    )
    if not here or not there or here == there:
        return None
    return (
        f"is on the minibatch of {listed(here)}, and where it is drawn on that of {listed(there)}: plates of two names "
        f"have two minibatches; give them the same name"
    )


def _axes(fn: Any, plates: Sequence[Plate]) -> dict[str, int]:
    """The axes of a site's value that plates are along."""
    return {plate.name: plate.dim - fn.event_dim for plate in plates if plate.dim is not None}


Shapes = tuple[tuple[int, ...], tuple[int, ...]]
"""Batch and event shape of a site."""


def refuse_shape(name: str, shapes: Shapes, role: str, where: Callable[[], str], found: tuple[int, ...]) -> None:
    """A choice has the shape of its site."""
    batch, event = shapes
    if found != batch + event:
        raise ProgramError(
            f"site {name!r} of the {role} at {where()} has shape {batch + event}, batch {batch} and event {event}, but its "
            f"choice has shape {found}: give the site the same plates and to_event in the model and the guide. (An autoguide "
            f"keeps the sizes of the data that it has seen first; for others make another one.)"
        )


def strategies_of(name: str, site: SiteDistribution, named: Any, where: str) -> tuple[Strategy, ...]:
    """The strategies that a site may have: the one that the user has named, or those of its kind."""
    if site.undrawable:
        raise StrategyError(f"site {name!r} ~ {site.name} at {where}: {site.undrawable}.")
    return default_strategies(site) if named is None else (_as_strategy(named, name, site, where),)


READ_OF_INFER = ("strategy", "baseline_input", "baseline", "enumerate", "num_samples")
"""What a site's `infer` may name for a draw."""


def strategy_in(infer: Mapping[str, Any], name: str, where: str, site: Distribution) -> Any:
    """The strategy that a site's `infer` names, in our words or in those of the libraries."""
    kind, n = infer.get("enumerate"), infer.get("num_samples")
    if "strategy" in infer or not kind:
        return infer.get("strategy")
    if kind not in ("parallel", "sequential"):
        raise StrategyError(f"site {name!r} at {where}: infer= enumerates as 'parallel' or 'sequential', not {kind!r}.")
    if n is None:
        return strategies.Enumerate(sequential=kind == "sequential")
    count(f"site {name!r} at {where}: num_samples", n, 1, StrategyError)
    if n > 1 and site.has_rsample and not site.has("icdf"):
        raise StrategyError(
            f"site {name!r} ~ {site.name} at {where}: infer= asks for {n} draws of the site, which {site.name} has "
            f"by no inverse of its distribution function: leave it away, and average the objective over whole runs, as by "
            f"ppvi.replicate(n, ...)."
        )
    some = strategies.Stratified if site.has_rsample else strategies.LeaveOneOut
    return some(n) if n > 1 else None


def warn_of_misspelt(name: str, infer: Mapping[str, Any], where: str) -> None:
    """Say of a word in a site's `infer` that it is read by nobody, and is nearly one that is."""
    for word in infer:
        if word not in READ_OF_INFER and (meant := _meant(word)):
            warn_at(where, f"site {name!r} at {where}: infer= has {described(word)}, which nothing reads.{meant}")


@functools.cache
def _meant(word: Any) -> str:
    return close_to(word, READ_OF_INFER)


def choices_of(program: Any, choice: Any) -> dict[str, Strategy]:
    """What `strategies(program, choice)` is given, by site; without a program it is a handler."""
    if not isinstance(choice, Mapping | None):
        raise StrategyError(
            f"strategies(program, choice): choice is a dict of strategies by site, as in {{'z': Reparam()}}, not "
            f"{described(choice)}."
        )
    if program is not None:
        function("strategies(program, choice): the program", program, "It comes first.", StrategyError)
    return dict(choice or {})


def _as_strategy(strategy: Any, name: str, site: Distribution, where: str) -> Strategy:
    """The strategy that a user named for a site, or a `StrategyError` that says why it cannot be."""
    problem = not_a_strategy(strategy) or strategy.misfit(site)
    if problem:
        raise StrategyError(f"site {name!r} ~ {site.name} at {where}: {problem.removesuffix('.')}.")
    return strategy


def unknown_site(name: str, sites: Collection[str]) -> StrategyError:
    """The error of strategies that were set on a program which has no such site."""
    return StrategyError(f"strategies name the site {name!r}, which the program does not have; it has {sorted(sites)}.")


def not_a_strategy(strategy: Any) -> str | None:
    """What is wrong with something that should be a strategy, if anything."""
    if isinstance(strategy, Strategy):
        return None
    if isinstance(strategy, type) and issubclass(strategy, Strategy):
        return f"{strategy.__name__} is a class; write {strategy.__name__}()"
    classes = [cls for cls in vars(strategies).values() if isinstance(cls, type) and issubclass(cls, Strategy)]
    known = {cls.__name__.lower(): f"{cls.__name__}()" for cls in classes if dataclasses.is_dataclass(cls)}
    meant = known.get(strategy.lower()) if isinstance(strategy, str) else None
    there = meant or "one of ppvi.strategies, such as Reparam() or Enumerate(), or leave the site out for the default"
    return f"{described(strategy)} is not a gradient strategy; write {there}"


def refuse_learning(strategies: Mapping[str, Strategy], library: str) -> None:
    """Strategies that learn need a loop that carries their states."""
    for name, strategy in strategies.items():
        if strategy.stateful:
            raise StrategyError(
                f"as_loss: {strategy} of site {name!r} learns from step to step, and {library}'s SVI has no place for its "
                f"state. Use `fit`, or `Objective.update` in a loop of your own."
            )
