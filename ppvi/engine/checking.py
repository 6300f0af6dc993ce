"""The check of an objective: the static one, and draws of its gradient against the change of its value and other estimators."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ppvi._doors import one_of
from ppvi.checks import Budget, Question, Report, measure
from ppvi.checks.paths import Paths, lay
from ppvi.checks.unbiased import OPEN, ROUNDED, Measurement, exactly
from ppvi.compiler.plan import Plan
from ppvi.engine.outcomes import EndlessError, Outcomes
from ppvi.engine.protocol import Args, Estimator, Gradients, Kwargs, Params
from ppvi.errors import ProgramError, StrategyError
from ppvi.program import marking_of
from ppvi.proofs.findings import StaticReport
from ppvi.strategies import Enumerate, Quadrature, Reinforce, Strategy

Known = Callable[[Any], tuple[Outcomes, tuple[Any, np.ndarray]]]
"""From parameters to every outcome of an estimator there, and the exact value and gradient."""


class Oracle(NamedTuple):
    """Another estimator of an objective's gradient."""

    estimator: Estimator
    key: Any = None
    """The one that it is asked with, where it is exact, so that a key makes no difference."""


OUTCOMES = 4096
"""The most outcomes of an estimator that are all gone through."""

NODES = ((48, 64), (32, 44))
"""Numbers of nodes that have to agree; fewer where sites are nested and many are too expensive."""


NAMES = {"exact": "exact", "quadrature": "by quadrature", "reinforce": "by score"}
"""What the report calls the gradients that one may ask to compare with."""


def check(
    bound: Estimator,
    key: Any,
    params: Params,
    args: Args,
    kwargs: Kwargs,
    *,
    against: str | Sequence[str],
    **options: Any,
) -> Report:
    """See `Objective.check`."""
    against = _asked_of(against)
    seen = bound.seen(params, *args, **kwargs)
    static = seen.prove()
    reason = marking_of(bound.formula.program).no_potential
    if reason is not None:
        return Report(options["alpha"], (), static, (f"nothing was measured: {reason}",))
    start = bound.begun(key, params, args, kwargs)
    bound.formula.refuse_no_params(params)
    gradients = bound.gradients(key, params, args, kwargs, start)
    found, missing = {}, ["a program that is replayed has no other gradient to compare with"]
    if seen.plan is not None:
        found, missing = _oracles(bound, seen.plan, gradients, params, args, kwargs, against)
    seconds = Budget.of(options["budget"]).seconds / 3  # at each of three points at most

    def known(point: Params) -> tuple[Outcomes, tuple[Any, np.ndarray]]:
        value, gradient = found["exact"].estimator.value_and_grad(found["exact"].key, point, *args, **kwargs)
        return bound.outcomes(point, args, kwargs, OUTCOMES, seconds), (float(value), gradients.flat(gradient))

    return judged(
        gradients,
        {"given": params, "initial": {**params, **start.params}},
        moving=_moving_in(bound, params, start.owners),
        oracles=found,
        missing=missing,
        known=known if "exact" in found else None,
        static=static,
        path="path" in against,
        **options,
    )


def judged(
    gradients: Gradients,
    points: Mapping[str, Any],
    *,
    moving: set[str] | None = None,
    oracles: Mapping[str, Oracle] | None = None,
    missing: Sequence[str] = (),
    known: Known | None = None,
    static: StaticReport | None = None,
    path: bool = True,
    alpha: float,
    far: float = 1.0,
    **options: Any,
) -> Report:
    """What `measure`, whose options these are, finds of draws of an estimator.

    **Arguments**

    - `points`: parameters by name, that which is asked about first.
    - `moving`: parameters of which it is the gradient; None of all.
    - `missing`: why there are no more oracles.
    """
    sanity, oracles = gradients.sanity(), dict(oracles or {})
    if sanity.problems:
        return Report(alpha, (), static, sanity.notes, sanity.problems)
    if not path and not oracles:
        nothing = "nothing was measured: no gradient to compare with is known for these sites; add 'path' to against"
        return Report(alpha, (), static, (*sanity.notes, nothing, *missing))
    is_known = any(options.get(name) is not None for name in ("bounds", "variance"))
    paths = lay(
        {name: gradients.vector(point) for name, point in points.items()},
        gradients.owner,
        gradients.names,
        [i for i, root in enumerate(gradients.roots) if moving is None or root in moving],
        gradients.seed,
        far,
        **{"close": not is_known, **gradients.few},
    )
    through = functools.partial(_through, gradients, paths)
    exact = () if known is None else _by_outcomes(paths.questions, through, known, gradients.eps)
    if exact:
        oracles.pop("exact")
    if any(m.outcome == "biased" for m in exact) or sanity.stuck or not (path or oracles):
        return Report(alpha, exact, static, sanity.notes)
    questions = [*paths.questions] if path else []
    for name in oracles:
        questions += [Question(f"given, {name}", paths.questions[i].direction) for i in paths.given]
        questions.append(Question(f"given, {name}", "the value itself"))
    drawn = measure(gradients.drawer(paths, oracles, path), questions, alpha=alpha, **options)
    return Report(alpha, _decided(exact, drawn), static, (*sanity.notes, paths.said))


