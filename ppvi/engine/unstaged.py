"""What sessions do that stage nothing, to find parameters, to draw, or to look for NaN: the values that they are made with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ppvi._ops import Array
from ppvi.engine.evaluations import evaluate
from ppvi.engine.formula import Formula
from ppvi.engine.observations import fits, misfit, refuse
from ppvi.engine.protocol import Args, Kwargs, Repeats
from ppvi.engine.prototypes import Known, refuse_moved
from ppvi.engine.sessions import Recorder, Session
from ppvi.engine.sites import Site
from ppvi.engine.statements import argument_outside, refuse_impossible


class Once:
    """A function is run once for all its runs, outside of any vectorisation, and a fold not at all."""

    def each(self, session: Session, function: Callable[..., Any], stacks: Sequence[Any], n: int) -> Any:
        result = function(*session.ops.tree_map(lambda x: x[0], list(stacks)))
        return session.engine.repeated(result, n)

    def fold(self, session: Session, count: Array, body: Callable[[Array, Any], Any], carry: Any) -> Any:
        return session.ops.tree_map(session.array, carry)


class OneByOne:
    """Runs come one after the other, so that a program may branch on what it draws."""

    def each(self, session: Session, function: Callable[..., Any], stacks: Sequence[Any], n: int) -> Any:
        tree_map, runs = session.ops.tree_map, []
        changes = session.engine.in_turn(session.scope, n)
        for i in range(n):
            with session.within(**changes(i)):
                runs.append(function(*tree_map(lambda x, i=i: x[i], list(stacks))))
        return session.engine.stacked(runs)

    def fold(self, session: Session, count: Array, body: Callable[[Array, Any], Any], carry: Any) -> Any:
        key = session.engine.key(session.scope)
        for i in range(int(count)):
            with session.engine.separate_evaluation(session, key, i):
                carry = body(session.array(i), carry)
        return session.ops.tree_map(session.array, carry)


ONCE: Repeats[Session] = Once()
ONE_BY_ONE: Repeats[Session] = OneByOne()


def unseen(
    session: Session,
    site: Site,
    value: Array,
    role: str,
    intermediates: Sequence[Any],
    drawn: Collection[str] = (),
    guide: Any = None,
    known: Known | None = None,
) -> np.ndarray:
    """No densities, of which the parameters that a program has do not depend; but data are looked at, less those of sites whose
    observations are `drawn`; and supports are, as far as they are known, beside those with which an autoguide has begun."""
    refuse_impossible(site.name, site.fn, role, session.here())
    seen, shape = session.scope.distribution(site.fn), tuple(value.shape)
    if site.observed is not None and site.name not in drawn:
        refuse(session.engine, site, seen, value, role, session.here())
    if not fits(site.fn, shape):
        raise misfit(site, seen, shape, role, session.here())
    if role == "model" and "guide" in session.names.sites.get(site.name, {}):
        refuse_moved(guide, site, seen.library, known or session.engine.known, session.here())
    return np.zeros(tuple(site.fn.batch_shape), np.float32)


def culprits(formula: Formula, start: Callable[..., Session], args: Args, kwargs: Kwargs) -> list[str]:
    """The sites whose values or densities are not finite, where an objective is evaluated in sessions on arrays."""
    found: list[str] = []

    def ran(role: str, values: Mapping[str, Array], log_probs: Mapping[str, Array], fns: Mapping[str, Any]) -> None:
        for name, log_prob in log_probs.items():
            if name in values and not bool(_finite(values[name]).all()):
                found.append(f"site {name!r} of the {role} has a value that is not finite")
            flat = log_prob.reshape(-1)
            if not bool(_finite(flat).all()):
                why = argument_outside(fns[name].fn) if name in fns else None
                number, because = float(flat[~_finite(flat)][0]), f", for {why}" if why else ""
                found.append(f"site {name!r} of the {role} has log_prob {number}{because}")

    def begin(**options: Any) -> Session:
        found.clear()  # of an evaluation that is begun anew
        return start(recorder=Recorder(ran=ran), repeats=ONE_BY_ONE, **options)

    evaluate(formula, begin, args, kwargs)
    return found


def _finite(x: Array) -> Array:
    return x * 0.0 == 0
