"""Training: what a fit asks of an engine, which objective moves whose parameters, and where they start."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from ppvi._doors import close_to, described, listed, number
from ppvi._ops import Array
from ppvi.engine.arguments import named
from ppvi.engine.protocol import Params, Start
from ppvi.engine.statements import ABOVE, constraint_name
from ppvi.engine.trail import Trail
from ppvi.errors import ProgramError
from ppvi.proofs.findings import StaticReport

T = TypeVar("T")


Arrays = Mapping[str, Array]
"""All that a step changes, by name."""


@dataclass(frozen=True, eq=False)
class State:
    """All that a fit needs to go on.

    **Attributes**

    - `arrays`: name -> array: unconstrained parameters, memories of optimisers, states of strategies that learn, averages,
      running statistics of modules, and the random numbers to come.
    - `losses`: of the steps that were taken, `(step,)`, or `(step, objective)` of several objectives; of several starts
      `(step, start)` or `(step, start, objective)`, NaN from where a start was lost.
    - `starts`: how many starts it is of.
    - `trail`: where its averages have been, of a fit that is asked whether it has converged; else None.
    """

    arrays: Arrays = field(repr=False)
    losses: np.ndarray = field(repr=False)
    starts: int = 1
    trail: Trail | None = field(default=None, repr=False)

    @property
    def step(self) -> int:
        """How many steps were taken."""
        return len(self.losses)

    @property
    def lost(self) -> np.ndarray:
        """Which starts were lost, `(start,)`."""
        if not self.step:
            return np.zeros(self.starts, bool)
        return np.isnan(self.losses[-1].reshape(self.starts, -1)).any(1)

    def losses_of(self, start: int) -> np.ndarray:
        """Those of one start."""
        return self.losses if self.starts == 1 else self.losses[:, start]

    def __repr__(self) -> str:
        several = f", starts={self.starts}" if self.starts > 1 else ""
        return f"State(step={self.step}, arrays={len(self.arrays)}{several})"


class Trainer(Protocol):
    """Moves the parameters of one objective, or of several in turn, from state to state; those of several starts side by side.

    The steps from a state are the same numbers in however many calls they are taken.
    """

    starts: int
    remedy: str
    """What may keep an update finite."""
    averages: Sequence[str]
    """Names of the state's arrays that are averages of parameters, where there are any."""
    explained: Sequence[str]
    """How each parameter is moved and why, by optimisers that know the guide."""
    is_first: bool
    """Whether this process is the first of those that share the fit, and writes for all."""

    def agreed(self, number: int) -> int:
        """The first process's number, in all of them."""
        ...

    def init(self) -> State:
        """The state before the first step."""
        ...

    def restored(self, state: State) -> State:
        """A state of another fit of the same objectives, as one of this.

        **Raises** `ProgramError` where it is of other parameters or optimisers.
        """
        ...

    def advance(self, state: State, n: int, data: Data) -> tuple[Arrays, np.ndarray, np.ndarray]:
        """The arrays of the state `n` steps on, at most `CHUNK`; the losses of these steps; and of which starts, `(start,)`,
        all is finite and in its constraints."""
        ...

    def estimates(self, state: State, draws: range, data: Data) -> np.ndarray:
        """Losses of the first objective at the parameters of every start, `(draw, start)`: the same draws for all, which no
        step has."""
        ...

    # Of one start -----------------------------------------------------------------------------------------------------

    def one(self, state: State, start: int) -> State:
        """The state of one start, as of a fit that has no others."""
        ...

    def params(self, state: State) -> Params:
        """Constrained values of the parameters."""
        ...

    def problem(self, state: State) -> str | None:
        """What is wrong with a state after its last step, if anything."""
        ...

    def cause(self, state: State, data: Data) -> str | None:
        """Where a NaN or an infinity of the step after this state comes from, if it is known."""
        ...

    def end(self, state: State) -> None:
        """Leave the world in this state, which is the last."""
        ...


Data = tuple[tuple[Any, ...], dict[str, Any]]
"""What is passed to the model and the guide."""

CHUNK = 1000
"""The most steps that are taken at once."""

Whose = str | Collection[str] | Callable[[str], bool]
"""Which parameters: `"model"` or `"guide"` (whoever is not the model), names, or a predicate on names."""


@dataclass(frozen=True)
class Decay:
    """A mean in which the last steps count most (Shamir and Zhang 2013)."""

    power: float

    def weight(self, step: Any) -> Any:
        """With which the parameters after so many steps enter their mean."""
        return (self.power + 1) / (step + self.power)


