"""Sessions that stage nothing: they run an objective on arrays, to find its parameters, to draw, or to look for NaN."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from ppvi.engine.protocol import Start
from ppvi.engine.runs import Site
from ppvi.errors import EngineError, ProgramError
from ppvi.numpyro import source
from ppvi.numpyro.distributions import missing
from ppvi.numpyro.handlers import InnerSiteError, current_trace
from ppvi.numpyro.session import Session, length, shapes
from ppvi.strategies import Strategy


class Initialisation(Session):
    """A session that runs the objective to find its parameters and to look at its data.

    `each` runs its function once, so that initial values are drawn outside of any vectorisation. Parameters that are declared
    without a value have the one in `given`. With a token that is traced, parameters and draws are traced too.
    """

    marking = False

    def __init__(
        self,
        key: jax.Array,
        chosen: Mapping[str, Strategy],
        given: Mapping[str, Any] | None = None,
        token: jax.Array | None = None,
    ):
        super().__init__(key, given or {}, chosen)
        self.level = current_trace()
        self.found: dict[str, Any] = {}
        self.owners: dict[str, set[str]] = {}
        self._token = token

    def key(self) -> jax.Array:
        return self._traced(super().key())

    def prng_key(self) -> jax.Array:
        return super().key()

    def meet_inner_site(self) -> None:
        if self._token is not None:
            raise InnerSiteError("a program is lifted on arrays")
        super().meet_inner_site()

    def _traced(self, value: Any) -> Any:
        return value if self._token is None else lax.optimization_barrier((value, self._token))[0]

    def param(self, name: str, initial: Callable[[], Any], constraint: Any, role: str) -> Any:
        self.owners.setdefault(name, set()).add(role)
        if name not in self.found:
            value = initial()
            if value is None:
                return self._traced(self.params.get(name))
            if current_trace() is not self.level:
                raise EngineError(
                    f"parameter {name!r} at {source.here()} is first declared inside a JAX transformation (jit, scan, vmap "
                    f"or grad), which its initial value cannot leave. Declare it outside and use its value inside."
                )
            self.found[name] = value
            self.constraints[name] = constraint
            self.names.made(name, shapes(value))
        return self._traced(self.found[name])

    def shape_of(self, initial: Any, again: bool) -> Any:
        return shapes(jax.eval_shape(initial)) if callable(initial) and again else super().shape_of(initial, again)

    def start(self) -> Start:
        """What was found, without the session, whose tracers must not outlive it."""
        return Start(self.found, self.constraints, self.owners, self.learning)

    def log_prob(self, site: Site, value: Any, role: str, intermediates: Sequence[Any] = ()) -> Any:
        # Densities play no part in finding parameters, and computing them operation by operation would take seconds.
        bad = missing(site.fn, value)
        if bad:
            raise ProgramError(
                f"site {site.name!r} of the {role} at {source.here()} observes {bad} NaN among {jnp.size(value)} values: drop "
                f"them, or give the site an obs_mask= and impute them."
            )
        try:
            jnp.broadcast_shapes(value.shape, site.fn.shape())
        except ValueError as error:
            raise self.misfit(site, value, role) from error
        return jnp.zeros(site.fn.batch_shape)

    def each(self, function: Callable[..., Any], stacks: Sequence[Any], n: int | None) -> Any:
        n = n or length(stacks)
        result = function(*jax.tree.map(lambda x: x[0], list(stacks)))
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *jnp.shape(x))), result)

    def fold(self, count: Any, body: Callable[[jax.Array, Any], Any], carry: Any) -> Any:
        return jax.tree.map(jnp.asarray, carry)


def first_run(
    run: Callable[[Callable[[], Initialisation]], Initialisation],
    key: jax.Array,
    chosen: Mapping[str, Strategy],
    given: Mapping[str, Any] | None = None,
) -> Start:
    """What a session finds that `run` has gone through, of those that it may begin.

    What depends on parameters and draws is traced only, for to compile it operation by operation takes seconds; unless an
    initial value depends on it, or a site is under control flow.
    """
    found: list[Start] = []

    def traced(token: jax.Array) -> None:
        session = run(lambda: Initialisation(key, chosen, given, token))
        if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(session.found)):
            found.append(session.start())

    with suppress(*NEEDS_VALUES), jax.ensure_compile_time_eval():
        jax.eval_shape(traced, jnp.zeros(()))
    if not found:
        found.append(run(lambda: Initialisation(key, chosen, given)).start())
    return found[0]


NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.UnexpectedTracerError,
    InnerSiteError,
)
"""What is raised where numbers are looked at that are traced only, or where a function with a derivative rule of its own
meets a parameter of its surroundings."""


class PlainSession(Session):
    """A session that simply draws: no markers, nothing staged."""

    marking = False


class Probe(PlainSession):
    """A session that runs the objective on concrete arrays, with the draws of the staged one, and looks for NaN."""

    def __init__(self, key: jax.Array, params: Mapping[str, Any], chosen: Mapping[str, Strategy]):
        super().__init__(key, params, chosen)
        self.culprits: list[str] = []

    def ran(self, role: str, values: Mapping[str, jax.Array], log_probs: Mapping[str, jax.Array]) -> None:
        for name, log_prob in log_probs.items():
            if name in values and not bool(jnp.isfinite(values[name]).all()):
                self.culprits.append(f"site {name!r} of the {role} has a value that is not finite")
            if not bool(jnp.isfinite(log_prob).all()):
                bad = jnp.ravel(log_prob)[jnp.argmin(jnp.isfinite(jnp.ravel(log_prob)))]
                self.culprits.append(f"site {name!r} of the {role} has log_prob {float(bad)}")

    def each(self, function: Callable[..., Any], stacks: Sequence[Any], n: int | None) -> Any:
        runs, n, base = [], n or length(stacks), next(self._keys)
        for i in range(n):
            with self.fresh(base, self.nested(jnp.uint32(i), n)):
                runs.append(function(*jax.tree.map(lambda x, i=i: x[i], list(stacks))))
        return jax.tree.map(lambda *xs: jnp.stack(xs), *runs)

    def fold(self, count: Any, body: Callable[[jax.Array, Any], Any], carry: Any) -> Any:
        key = self.key()
        for i in range(int(count)):
            with self.apart(jax.random.fold_in(key, i)):
                carry = body(jnp.asarray(i), carry)
        return jax.tree.map(jnp.asarray, carry)