def _through(gradients: Gradients, paths: Paths, number: int) -> tuple[Any, np.ndarray]:
    """The parameters that a path goes through, and their velocity there."""
    return gradients.through(paths.points[number], paths.directions[number])


def _asked_of(against: str | Sequence[str]) -> Sequence[str]:
    """What a gradient is to be compared with."""
    against = (against,) if isinstance(against, str) else against
    unknown = sorted(set(against) - {"path", *NAMES})
    for name in unknown or ([] if against else [against]):
        one_of("check: each of against", name, ["path", *NAMES])
    return against


def _moving_in(bound: Estimator, params: Params, owners: Mapping[str, set[str]]) -> set[str]:
    """The parameters that the objective is an objective for."""
    whose = marking_of(bound.formula.program).gradient_of
    return {name for name in params if whose is None or whose in owners.get(name, {whose})}


def is_random(plan: Plan) -> bool:
    """Whether different keys should give different estimates."""
    return any(not isinstance(choice.strategy, Enumerate) for choice in plan.choices.values())


def _oracles(
    bound: Estimator,
    plan: Plan,
    gradients: Gradients,
    params: Params,
    args: Args,
    kwargs: Kwargs,
    against: Sequence[str],
) -> tuple[dict[str, Oracle], list[str]]:
    """Other estimators of the gradient, by what the report calls them, and why there are no more."""

    def other(finite: Strategy, real: Strategy) -> Estimator | str:
        """The objective with these strategies, or why there is none."""
        named = {c.info.name: real if c.info.support.kind == "real" else finite for c in plan.choices.values()}
        made = bound.of(replace(bound.formula, strategies=named))
        try:
            made.staged(params, *args, **kwargs)
        except (StrategyError, ProgramError) as error:
            return str(error)
        return made

    def settled(differs: str, *others: Estimator | str) -> Oracle | str:
        """The last of several objectives, if its gradient is the same as the others' and whatever the key."""
        for one in others:
            if isinstance(one, str):
                return one
        there, (key, another) = [one for one in others if not isinstance(one, str)], gradients.keys
        first = there[0].value_and_grad(key, params, *args, **kwargs)
        same = gradients.agree(first, there[-1].value_and_grad(another, params, *args, **kwargs))
        return Oracle(there[-1], key) if same else differs

    def tries(asked: str) -> Iterator[Oracle | str]:
        if asked == "exact":
            differs = "an exact gradient was not found: another key gave another"
            yield settled(differs, *[other(Enumerate(), Enumerate())] * 2)
        elif asked == "quadrature":
            for n in NODES:
                differs = (
                    f"no gradient was found by quadrature: {n[0]} nodes gave another than {n[1]}, or another key did"
                )
                yield settled(differs, *(other(Enumerate(), Quadrature(nodes)) for nodes in n))
        else:
            made = other(Reinforce(), Reinforce())
            yield made if isinstance(made, str) else Oracle(made)

    found: dict[str, Oracle] = {}
    missing: dict[str, None] = {}
    for asked, name in NAMES.items():
        reasons: list[str] = []
        for one in tries(asked) if asked in against and plan.choices else ():
            if not isinstance(one, str):
                found[name] = one
                break
            reasons.append(one)
        else:
            missing |= dict.fromkeys(reasons)
    return found, list(missing)


def _by_outcomes(
    questions: Sequence[Question],
    through: Callable[[int], tuple[Any, np.ndarray]],
    known: Known,
    eps: float,
) -> tuple[Measurement, ...]:
    """The bias itself at the point of every path, where the estimator has few outcomes; none where it has many.

    **Arguments**

    - `through`: from the number of a question to the point that its path goes through, and the velocity there.
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


def _decided(exact: Sequence[Measurement], drawn: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """All measurements. Where draws could not tell, since the rounding of the values hides a bias or for want of more of them,
    every outcome, which found none, decides."""

    def decide(m: Measurement) -> Measurement:
        reason = next((reason for reason in (ROUNDED, OPEN) if m.reason.endswith(reason)), None)
        if not exact or reason is None:
            return m
        return replace(m, outcome="unbiased within delta", reason=f"{reason}; unbiased by every outcome")

    return (*exact, *map(decide, drawn))