@dataclass(frozen=True)
class Blocks:
    """A mean that begins again after so many steps."""

    steps: int

    def weight(self, step: Any) -> Any:
        """With which the parameters after so many steps enter their mean."""
        return 1 / ((step - 1) % self.steps + 1)


Averaging = Decay | Blocks
"""How parameters are averaged over steps."""


def one_each(optimizer: T | Sequence[T], n: int) -> list[T]:
    """An optimiser for each of `n` objectives."""
    if not isinstance(optimizer, list | tuple) or hasattr(optimizer, "_fields"):
        return [optimizer] * n  # type: ignore[list-item]
    if len(optimizer) != n:
        raise ProgramError(f"fit: optimizer= has {len(optimizer)} for {n} objectives; give one, or one for each.")
    return list(optimizer)


def step_size_of(optimizer: Any) -> float | None:
    """The step size of Adam that a number, or nothing, stands for."""
    if optimizer is None:
        return 0.01
    if isinstance(optimizer, bool) or not isinstance(optimizer, int | float | np.number):
        return None
    return float(number("fit: the optimizer, where it is the step size of Adam,", optimizer, above=0))


@dataclass(frozen=True)
class Beginning:
    """What the first runs of the objectives of a fit have found."""

    params: Params
    constraints: dict[str, Any]
    """Name -> the framework's constraint."""
    transforms: dict[str, Any]
    """Name -> the framework's bijection from unconstrained values."""
    names: list[tuple[str, ...]]
    """Of each objective, the parameters that it moves."""

    def constrained(self, unconstrained: Mapping[str, Any]) -> Params:
        return {name: self.transforms[name](value) for name, value in unconstrained.items()}

    def unconstrained(self, params: Mapping[str, Any]) -> Params:
        return {name: self.transforms[name].inv(value) for name, value in params.items()}


def beginning(whose: Sequence[Whose], found: Sequence[Start], transform_to: Callable[[Any], Any]) -> Beginning:
    constraints = {name: constraint for start in found for name, constraint in start.constraints.items()}
    return Beginning(
        {name: value for start in found for name, value in start.params.items()},
        constraints,
        {name: transform_to(constraint) for name, constraint in constraints.items()},
        [moved(each, start) for each, start in zip(whose, found, strict=True)],
    )


RADIUS = 2.0
"""Of the noise on what begins alike; NumPyro's `init_to_uniform` has the same."""


def apart(
    first: Sequence[np.ndarray], other: Sequence[np.ndarray], values: Sequence[np.ndarray], seed: int
) -> list[np.ndarray]:
    """Where another start than the first begins, in unconstrained space: where its own key says, and else by the first, with
    uniform noise.

    Noise is on parameters without a constraint; on all where nothing else would tell the starts apart. In arrays of two and
    more axes, such as a layer's weights, it goes down with the number of entries that are summed over.

    **Arguments**

    - `first`, `other`: the unconstrained parameters that each of their keys begins with.
    - `values`: the constrained ones of the first.
    """
    alike = [np.array_equal(x, y) for x, y in zip(first, other, strict=True)]
    free = [is_alike and np.array_equal(x, y) for is_alike, x, y in zip(alike, first, values, strict=True)]
    rng, noisy = np.random.default_rng(seed), free if any(free) or not all(alike) else alike
    widths = [RADIUS / math.sqrt(math.prod(x.shape[1:])) if x.size else 0.0 for x in first]
    noise = [width * rng.uniform(-1, 1, x.shape) for width, x in zip(widths, first, strict=True)]
    return [y + u if is_noisy else y for y, u, is_noisy in zip(other, noise, noisy, strict=True)]


def moved(whose: Whose, start: Start) -> tuple[str, ...]:
    """The parameters that an objective moves."""
    names = list(start.params)
    if whose == "model":
        found = [name for name in names if "model" in start.owners[name]]
    elif whose == "guide":
        found = [name for name in names if start.owners[name] != {"model"}]
    elif callable(whose):
        found = [name for name in names if whose(name)]
    else:
        wanted = {whose} if isinstance(whose, str) else set(whose)
        unknown = sorted(wanted - set(names))
        if unknown:
            raise ProgramError(
                f"fit: {unknown[0]!r} is no parameter of the objective, and neither 'model' nor 'guide'; it has {names}."
            )
        found = [name for name in names if name in wanted]
    if not found:
        raise ProgramError(f"fit: an objective would move no parameter: {described(whose)} selects none of {names}.")
    return tuple(found)


