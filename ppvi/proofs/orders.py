"""Second derivatives: of which plans the surrogate may be differentiated again.

The derivative of an estimator is no estimate of a second derivative as such. It is one where every strategy's weights are
right to every order (exact sums, or exp(phantom(log q)), Foerster et al. 2018), the objective is smooth in every draw that
moves with a parameter, and nothing that varies is held constant.
"""

from __future__ import annotations

from typing import NoReturn

from ppvi.compiler.plan import Plan
from ppvi.errors import StrategyError
from ppvi.ir import Constant, Smoothness, Var
from ppvi.proofs.smoothness import Source, analyse
from ppvi.proofs.stopped import stopped


def only_once(plan: Plan) -> str | None:
    """Why the surrogate must not be differentiated again, if it must not."""
    program, choices = plan.program, plan.choices
    for choice in choices.values():
        if not choice.strategy.to_all_orders:
            return f"{choice.strategy} at site {choice.info.name!r} credits first derivatives only"
    moved = {site.outputs[0]: site for site, choice in choices.items() if choice.strategy.route != "credit"}
    sources: dict[Var, Source] = {**{var: var for var in program.params}, **moved}
    analysis = analyse(
        program.equations, [program.output], sources, program.constants, frozenset(moved), program.supports, held=True
    )
    # Values held constant that remain refuse it below; those that cancel, as the greatest logit of a softmax, have no part.
    kinds = analysis.of(analysis.flat.atom(program.output))
    kinked = [site.role.info.name for site in moved.values() if kinds.get(site, Smoothness.SMOOTH) > Smoothness.SMOOTH]
    if kinked:
        return f"the objective has a kink in the draw of site {kinked[0]!r}, or it could not be told whether it has"
    assumed = (step for step in analysis.flat.steps if isinstance(step.equation.role, Constant))
    held = [*stopped(analysis, [program.output]), *assumed]
    return f"a value is held constant at {held[0].where()}" if held else None


def refuse_second(plan: Plan) -> None:
    """**Raises** `StrategyError` where a second derivative of the surrogate is none of the objective."""
    reason = only_once(plan)
    if reason is not None:
        refuse(reason)


def refuse(reason: str) -> NoReturn:
    raise StrategyError(
        f"the surrogate has no second derivative: {reason}. With Reparam() at sites that the objective is smooth in, and "
        f"Enumerate(), Quadrature() or Reinforce() at others, it has; or difference value_and_grad at one key."
    )
