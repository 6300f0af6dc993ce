"""What checks of objectives share: what they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ppvi.checks import Measurement, Question, exactly
from ppvi.checks.unbiased import OPEN, ROUNDED
from ppvi.compiler.plan import Plan
from ppvi.engine.objectives import Estimator, Params
from ppvi.engine.outcomes import EndlessError, Outcomes
from ppvi.errors import ProgramError, StrategyError
from ppvi.strategies import Enumerate, Quadrature, Reinforce, Strategy


class Oracle(NamedTuple):
    """Another estimator of an objective's gradient."""

    objective: Estimator
    exact: bool
    """Whether its key makes no difference."""


OUTCOMES = 4096
"""The most outcomes of an estimator that are all gone through."""

NODES = ((48, 64), (32, 44))
"""Numbers of nodes that have to agree; fewer where sites are nested and many are too expensive."""


def asked_of(against: str | Sequence[str]) -> Sequence[str]:
    """What a gradient is to be compared with."""
    against = (against,) if isinstance(against, str) else against
    unknown = sorted(set(against) - {"path", "exact", "quadrature", "reinforce"})
    if unknown or not against:
        raise ProgramError(
            f"check: against must name some of 'path', 'exact', 'quadrature' and 'reinforce', not {unknown or against!r}."
        )
    return against


def moving_in(objective: Estimator, params: Params, owners: Mapping[str, set[str]]) -> set[str]:
    """The parameters that the objective is an objective for."""
    whose = getattr(objective.program, "gradient_of", None)
    return {name for name in params if whose is None or whose in owners.get(name, {whose})}


def is_random(plan: Plan) -> bool:
    """Whether different keys should give different estimates."""
    return any(not isinstance(choice.strategy, Enumerate) for choice in plan.choices.values())


def oracles(
    objective: Estimator,
    plan: Plan,
    params: Params,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    against: Sequence[str],
    keys: Sequence[Any],
    close: Callable[[Any, Any], bool],
) -> tuple[dict[str, Oracle], list[str]]:
    """Other estimators of the gradient, by what the report calls them, and why there are no more.

    **Arguments**

    - `keys`: two that differ.
    - `close`: whether two estimates and their gradients agree.
    """
    missing: list[str] = []

    def other(finite: Strategy, real: Strategy) -> Estimator | None:
        named = {c.info.name: real if c.info.support.kind == "real" else finite for c in plan.choices.values()}
        made = objective.other(strategies=named)
        try:
            made.staged(params, *args, **kwargs)
        except (StrategyError, ProgramError) as error:
            missing.append(str(error))
            return None
        return made

    def settled(*others: Estimator | None) -> Oracle | None:
        """The last of several objectives, if its gradient is the same as the others' and whatever the key."""
        there = [o for o in others if o is not None]
        if len(there) < len(others):
            return None
        pairs = zip(keys, there, strict=True)
        first, *rest = (o.value_and_grad(key, params, *args, **kwargs) for key, o in pairs)
        if not all(close(first, gradient) for gradient in rest):
            missing.append("an exact gradient was not found: another key, or more nodes, gave another")
            return None
        return Oracle(there[-1], exact=True)

    found: dict[str, Oracle | None] = {}
    if "exact" in against and plan.choices:
        found["exact"] = settled(*[other(Enumerate(), Enumerate())] * 2)
    if "quadrature" in against and plan.choices:
        rules = (settled(*(other(Enumerate(), Quadrature(n)) for n in nodes)) for nodes in NODES)
        found["by quadrature"] = next((rule for rule in rules if rule is not None), None)
    if "reinforce" in against and plan.choices:
        by_score = other(Reinforce(), Reinforce())
        found["by score"] = None if by_score is None else Oracle(by_score, exact=False)
    return {name: oracle for name, oracle in found.items() if oracle is not None}, missing


def by_outcomes(
    questions: Sequence[Question],
    through: Callable[[int], tuple[Any, np.ndarray]],
    known: Callable[[Any], tuple[Outcomes, tuple[Any, np.ndarray]]],
    eps: float,
) -> tuple[Measurement, ...]:
    """The bias itself at the point of every path, where the estimator has few outcomes; none where it has many.

    **Arguments**

    - `through`: from the number of a question to the point that its path goes through, and the velocity there.
    - `known`: from a point to every outcome of the estimator, and the exact value and gradient.
    - `eps`: the last digit of 1.
    """
    found: dict[str, tuple[Outcomes, tuple[Any, np.ndarray]]] = {}
    measurements = []
    for number, question in enumerate(questions):
        point, velocity = through(number)
        first = question.point not in found
        try:
            found[question.point] = known(point) if first else found[question.point]
        except EndlessError:
            return ()
        every, (value, gradient) = found[question.point]
        asked = [
            (question.direction, every.along(velocity), gradient @ velocity),
            ("the value itself", every.values, value),
        ]
        place = f"{question.point}, every outcome"
        measurements += [
            exactly(Question(place, what), every.probabilities, x, truth, spacing=eps * abs(float(value)))
            for what, x, truth in asked[: 1 + first]
        ]
    return tuple(measurements)


def decided(exact: Sequence[Measurement], drawn: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """All measurements. Where draws could not tell, since the rounding of the values hides a bias or for want of more of them,
    every outcome, which found none, decides."""

    def decide(m: Measurement) -> Measurement:
        reason = next((reason for reason in (ROUNDED, OPEN) if m.reason.endswith(reason)), None)
        if not exact or reason is None:
            return m
        return replace(m, outcome="unbiased within delta", reason=f"{reason}; unbiased by every outcome")

    return (*exact, *map(decide, drawn))