def started_from(
    start: Params,
    constraints: Mapping[str, Any],
    params: Any,
    read: Callable[[Any, Any], Any],
    shape_of: Callable[[Any], Any],
    numbers: Callable[[Any], Sequence[np.ndarray]],
    check: Callable[[Any, Any], Any],
) -> Params:
    """Values to start from, which must be of the parameters' names and shapes, finite, and in their constraints.

    **Arguments**

    - `start`: initial values of all parameters.
    - `read`: a parameter's initial value and a given one to that as an array, or a tree of arrays.
    - `numbers`: the arrays of a tree.
    - `check`: a constraint and a value to where it holds, as an array or a tree of arrays.
    """
    values: Params = {}
    for name, value in ({} if params is None else named(params)).items():
        if name not in start:
            raise ProgramError(
                f"fit: params has {name!r}, which is no parameter of the objective; it has {listed(start)}."
                f"{close_to(name, start)}"
            )
        mine = start[name]
        try:
            shape, values[name] = shape_of(value), read(mine, value)
        except (TypeError, ValueError, RuntimeError):
            raise ProgramError(
                f"fit: the value of parameter {name!r} in params must be numbers, laid out as init returns it, not "
                f"{described(value)}."
            ) from None
        if shape != shape_of(mine):
            raise ProgramError(
                f"fit: parameter {name!r} has shape {shape_of(mine)}, and its value in params has shape {shape}."
            )
        if not all(np.isfinite(x).all() for x in numbers(values[name])):
            raise ProgramError(f"fit: the value of parameter {name!r} in params is NaN or infinite.")
        constraint = constraints.get(name)
        if constraint is not None and not all(np.all(x) for x in numbers(check(constraint, values[name]))):
            raise ProgramError(
                f"fit: the value of parameter {name!r} in params is outside of its constraint, {constraint_name(constraint)}: "
                f"params are constrained values, as init returns them."
            )
    return values


def refuse_other_state(expected: Mapping[str, Array], state: State) -> None:
    """A state to go on from must be of the same parameters and optimisers, and of as many starts."""
    for name in [*expected, *state.arrays]:
        mine, theirs = expected.get(name), state.arrays.get(name)
        if mine is None or theirs is None or tuple(mine.shape) != tuple(theirs.shape):
            has, asked = ("nothing" if x is None else f"an array of shape {tuple(x.shape)}" for x in (theirs, mine))
            raise ProgramError(
                f"fit: the state to go on from has {has} for {name}, and this fit wants {asked}: go on with the objectives, "
                f"the optimizer and the options that the state was made with, or begin anew with params=."
            )


def strayed(name: str, value: np.ndarray, constraint: Any) -> str | None:
    """What is wrong with a parameter after an update: it is not finite, or it is zero where it has to be positive.

    Only where the rounding of numbers puts it there, for that is how a constrained parameter leaves its constraint. At a
    bound that is not zero rounding is harmless, and it is where some fits converge to.
    """
    kept, positive = np.isfinite(value), positive_part(value, constraint)
    out = value[~kept] if not kept.all() or positive is None else positive[~(positive > 0)]
    return (
        f"parameter {name!r} has left its constraint {constraint}, with the value {out.flat[0]}" if out.size else None
    )


def positive_part(value: Any, constraint: Any) -> Any:
    """What of a constrained value must be positive: all of a scale, the diagonal of a Cholesky factor, or None."""
    constraint = getattr(constraint, "base_constraint", constraint)
    kind = type(constraint).__name__.strip("_")
    if kind in _FACTORS:
        return value.diagonal(0, -2, -1)
    return value if kind in ABOVE and np.all(np.asarray(constraint.lower_bound) == 0) else None


_FACTORS = frozenset({"LowerCholesky", "SoftplusLowerCholesky", "ScaledUnitLowerCholesky", "PositiveDefinite"})
"""Constraints of matrices with a positive diagonal."""


def cause_in(
    culprits: Sequence[str], value_is_finite: bool, bad_gradients: Sequence[str], prove: Callable[[], StaticReport]
) -> str | None:
    """Where a NaN or an infinity of one objective came from: a site if there is one, else a parameter's gradient; and what the
    static check says of supports."""
    if not culprits and value_is_finite and not bad_gradients:
        return None
    with suppress(Exception):  # what cannot be run here
        for finding in prove().findings:
            if finding.rule == "support" and finding.severity == "biased":
                return f"{finding.subject}: {finding.operation} at {finding.where}: {finding.why} {finding.remedy.rstrip('.')}"
    if culprits:
        return culprits[0]
    lost = f"the gradient of parameter {bad_gradients[0]!r}" if value_is_finite else "the objective's value"
    return f"every site's log_prob is finite, but {lost} is not"


def update_of(name: str) -> str:
    """The cause where no objective has one."""
    return f"the value and the gradient are finite, but the optimiser's update of parameter {name!r} is not"
