"""Sums over finite sites: a run is traced by itself, and what the compiler makes of it is traced where it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr

from ppvi.compiler.continuation import Env
from ppvi.engine.sessions import Session
from ppvi.engine.summed import Finish, Piece, Staged, Told
from ppvi.ir import Equation, Note
from ppvi.numpyro._handlers import InnerSiteError
from ppvi.numpyro._lifting import traced_afresh
from ppvi.numpyro._ops import OPS
from ppvi.numpyro._stage import Reader
from ppvi.numpyro._symmetric import symmetric


def summed(session: Session, renewed: Callable[..., Any], run: Callable[[], Told], finish: Finish) -> jax.Array:
    """What is made of a run that is staged by itself, of the arrays that are around it."""
    pieces: list[Piece] = []

    def traced() -> list[Any]:
        with session.within(plain=False, **renewed(session.scope, jax.random.key(0))):
            told = run()
        pieces[:] = told.pieces
        return [*told.arrays, *told.scales]

    def trace() -> ClosedJaxpr:
        with traced_afresh(object()):
            return symmetric(jax.make_jaxpr(traced)())

    try:
        closed = trace()
    except InnerSiteError:
        session.engine.lifted = True
        closed = trace()
    reader, env = Reader(), Noted(session)
    env.values.update((reader.variable(v), x) for v, x in zip(closed.jaxpr.constvars, closed.consts, strict=True))
    reader.read(closed.jaxpr)
    return finish(Staged(pieces, reader.equations, env, [reader.atom(v) for v in closed.jaxpr.outvars]), OPS)


class Noted(Env):
    """A scope in which what is said of values is said again of what they are here."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session

    def run(self, equation: Equation) -> None:
        if not isinstance(equation.role, Note):
            return super().run(equation)
        value, *others = (self[atom] for atom in equation.inputs)
        marks = self.session.marks
        self.values[equation.outputs[0]] = value if marks is None else marks.mark_note(value, equation.role, *others)
        return None


def values_of(peeled: Any) -> np.ndarray | None:
    """The values of a finite distribution, `(K, *ones, *event)`; None where their number is traced."""
    with jax.ensure_compile_time_eval():
        found = peeled.enumerate_support(expand=False)
    return None if isinstance(found, Tracer) else np.asarray(found)
