"""A session: one run of an objective, whatever the framework.

It holds what the runs of the model and the guide share: parameters, keys, strategies, minibatches. An engine's session adds
the framework's arrays, random numbers and markers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from ppvi import program, strategies
from ppvi.compiler.ir import At, Candidate, Density, SiteInfo, Support
from ppvi.engine.distributions import SiteDistribution, masks, tails
from ppvi.engine.divergences import closed_form
from ppvi.engine.minibatches import Minibatches, Rows
from ppvi.engine.names import Names, of_param
from ppvi.engine.runs import Arrays, Counted, Handle, Run, Site, Told
from ppvi.errors import ProgramError, StrategyError
from ppvi.ops import Array
from ppvi.program import Plate
from ppvi.strategies import Distribution, Draw, Strategy, default_strategies


class Marks(Protocol):
    """An engine's markers: identities on their first array that the compiler or the checks look for."""

    def mark_site(self, info: SiteInfo, key: Any, inputs: Sequence[Array]) -> Array:
        """The value of a site: `inputs[0]` is the value, the others what `info` says they are."""
        ...

    def mark_density(self, log_prob: Array, info: Density, value: Array, bounds: Sequence[Array]) -> Array:
        """The log_prob of a site at a value; `bounds` of the support that are arrays, and last what `info.masses` says."""
        ...

    def mark_estimate(self, value: Array, what: str) -> Array:
        """An unbiased estimate of an expectation."""
        ...

    def mark_because(self, value: Array, because: str) -> Array:
        """A value held constant, with why no gradient through it is missed."""
        ...


