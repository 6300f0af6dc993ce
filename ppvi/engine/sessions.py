"""A session: one run of an objective, whatever the framework.

It holds what the runs of the model and the guide share: parameters, strategies, minibatches, names; and the *scope*, frozen
values that hold for a part of the run and come and go with it. How the framework runs a program is its engine's
(`ppvi.engine.protocol.Programs`). What one kind of session does in another way than others is a value that it is made with:
how it has parameters, draws sites, has densities and runs a function many times, and who is told of what has happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar, final

from ppvi._ops import Array
from ppvi._source import warn_at
from ppvi.engine.data import UnfitError, as_array
from ppvi.engine.distributions import NoDensityError, masks, tails
from ppvi.engine.foreign import refused
from ppvi.engine.minibatches import Minibatches, Owed, Rows
from ppvi.engine.names import Names, of_param
from ppvi.engine.observations import misfit
from ppvi.engine.protocol import Marks, Programs, Repeats, Scope
from ppvi.engine.sites import (
    Drawn,
    Place,
    Site,
    refuse_shape,
    route_of,
    strategies_of,
    strategy_in,
    undensed,
    warn_of_misspelt,
)
from ppvi.engine.statements import (
    axes_counted_often,
    counted_often,
    named_otherwise,
    no_start,
    refuse_initial,
    refuse_parameter,
    refuse_start,
    uneven,
)
from ppvi.errors import ProgramError, StrategyError
from ppvi.ir import At, Candidate, Constant, Density, Note, SiteInfo
from ppvi.strategies import Draw, Strategy

E = TypeVar("E", bound=Programs[Any, Any])


@dataclass(frozen=True)
class Recorder:
    """Who is told of what happens in a session."""

    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Made and entered around everything that runs."""
    ran: Callable[[str, Mapping[str, Array], Mapping[str, Array], Mapping[str, Any]], None] = lambda *run: None
    """Told of every finished run of a program."""
    estimate: Callable[[Array, str, Sequence[str]], Array] = lambda value, what, plates: value
    """Told of an unbiased estimate, on the minibatches of these plates; returns it."""


class Parameters(Protocol):
    """How a session has parameters."""

    @property
    def makes(self) -> bool: ...  # whether from initial values; if not, they are given

    def value(self, session: Session, name: str, initial: Callable[[], Any], constraint: Any, role: str) -> Any: ...


@dataclass(frozen=True)
class Given:
    """Parameters are looked up in `params`."""

    makes: bool = False

    def value(self, session: Session, name: str, initial: Callable[[], Any], constraint: Any, role: str) -> Any:
        if constraint is not None:
            session.constraints.setdefault(name, constraint)
        if name not in session.params:
            raise ProgramError(
                f"parameter {name!r} of the {role} at {session.here()} is missing from params, which has "
                f"{sorted(session.params)}: take params from `init`, or add a value under that name."
            )
        return session.value_of(name)


LogProb = Callable[["Session", Site, Array, str, Sequence[Any]], Array]
"""How a session has the log_prob of a site's value in a program, from what the value's sampler computed on the way."""


OWN_DRAWS = "an objective that asks for the density of its own draws only, such as `elbo` or `iwelbo`"


def computed(
    session: Session, site: Site, value: Array, role: str, intermediates: Sequence[Any], instead: str = OWN_DRAWS
) -> Array:
    """Densities are computed, of the site's batch shape, with shapes checked; `instead` says what needs no inverse."""
    relaxed = site.name in session.relaxed
    try:
        log_prob, problem = session.engine.evaluate(site.fn, value, intermediates, relaxed)
    except (NotImplementedError, KeyError) as error:
        raise ProgramError(
            f"site {site.name!r} of the {role} at {session.here()}: {type(site.fn).__name__} has no density at a value that "
            f"this run of it has not drawn ({error}). Use a transform with an inverse, or {instead}."
        ) from error
    if log_prob is None:
        raise misfit(site, session.scope.distribution(site.fn), tuple(value.shape), role, session.here()) from problem
    return log_prob


