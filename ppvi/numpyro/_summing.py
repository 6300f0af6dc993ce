"""Sums over finite sites: a run is traced by itself, and what the compiler makes of it is traced where it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppvi.compiler.continuation import Env
from ppvi.compiler.elimination import logarithm
from ppvi.engine.pieces import Piece, Staged, Told, Wanted
from ppvi.engine.sessions import Session
from ppvi.engine.summed import Completed, alternatives_of, by_entry, conditional, eliminated
from ppvi.ir import Atom, Equation, Note
from ppvi.numpyro._compat import ClosedJaxpr, Tracer
from ppvi.numpyro._handlers import InnerSiteError
from ppvi.numpyro._lifting import traced_afresh
from ppvi.numpyro._ops import OPS, JaxOps
from ppvi.numpyro._stage import Reader
from ppvi.numpyro._symmetric import symmetric


def staged(session: Session, renewed: Callable[..., Any], run: Callable[[], Told]) -> Staged:
    """A run that is staged by itself, with the arrays that are around it."""
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
    reader, env = Reader(again=True), Noted(session)
    known: dict[Atom, Any] = {reader.variable(v): x for v, x in zip(closed.jaxpr.constvars, closed.consts, strict=True)}
    env.values.update(known)
    reader.read(closed.jaxpr)
    constants = {var: x for var, x in known.items() if not isinstance(x, Tracer)}
    return Staged(pieces, reader.equations, env, [reader.atom(v) for v in closed.jaxpr.outvars], constants)


def completed(found: Staged, key: jax.Array, wanted: Wanted) -> Completed:
    """What is known of the sites that are summed out, given all else: values that are drawn, or at temperature 0 the most
    probable."""

    def derivative(ops: JaxOps, zeros: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return jax.grad(lambda shifts: eliminated(found, ops, shifts=shifts))(zeros)

    choosing = Choosing(key if wanted.temperature else None)
    drawn, probs = conditional(alternatives_of(found), OPS, choosing, derivative)
    return Completed(drawn, probs, eliminated(found, OPS), by_entry(found, OPS) if wanted.pointwise else {})


class Choosing(JaxOps):
    """Operations by which the derivative of a log of a sum is one of its terms, drawn by them, or without a key the largest, so
    that of a nest of sums a derivative is one draw, from the last to the first (Rush 2020)."""

    def __init__(self, key: Any):
        self.key = key

    def log_sum(self, x: jax.Array, weights: jax.Array | None) -> jax.Array:
        x = x if weights is None else x + logarithm(self, weights)
        noise = jnp.zeros(x.shape, x.dtype) if self.key is None else jax.random.gumbel(self._next(), x.shape, x.dtype)
        return _one_of(x, noise, self.key is None)

    def _next(self) -> jax.Array:
        self.key, found = jax.random.split(self.key)
        return found

    def scan(
        self, step: Callable[..., jax.Array], start: jax.Array, xs: Sequence[jax.Array], n: int, backward: bool
    ) -> jax.Array:
        if self.key is None:
            return super().scan(step, start, xs, n, backward)

        def with_key(carry: jax.Array, entries: Sequence[jax.Array]) -> jax.Array:
            outer, self.key = self.key, entries[-1]
            found = step(carry, entries[:-1])
            self.key = outer
            return found

        return super().scan(with_key, start, [*xs, jax.random.split(self._next(), n)], n, backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _one_of(x: jax.Array, noise: jax.Array, largest: bool) -> jax.Array:
    return jnp.max(x, 0) if largest else OPS.log_sum(x, None)


def _one_of_fwd(x: jax.Array, noise: jax.Array, largest: bool) -> Any:
    return _one_of(x, noise, largest), (jnp.argmax(x + noise, 0), x.shape)


def _one_of_bwd(largest: bool, kept: Any, slope: jax.Array) -> Any:
    place, shape = kept
    chosen = jnp.expand_dims(jnp.arange(shape[0]), range(1, len(shape))) == place
    return chosen * slope, jnp.zeros(shape)


_one_of.defvjp(_one_of_fwd, _one_of_bwd)


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