class Session(program.Session):
    """The part of an engine's `ppvi.program.Session` that needs no framework."""

    marking = True
    """Whether sites and densities are marked for the compiler, or simply drawn and computed."""
    marks: Marks
    lifting = False
    """Whether bodies are traced of which two may tell of one site, which must say the same of it."""

    def __init__(
        self, params: Mapping[str, Any], chosen: Mapping[str, Strategy], distribution: Callable[..., SiteDistribution]
    ):
        self.params = params
        self.chosen = chosen
        self.distribution = distribution
        self.drawn: set[str] = set()
        self.learning = False
        self.relaxed: set[str] = set()
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.constraints: dict[str, Any] = {}
        """Of the parameters that the programs declare."""
        self.plate_rows: Rows = Minibatches()
        """How plates get their rows."""
        self.begun_anew = False
        """Whether what is staged is not the first beginning of the evaluation."""
        self.names = Names()
        """What the programs mean by theirs."""
        self._held: bool | str = False
        self._scales: dict[str, set[float]] = {}
        self._owed: dict[str, str] = {}

    # What the engine adds ---------------------------------------------------------------------------------------------

    def here(self) -> str:
        """File and line of the user's code that is running."""
        raise NotImplementedError

    def key(self) -> Any:
        """A fresh key, or what stands for one."""
        raise NotImplementedError

    def array(self, value: Any) -> Array:
        raise NotImplementedError

    def execute(self, run: Run, program: Callable[[], Any]) -> Any:
        """What the program returns, with its sites told to the run."""
        raise NotImplementedError

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        """Around everything that the session runs."""
        yield

    def direct(self) -> AbstractContextManager[Any]:
        """Around the objective program itself, which may ask for parameters and must not sample."""
        raise NotImplementedError

    def refuse_foreign_lanes(self, name: str, where: str) -> None:
        """Refuse to draw where the framework's vectorisation would share one draw."""
        raise NotImplementedError

    def support_of(self, constraint: Any) -> Support:
        """What a constraint allows."""
        raise NotImplementedError

    def evaluate(self, fn: Any, value: Array, intermediates: Sequence[Any]) -> tuple[Array | None, Exception | None]:
        """log_prob of a value, or None where it does not fit, and why."""
        raise NotImplementedError

    def same_rows(self, rows: Any, others: Any) -> bool:
        """Whether two arrays of rows are known to be equal."""
        raise NotImplementedError

    def is_signal(self, error: Exception) -> bool:
        """Whether the framework says by this error that it needs numbers where it traces."""
        raise NotImplementedError

    # What runs of programs ask for ------------------------------------------------------------------------------------

    def param(self, name: str, initial: Callable[[], Any], constraint: Any, role: str) -> Any:
        """The value of a parameter that a program asks for."""
        if constraint is not None:
            self.constraints.setdefault(name, constraint)
        if name not in self.params:
            raise ProgramError(
                f"parameter {name!r} of the {role} at {self.here()} is missing from params, which has {sorted(self.params)}: "
                f"take params from `init`, or add a value under that name."
            )
        return self.value_of(name)

    def declare(self, name: str, constraint: Any, initial: Any, role: str) -> None:
        """Told of a parameter to which a program gives an initial value, or a function that makes it."""
        shape = self.shape_of(initial, self.names.is_of_another(name, role))
        self.names.param(name, of_param(role, self.here(), constraint, shape, self.support_of))
        given = self.shape_of(self.params[name], False) if name in self.params else shape
        if None not in (shape, given) and shape != given:
            raise ProgramError(
                f"parameter {name!r} of the {role} at {self.here()} starts with shape {shape}, and its value in params "
                f"has shape {given}: take params from `init`, or declare the parameter with the shape that it has."
            )

    def shape_of(self, initial: Any, again: bool) -> Any:
        """Of an initial value; None where it would have to be made. Whether it is declared `again`, by another program."""
        raise NotImplementedError

    def value_of(self, name: str) -> Any:
        """The value of a parameter, held constant where that is asked for."""
        value = self.params[name]
        return self.ops.tree_map(self._hold, value) if self._held else value

    def _hold(self, x: Array) -> Array:
        stopped = self.ops.stop_gradient(x)
        return self.because(stopped, self._held) if isinstance(self._held, str) else stopped

    def log_prob(self, site: Site, value: Array, role: str, intermediates: Sequence[Any] = ()) -> Array:
        """log_prob of a site's value, of the site's batch shape, with shapes checked."""
        fn = site.fn
        try:
            log_prob, problem = self.evaluate(self.unvalidated(fn, site.name), value, intermediates)
        except (NotImplementedError, KeyError) as error:
            raise ProgramError(
                f"site {site.name!r} of the {role} at {self.here()}: {type(fn).__name__} has no density at a value that this "
                f"run of it has not drawn ({error}). Use a transform with an inverse, or an objective that asks for the "
                f"density of its own draws only, such as `elbo` or `iwelbo`."
            ) from error
        if log_prob is None:
            raise self.misfit(site, value, role) from problem
        return log_prob

    def misfit(self, site: Site, value: Array, role: str) -> ProgramError:
        """The error of a value that is of another shape than its site."""
        fn = site.fn
        return ProgramError(
            f"site {site.name!r} of the {role} at {self.here()}: a value of shape {tuple(value.shape)} does not fit "
            f"{type(fn).__name__} of batch shape {tuple(fn.batch_shape)} and event shape {tuple(fn.event_shape)}. Make the "
            f"shapes agree, or add to_event or a plate."
        )

    def looked_at(self, fn: Any, value: Array) -> Array:
        """What a density looks at of data, of which masks may leave out what is not there."""
        return value

    def unvalidated(self, fn: Any, name: str) -> Any:
        """The distribution of a site, which may have to take values from outside of its support."""
        return fn

    def density(self, site: Site, role: str, at: At) -> tuple[Density | None, Sequence[Array]]:
        """What its mark says of a site's log_prob, and the arrays that say where it has mass."""
        # What is masked costs nothing, possible or not.
        over = [mask for mask, _ in masks(site.fn)]
        if not self.marking or (at in ("choice", "data") and any(mask is False for mask in over)):
            return None, ()
        seen, masked = self.distribution(site.fn), bool(over)
        looked_at = at == "choice" and not self.lifting and not masked
        kind, numbers = seen.masses() if looked_at else (None, [])
        info = Density(site.name, role, seen.name, self.here(), seen.support, tails(seen.name), at, kind, masked)
        return info, [*seen.bounds(), *numbers]

    def given(self, site: Site, value: Array, role: str) -> Array:
        """The value of a site that comes from outside, with its shape checked."""
        shapes = (tuple(site.fn.batch_shape), tuple(site.fn.event_shape))
        refuse_shape(site.name, shapes, role, self.here, tuple(value.shape))
        return value

    def tell(self, run: Run, site: Site, told: Told, arrays: Arrays) -> Array:
        """Tell a run of a site; the value that the program goes on with."""
        run.distributions[told.name] = Counted(site.fn, site.scale, site.plates)
        run.record(told, arrays)
        return arrays.value

    def ran(self, role: str, values: Mapping[str, Array], log_probs: Mapping[str, Array]) -> None:
        """Told of every finished run of a program."""

    def draw(self, name: str, fn: Any, infer: Mapping[str, Any]) -> tuple[Array, Sequence[Any], str]:
        """Draw a site by its strategies and mark it. `infer` may name its `strategy` and its `baseline_input`.

        **Returns** its value, the intermediates of its sampler, and the route of its gradient.
        """
        where = self.here()
        self.refuse_foreign_lanes(name, where)
        self.drawn.add(name)
        site = self.distribution(fn, infer.get("baseline_input"))
        strategy = self.chosen.get(name, infer.get("strategy"))
        refuse_undrawable(name, site, where)
        fitting = default_strategies(site) if strategy is None else (as_strategy(strategy, name, site, where),)
        self.learning = self.learning or any(candidate.stateful for candidate in fitting)
        if any(candidate.relaxes for candidate in fitting):
            self.relaxed.add(name)
        key = self.key()
        try:
            draws = [candidate.draw(site, key) for candidate in fitting]
        except NotImplementedError as error:
            raise StrategyError(
                f"site {name!r} ~ {site.name} at {where} cannot be drawn: {site.name} has no sampler ({error}). Draw the site "
                f"from another distribution in the guide."
            ) from error
        if not self.marking:
            return draws[0].value, site.intermediates, fitting[0].route
        inputs: list[Array] = []
        candidates = [Candidate(s, self._collect(draw, inputs)) for s, draw in zip(fitting, draws, strict=True)]
        bounds, (kind, numbers) = site.bounds(), site.masses()
        info = SiteInfo(
            name=name,
            distribution=site.name,
            where=where,
            ndim=len(site.lanes),
            candidates=tuple(candidates),
            named=strategy is not None,
            bounds=tuple(range(1 + len(inputs), 1 + len(inputs) + len(bounds))),
            support=site.support,
            masses=kind,
        )
        return self.marks.mark_site(info, key, [*inputs, *bounds, *numbers]), site.intermediates, fitting[0].route

    def _collect(self, drawn: Draw, inputs: list[Array]) -> tuple[int | None, ...]:
        """Append a draw's arrays to a site's inputs; where each field went. Input 1 is the site's key."""
        places: list[int | None] = []
        for field in drawn:
            if field is None:
                places.append(None)
                continue
            inputs.append(self.array(field))
            places.append(0 if len(inputs) == 1 else len(inputs))
        return tuple(places)

    # What verbs ask for -----------------------------------------------------------------------------------------------

    def handle(self, fn: Callable[..., Any], *leading: Any) -> Handle:
        """A handle on a program that is neither the model nor the guide."""
        name = getattr(fn, "__name__", type(fn).__name__)
        return Handle(functools.partial(fn, *leading), f"program {name}", self, self.args, self.kwargs)

    @contextmanager
    def held(self, stop: bool | str) -> Iterator[None]:
        """Parameters are constants for every gradient, if `stop`, which may be the reason."""
        outer, self._held = self._held, self._held or stop
        try:
            yield
        finally:
            self._held = outer

    def kl(self, q: Counted, p: Counted, ratio: Array) -> Array | None:
        """KL divergence between the distributions of one site, counted and summed; None where no closed form is known."""
        return closed_form(self, q, p, ratio)

    def divergence(self, q: Any, p: Any) -> Array | None:
        """KL divergence of the framework's distributions, by lane, where it knows a closed form."""
        raise NotImplementedError

    def meet(self, plates: Sequence[Plate]) -> None:
        """Told of the plates around every site."""
        for plate in plates:
            self._scales.setdefault(plate.name, set()).add(plate.scale)

    def owe(self, plates: Sequence[str]) -> None:
        """Densities are given out in which the rows of these plates' minibatches count once."""
        self._owed |= dict.fromkeys(plates, self.here())

    def settle(self, plates: Sequence[str]) -> float:
        """How many rows every index of these plates stands for, which is asked for a sum over them."""
        for name in plates:
            self._owed.pop(name, None)
            if len(self._scales.get(name, ())) != 1:
                problem = "has minibatches of several sizes" if name in self._scales else "is around no site"
                raise ProgramError(f"total over plate {name!r}, which {problem}; there are {sorted(self._scales)}.")
        return math.prod(scale for name in plates for scale in self._scales[name])

    def refuse_owed(self) -> None:
        """A minibatch that nothing counts for all of its plate."""
        for name, where in self._owed.items():
            scales = ", ".join(f"{scale:g}" for scale in sorted(self._scales[name]))
            raise ProgramError(
                f"densities per plate {name!r}, asked for at {where}, are those of each row of its minibatch for itself, and "
                f"the objective never puts in that each stands for {scales} rows: sum over the plate by "
                f"ppvi.total(x, per={name!r}) instead of x.sum(); for a mean over rows, divide that by their number."
            )

    def estimate(self, value: Array, what: str, plates: Sequence[str] = ()) -> Array:
        """The value, marked as an unbiased estimate, on the minibatches of these plates."""
        return self.marks.mark_estimate(value, what) if self.marking else value

    def because(self, value: Array, reason: str) -> Array:
        """A value held constant, marked with the reason."""
        return self.marks.mark_because(value, reason) if self.marking else value


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


def refuse_undrawable(name: str, site: SiteDistribution, where: str) -> None:
    """A draw that would be wrong, or cannot be made."""
    if site.undrawable:
        raise StrategyError(f"site {name!r} ~ {site.name} at {where}: {site.undrawable}.")


def as_strategy(strategy: Any, name: str, site: Distribution, where: str) -> Strategy:
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
