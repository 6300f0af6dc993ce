"""What fits share: their results, which objective moves whose parameters, and where they start."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import arviz as az
import numpy as np
from tqdm import tqdm

from ppvi.engine.draws import posterior
from ppvi.engine.objectives import Objective, Params, Start
from ppvi.errors import FitError, ProgramError
from ppvi.program import Program

O = TypeVar("O", bound=Objective)  # noqa: E741
T = TypeVar("T")


@dataclass(frozen=True)
class Fit:
    """A fitted objective.

    **Attributes**

    - `params`: name -> constrained value.
    - `losses`: one estimate per step, `(step,)`, or `(step, objective)` of several; minus what was maximised.
    """

    params: Params
    losses: np.ndarray
    objectives: tuple[Objective, ...] = field(repr=False)
    key: Any = field(repr=False)
    args: tuple[Any, ...] = field(repr=False)
    kwargs: Mapping[str, Any] = field(repr=False)

    def posterior(
        self,
        key: Any = None,
        draws: int = 1000,
        *,
        particles: int = 1,
        program: Callable[[Program, Program], Program] | None = None,
    ) -> az.InferenceData:
        """Draws from the fitted guide, as ArviZ data; see `posterior`."""
        options: dict[str, Any] = {"draws": draws, "particles": particles, "program": program}
        key = self.objectives[0].another(self.key) if key is None else key
        return posterior(self.objectives[0], key, self.params, *self.args, **options, **self.kwargs)

    def __str__(self) -> str:
        if not len(self.losses):
            return "Fit of 0 steps"
        recent = self.losses[-max(len(self.losses) // 10, 1) :]
        changes = zip(np.atleast_1d(self.losses[0]), np.atleast_1d(recent.mean(0)), strict=True)
        losses = ", ".join(f"{first:.5g} -> {last:.5g}" for first, last in changes)
        return f"Fit of {len(self.losses)} steps: loss {losses}; parameters {', '.join(self.params)}"


Whose = str | Collection[str] | Callable[[str], bool]
"""Which parameters: `"model"` or `"guide"` (whoever is not the model), names, or a predicate on names."""


def check_steps(num_steps: Any) -> None:
    """Refuse a number of steps that is none."""
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise ProgramError(f"fit: num_steps must be an int of at least 1, not {num_steps!r}.")


def pairs_of(objective: O | Sequence[tuple[O, Whose]]) -> list[tuple[O, Whose]]:
    """Objectives, and whose parameters each of them moves."""
    if isinstance(objective, Objective):
        return [(objective, lambda name: True)]
    pairs = list(objective)
    if not pairs or not all(
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], Objective) for pair in pairs
    ):
        raise ProgramError(
            "fit: several objectives are a list of pairs, each an objective from `objective(...)` and whose parameters it "
            'moves, such as [(wake, "model"), (sleep, "guide")].'
        )
    return pairs


def one_each(optimizer: T | Sequence[T], n: int) -> list[T]:
    """An optimiser for each of `n` objectives."""
    if not isinstance(optimizer, list | tuple) or hasattr(optimizer, "_fields"):
        return [optimizer] * n  # type: ignore[list-item]
    if len(optimizer) != n:
        raise ProgramError(f"fit: {len(optimizer)} optimizers for {n} objectives; give one, or one for each.")
    return list(optimizer)


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
        raise ProgramError(f"fit: an objective would move no parameter: {whose!r} selects none of {names}.")
    return tuple(found)


def refuse_unknown_params(start: Params, params: Params) -> None:
    """Values to start from must be of the objective's parameters."""
    unknown = sorted(params.keys() - start.keys())
    if unknown:
        raise ProgramError(
            f"fit: params has {unknown[0]!r}, which is no parameter of the objective; it has {sorted(start)}."
        )


def refuse_other_shapes(start: Params, params: Params, shape_of: Callable[[Any], Any]) -> None:
    """Values to start from must be of the parameters' shapes."""
    for name, value in params.items():
        if shape_of(value) != shape_of(start[name]):
            raise ProgramError(
                f"fit: parameter {name!r} has shape {shape_of(start[name])}, and its value in params {shape_of(value)}."
            )


def strayed(name: str, value: np.ndarray, constraint: Any) -> str | None:
    """What is wrong with a parameter after an update: it is not finite, or it is zero where it has to be positive.

    Only where the rounding of numbers puts it there, for that is how a constrained parameter leaves its constraint. At a
    bound that is not zero rounding is harmless, and it is where some fits converge to.
    """
    kept = np.isfinite(value)
    positive = value if _is_positive(constraint) else _diagonal(value, constraint)
    out = value[~kept] if not kept.all() else positive[~(positive > 0)]
    return (
        f"parameter {name!r} has left its constraint {constraint}, with the value {out.flat[0]}" if out.size else None
    )


def _is_positive(constraint: Any) -> bool:
    constraint = getattr(constraint, "base_constraint", constraint)
    return _kind(constraint) in _ABOVE and bool(np.all(np.asarray(constraint.lower_bound) == 0))


def _diagonal(value: np.ndarray, constraint: Any) -> np.ndarray:
    kind = _kind(getattr(constraint, "base_constraint", constraint))
    return np.diagonal(value, axis1=-2, axis2=-1) if kind in _FACTORS else np.ones(())


def _kind(constraint: Any) -> str:
    return type(constraint).__name__.strip("_")


_ABOVE = frozenset({"Positive", "GreaterThan", "SoftplusPositive"})
"""Constraints above a bound, as both frameworks name them."""

_FACTORS = frozenset({"LowerCholesky", "SoftplusLowerCholesky", "ScaledUnitLowerCholesky", "PositiveDefinite"})
"""Constraints of matrices with a positive diagonal."""


def stopped(step: int, cause: str, fit: Fit, remedy: str) -> FitError:
    """The error of a fit that has left the finite numbers, or a constraint."""
    held = f"the last parameters that were finite and in their constraints, and {len(fit.losses)} losses"
    hint = f"The error's `.fit` holds {held}; a smaller step size, or {remedy}, may help."
    if step == 0:
        hint = "Nothing has been moved yet: look at the data, at the initial parameters and at what is computed of them there."
    return FitError(f"the fit stopped at step {step}: {cause}. {hint}", fit)


def progress_bar(num_steps: int, shown: bool) -> tqdm:
    """A bar for a terminal; where there is none, as in a log, a line every ten seconds."""
    return tqdm(total=num_steps, disable=not shown, desc="fit", mininterval=0.1 if sys.stderr.isatty() else 10.0)


def cause_in(culprits: Sequence[str], value_is_finite: bool, bad_gradients: Sequence[str]) -> str | None:
    """Where a NaN or an infinity of one objective came from: a site if there is one, else a parameter's gradient."""
    if culprits:
        return culprits[0]
    if not value_is_finite:
        return "every site's log_prob is finite, but the objective's value is not"
    if bad_gradients:
        return f"every site's log_prob is finite, but the gradient of parameter {bad_gradients[0]!r} is not"
    return None


def update_of(name: str) -> str:
    """The cause where no objective has one."""
    return f"the value and the gradient are finite, but the optimiser's update of parameter {name!r} is not"