def by_strategies(session: Session, at: Place) -> Drawn:
    """Draw a site by every strategy that it may have, and mark it; or by the first, where nothing is marked."""
    key = session.engine.key(session.scope)
    site, route = at.site, route_of(at.strategies[0], at.site)
    try:
        draws = [strategy.draw(site, key) for strategy in at.strategies]
    except NotImplementedError as error:
        said = f" ({error})" if str(error) else ""
        raise StrategyError(
            f"site {at.name!r} ~ {site.name} at {at.where} cannot be drawn: {site.name} has no sampler{said}. Draw the "
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
    for found in drawn:
        if found is not None:
            inputs.append(array(found))
        places.append(None if found is None else 0 if len(inputs) == 1 else len(inputs))
    return tuple(places)


@final
@dataclass(eq=False)
class Session(Generic[E]):
    """One run of an objective: an engine, what all of the run shares, and the scope."""

    engine: E
    params: Mapping[str, Any]
    chosen: Mapping[str, Strategy]
    """By the names of sites."""
    scope: Scope
    parameters: Parameters = Given()
    repeats: Repeats[Any] | None = None
    """By default the engine's."""
    draws: Callable[[Session, Place], Drawn] = by_strategies
    log_probs: LogProb = computed
    recorder: Recorder = Recorder()
    plate_rows: Rows = field(default_factory=Minibatches)
    """How plates get their rows."""
    drawn: set[str] = field(default_factory=set)
    relaxed: set[str] = field(default_factory=set)
    assesses: bool = False
    """Whether the objective has asked for the density of choices."""
    learning: bool = False
    """Whether a strategy has a state."""
    constraints: dict[str, Any] = field(default_factory=dict)
    """Of the parameters that the programs declare."""
    names: Names = field(default_factory=Names)
    """What the programs mean by theirs."""
    owed: Owed = field(default_factory=Owed)

    def __post_init__(self) -> None:
        self.ops, self.here, self.array = self.engine.ops, self.engine.here, self.engine.array

    @contextmanager
    def within(self, **changes: Any) -> Iterator[None]:
        """Within another scope, which has these fields."""
        outer, self.scope = self.scope, replace(self.scope, **changes)
        try:
            yield
        finally:
            self.scope = outer

    @property
    def marks(self) -> Marks | None:
        """What sites and densities are marked by for the compiler; None where they are not."""
        return None if self.scope.plain else self.engine.marks

    def constant_params(self, stop: bool | str) -> AbstractContextManager[None]:
        """Parameters are constants for every gradient, if `stop`, which may be the reason."""
        return self.within(constant_params=self.scope.constant_params or stop) if stop else nullcontext()

    # What runs of programs ask for ------------------------------------------------------------------------------------

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        with refused(self.engine.library.name, self.here), self.engine.surroundings(self), self.recorder.around():
            yield

    def param(self, name: str, initial: Callable[[], Any], constraint: Any, role: str) -> Any:
        if not isinstance(name, str) and (problem := named_otherwise("parameter", name, role, self.here())):
            raise problem
        return self.parameters.value(self, name, initial, constraint, role)

    def declare(self, name: str, constraint: Any, initial: Any, role: str) -> None:
        """Told of a parameter to which a program gives an initial value, or a function that makes it."""
        engine, makes, where = self.engine, self.parameters.makes, self.here()
        refuse_parameter(name, initial, constraint, role, where, self._leaves, engine.library)
        try:
            shape = engine.shape_of(initial, makes and self.names.is_of_another(name, role))
        except (TypeError, ValueError, RuntimeError) as error:
            if callable(initial) or engine.is_signal(error):
                raise
            raise no_start(f"parameter {name!r} of the {role} at {where}", initial) from error
        self.names.param(name, of_param(role, where, constraint, shape, engine.support_of))
        given = engine.shape_of(self.params[name], False) if name in self.params else shape
        if None not in (shape, given) and shape != given:
            raise ProgramError(
                f"parameter {name!r} of the {role} at {where} starts with shape {shape}, and its value in params "
                f"has shape {given}: take params from `init`, or declare the parameter with the shape that it has."
            )

    def made(self, name: str, value: Any, constraint: Any, role: str) -> None:
        """Told of the first initial value of a parameter."""
        at = f"parameter {name!r} of the {role} at {self.here()}"
        refuse_initial(at, value, self._leaves)
        refuse_start(at, *self.engine.started(value, constraint), constraint)
        self.names.made(name, self.engine.shape_of(value, False))

    def asks(self, name: str, role: str) -> None:
        """Told of a parameter that a program asks for without an initial value, which nobody has given it."""
        self.names.asked.setdefault(name, f"of the {role} at {self.here()}")

    def _leaves(self, tree: Any) -> list[Any]:
        leaves: list[Any] = []
        self.ops.tree_map(leaves.append, tree)
        return leaves

    def value_of(self, name: str) -> Any:
        """The value of a parameter, held constant where that is asked for."""
        value = self.params[name]
        return self.ops.tree_map(self._constant, value) if self.scope.constant_params else value

    def _constant(self, x: Array) -> Array:
        stopped, why = self.ops.stop_gradient(x), self.scope.constant_params
        return self.because(stopped, why) if isinstance(why, str) else stopped

    def draw(self, name: str, fn: Any, infer: Mapping[str, Any]) -> Drawn:
        """Draw a site by its strategies. `infer` may name its `strategy` and its `baseline_input`."""
        where = self.here()
        self.engine.refuse_draw(self.scope, name, where)
        self.drawn.add(name)
        warn_of_misspelt(name, infer, where)
        with self.engine.drawing():
            site = self.scope.distribution(fn, infer.get("baseline_input"))
            named = self.chosen[name] if name in self.chosen else strategy_in(infer, name, where, site)
            at = Place(name, where, site, strategies_of(name, site, named, where), named is not None)
            self.learning = self.learning or any(strategy.stateful for strategy in at.strategies)
            if any(strategy.relaxes for strategy in at.strategies):
                self.relaxed.add(name)
            try:
                value, between, route = self.draws(self, at)
            except NoDensityError as error:
                raise undensed(at, f"by {at.strategies[-1]}", error) from error
        if not self.scope.constant_draws:
            return Drawn(value, between, route)
        stopped = self.ops.stop_gradient
        return Drawn(stopped(value), [(transform, stopped(x)) for transform, x in between], route)

    def log_prob(self, site: Site, value: Array, role: str, intermediates: Sequence[Any] = ()) -> Array:
        log_prob = self.log_probs(self, site, value, role, intermediates)
        if site.scale is not None:
            at = f"site {site.name!r} of the {role} at {self.here()}"
            if problem := uneven(at, "scale", site.scale, log_prob.shape):
                raise problem
        return log_prob

    def say_if_broadcast(self, site: Site, value: Array, log_prob: Array, role: str) -> None:
        """Refuse data that have another number of rows than a plate around them; and warn of data that count many times."""
        batch, fn = tuple(log_prob.shape), site.fn
        # A plate of no stated size, as Pyro has them, leaves the distribution as it is.
        dims = {plate.dim for plate in site.plates if plate.dim is not None and -plate.dim <= len(fn.batch_shape)}
        if any(batch[dim] != fn.batch_shape[dim] for dim in dims):
            raise misfit(site, self.scope.distribution(fn), tuple(value.shape), role, self.here())
        if often := axes_counted_often(batch, tuple(value.shape)[: len(value.shape) - fn.event_dim], dims):
            where = self.here()
            warn_at(where, counted_often(site.name, fn, value.shape, batch, often, role, where))

    def density(self, site: Site, at: At) -> tuple[Density | None, Sequence[Array]]:
        """What its mark says of a site's log_prob, and the arrays that say where it has mass."""
        # What is masked costs nothing, possible or not.
        over = [mask for mask, _ in masks(site.fn)]
        if self.marks is None or (at in ("choice", "data") and any(mask is False for mask in over)):
            return None, ()
        seen, masked = self.scope.distribution(site.fn), bool(over)
        looked_at = at == "choice" and self.scope.bodies is None and not masked
        kind, numbers = seen.masses() if looked_at else (None, [])
        info = Density(site.name, seen.name, self.here(), seen.support, tails(seen.name), at, kind, masked)
        return info, [*seen.bounds(), *numbers]

    def observed(self, site: Site, role: str) -> Array:
        """The data of a site, as an array."""
        try:
            return as_array(self.engine, site.observed)
        except UnfitError as error:
            raise ProgramError(
                f"site {site.name!r} of the {role} at {self.here()} observes {error.what}: {error.instead}."
            ) from None

    def given(self, site: Site, value: Array, role: str) -> Array:
        """The value of a site that comes from outside, with its shape checked."""
        if self.scope.bodies is not None:
            return self.scope.bodies.place(site, value, role, self.here())
        shapes = (tuple(site.fn.batch_shape), tuple(site.fn.event_shape))
        refuse_shape(site.name, shapes, role, self.here, tuple(value.shape))
        return value

    def because(self, value: Array, reason: str) -> Array:
        """A value held constant, marked with the reason."""
        return self.noted(value, Constant(reason))

    def noted(self, value: Array, note: Note) -> Array:
        """A value, of which this is said to the checks."""
        return value if self.marks is None else self.marks.mark_note(value, note)
