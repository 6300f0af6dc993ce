"""How programs run on JAX: keys, lanes, minibatches and markers.

One evaluation of the objective sees one minibatch: a plate's subsample depends on the evaluation's key and the plate's name
only, so the model, the guide and every particle agree on it.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from numpyro.distributions import biject_to, constraints

from ppvi._doors import described
from ppvi.engine.minibatches import Plates
from ppvi.engine.pieces import Finish, Told
from ppvi.engine.protocol import Marks, Scope
from ppvi.engine.runs import Run
from ppvi.engine.sessions import Session
from ppvi.engine.statements import Library
from ppvi.errors import EngineError, ProgramError
from ppvi.numpyro import _markers as markers, _source as source
from ppvi.numpyro._compat import ClosedJaxpr, Tracer, current_trace, jaxpr_as_fun
from ppvi.numpyro._distributions import SiteDistribution, check_same_batch, unvalidated
from ppvi.numpyro._edges import careful
from ppvi.numpyro._handlers import Around, Direct, InnerSiteError
from ppvi.numpyro._lifting import run_lifted
from ppvi.numpyro._modules import Modules
from ppvi.numpyro._ops import OPS
from ppvi.numpyro._regions import support_of
from ppvi.numpyro._sharding import split_runs
from ppvi.numpyro._summing import staged, values_of
from ppvi.program import Trace

jax.tree_util.register_pytree_node(
    Trace,
    lambda t: (
        (t.choices, t.log_probs, t.log_density, t.returned, t.whole, t.rows, t.present),
        (t.plates, t.batch_ndims, t.auxiliary, t.observed, t.pathwise, t.placed, t.points),
    ),
    lambda aux, leaves: Trace(*leaves[:4], *aux, whole=leaves[4], rows=leaves[5], present=leaves[6]),
)

RUNNING = threading.RLock()
"""Held by the thread that runs an objective: NumPyro's handlers are the process's, and meet the sites of all threads."""


def as_key(key: Any) -> jax.Array:
    """A typed JAX key, from either kind of key."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ():
        return key
    if dtype == jnp.uint32 and shape == jax.random.PRNGKey(0).shape:
        return jax.random.wrap_key_data(key)
    raise ProgramError(
        f"the key must be one JAX key, such as jax.random.key(0), not {described(key)}; it comes first, before params and data."
    )


def key_of(number: int) -> jax.Array:
    """A key for whoever gives none."""
    return jax.random.key(number)


def array_of(x: np.ndarray) -> jax.Array:
    """Data of a file as a program of NumPyro takes them."""
    return jnp.asarray(x)


def known(x: Any) -> np.ndarray | None:
    """An array as NumPy has it; None where it is traced, sparse or in part with other processes."""
    if isinstance(x, Tracer) or hasattr(x, "todense") or not getattr(x, "is_fully_addressable", True):
        return None
    found = np.asarray(x)
    return None if found.dtype.kind == "O" else found


def check(constraint: Any, value: Any) -> Any:
    """Where a constraint holds, of an array or a tree; by NumPy where numbers are known, for which nothing is compiled."""
    leaves = [known(x) for x in jax.tree.leaves(value)]
    whole = value if any(x is None for x in leaves) else jax.tree.unflatten(jax.tree.structure(value), leaves)
    return constraint.check(whole)


def generator(key: jax.Array) -> np.random.Generator:
    """What NumPy draws with, by a key."""
    return np.random.default_rng(entropy(key))


def entropy(key: jax.Array) -> np.random.SeedSequence:
    """What NumPy seeds with, by a key."""
    return np.random.SeedSequence(np.ravel(jax.random.key_data(key)).tolist())


def body_key(key: jax.Array) -> jax.Array:
    """The key of what an objective draws in bodies of its own."""
    return jax.random.fold_in(as_key(key), zlib.crc32(b"bodies"))


class Keys(NamedTuple):
    """Where fresh keys come from."""

    counted: Iterator[jax.Array]
    run: Any = None
    """The number of the run of an `each` among all its runs, which is folded in; None outside of one."""


def scope_of(
    key: Any, distribution: Callable[..., SiteDistribution] = SiteDistribution, *, plain: bool = False
) -> Scope:
    """The scope that an evaluation with this key begins in."""
    root = as_key(key)
    return Scope(root, Keys(_counted(root)), (), distribution, plain)


def renewed(scope: Scope, key: jax.Array, run: Any = None) -> Mapping[str, Any]:
    """What changes in a scope where keys come from this key, under a vectorisation of the session's own."""
    return {"keys": Keys(_counted(key), run), "lanes": (*scope.lanes, current_trace())}


class NumPyroPrograms:
    """`ppvi.engine.protocol.Programs`.

    **Arguments**

    - `lifted`: whether programs are lifted at once, for one of them has sites in bodies.
    - `token`: an array that is traced, by which what is drawn is traced too.
    - `modules`: the states of modules; none by default.
    """

    ops = OPS
    marks: Marks | None = markers
    library = Library("NumPyro", source.LIBRARY, dist.Distribution, constraints.Constraint, biject_to)
    here, support_of = staticmethod(source.here), staticmethod(support_of)
    array, looked_at = staticmethod(jnp.asarray), staticmethod(lambda fn, value: value)
    direct, known, values_of = staticmethod(Direct), staticmethod(known), staticmethod(values_of)
    check = staticmethod(check)

    def __init__(self, lifted: bool = False, token: jax.Array | None = None, modules: Modules | None = None):
        self.lifted = lifted
        self.token = token
        self.modules = Modules({}) if modules is None else modules
        self._inner = False
        self._level = current_trace()

    def surroundings(self, session: Session[NumPyroPrograms]) -> AbstractContextManager[Any]:
        return RUNNING

    def drawing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def execute(self, session: Session[NumPyroPrograms], run: Run, program: Callable[[], Any]) -> Any:
        """Programs with sites in bodies, of loops for one, are lifted; whether one has any shows when it runs as if not."""
        plates = Plates(session.plate_rows, self, run.role)
        with plates.explained():
            if not self.lifted:
                self._inner = False
                around = Around(run, session, plates)
                with around:
                    returned = program()
                if not self._inner:
                    self.modules.ran(around.states)
                    return returned
                run.clear()
            return run_lifted(session, run, program, lambda: Around(run, session, plates))

    def meet_inner_site(self, session: Session[NumPyroPrograms]) -> None:
        """Told of a site in a body of a program that runs as if it had none."""
        if session.marks is not None:
            raise InnerSiteError("this program is to be lifted")
        self._inner = True

    def is_signal(self, error: Exception) -> bool:
        return isinstance(error, jax.errors.JAXTypeError | jax.errors.JAXIndexError)

    def same_rows(self, rows: Any, others: Any) -> bool:
        # A constant of the program that is traced is lowered to its value.
        one, other = (x.full_lower() if isinstance(x, Tracer) else x for x in (rows, others))
        return one is other or (
            not (isinstance(one, Tracer) or isinstance(other, Tracer)) and np.array_equal(one, other)
        )

    def shape_of(self, initial: Any, make: bool) -> Any:
        if not callable(initial):
            return shapes(initial)
        return shapes(jax.eval_shape(initial)) if make else None

    def started(self, value: Any, constraint: Any) -> tuple[list[np.ndarray] | None, list[np.ndarray] | None]:
        leaves = jax.tree.leaves(value)
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return None, None
        found = [np.asarray(leaf) for leaf in leaves]
        if all(np.all(constraint(leaf)) for leaf in found):
            return found, None
        there = biject_to(constraint)
        return found, [np.asarray(there(there.inv(jnp.asarray(leaf)))) for leaf in leaves]

    # Random numbers ---------------------------------------------------------------------------------------------------

    def key(self, scope: Scope) -> jax.Array:
        return self.traced(self.untraced_key(scope))

    def untraced_key(self, scope: Scope) -> jax.Array:
        """The key of what a program draws without a site, such as the initial weights of a module.

        Keys of runs are told apart by one fold of the run's number, however deep the nesting: splitting a key for each run
        first, and folding it then, costs as much again as the draws of a small program.
        """
        if scope.bodies is not None or self._in_a_body(scope):
            return markers.ask_key()
        key = next(scope.keys.counted)
        return key if scope.keys.run is None else jax.random.fold_in(key, scope.keys.run)

    def traced(self, value: Any) -> Any:
        return value if self.token is None else lax.optimization_barrier((value, self.token))[0]

    def _in_a_body(self, scope: Scope) -> bool:
        """Whether an operation of the objective is traced that runs this more than once, or not at all."""
        trace = current_trace()
        return not scope.plain and trace is not self._level and not any(trace is lanes for lanes in scope.lanes)

    def plate_key(self, scope: Scope, name: str) -> jax.Array:
        """The key of a plate's minibatch, the same throughout one evaluation."""
        return jax.random.fold_in(scope.evaluation, zlib.crc32(name.encode()))

    def poisson(self, scope: Scope, rate: float) -> jax.Array:
        return jax.random.poisson(self.key(scope), rate)

    def geometric(self, scope: Scope, decay: float) -> jax.Array:
        return jax.random.geometric(self.key(scope), 1 - decay) - 1

    def subset(self, scope: Scope, total: int, size: int) -> jax.Array:
        return jax.random.choice(self.key(scope), total, (size,), replace=False)

    # Sites ------------------------------------------------------------------------------------------------------------

    def refuse_draw(self, scope: Scope, name: str, where: str) -> None:
        trace = current_trace()
        # JAX does not export the class; a law draws under a foreign vmap and expects this error.
        if type(trace).__name__ == "BatchTrace" and not any(trace is lanes for lanes in scope.lanes):
            raise EngineError(markers.one_key(name, where))

    def choosing(self, log_weights: jax.Array, lanes: tuple[int, ...]) -> dist.Distribution:
        return dist.CategoricalLogits(jnp.broadcast_to(jnp.moveaxis(log_weights, 0, -1), (*lanes, len(log_weights))))

    def evaluate(
        self, fn: dist.Distribution, value: Any, intermediates: Sequence[Any], relaxed: bool
    ) -> tuple[jax.Array | None, Exception | None]:
        fn = unvalidated(fn) if relaxed else fn
        try:
            with careful():
                log_prob: Any = fn.log_prob(value, list(intermediates)) if intermediates else fn.log_prob(value)
            return (log_prob if check_same_batch(log_prob, value, fn) else None), None
        except (TypeError, ValueError) as error:
            return None, error

    def divergence(self, q: dist.Distribution, p: dist.Distribution) -> jax.Array | None:
        try:
            return dist.kl_divergence(q, p)
        except NotImplementedError:
            return None

    def summed(
        self, session: Session[NumPyroPrograms], run: Callable[[], Told], sizes: Any, finish: Finish
    ) -> jax.Array:
        return finish(staged(session, renewed, run), OPS)

    # Runs of a function -----------------------------------------------------------------------------------------------

    def each(
        self, session: Session[NumPyroPrograms], function: Callable[..., Any], stacks: Sequence[Any], n: int
    ) -> Any:
        changes = self.in_turn(session.scope, n)

        def run(i: jax.Array, *entries: Any) -> Any:
            with session.within(**changes(i)):
                return function(*entries)

        return jax.vmap(run)(split_runs(jnp.arange(n, dtype=jnp.uint32)), *stacks)

    def in_turn(self, scope: Scope, n: int) -> Callable[[Any], Mapping[str, Any]]:
        base, outer = next(scope.keys.counted), scope.keys.run

        def changes(i: Any) -> Mapping[str, Any]:
            i = jnp.uint32(i)
            return renewed(scope, base, i if outer is None else outer * n + i)

        return changes

    def fold(
        self, session: Session[NumPyroPrograms], count: Any, body: Callable[[jax.Array, Any], Any], carry: Any
    ) -> Any:
        key = self.key(session.scope)

        def run(i: jax.Array, carry: Any) -> Any:
            with self.separate_evaluation(session, key, i):
                return jax.tree.map(jnp.asarray, body(i, carry))

        def loop() -> Any:
            return lax.fori_loop(0, count, run, jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), carry))

        # A loop of unknown length has no reverse mode, so nothing that it closes over may carry a gradient into it.
        closed, shape = jax.make_jaxpr(loop, return_shape=True)()
        reason = "a plain run, which stands for a number"
        stopped = ClosedJaxpr(closed.jaxpr, [session.because(lax.stop_gradient(x), reason) for x in closed.consts])
        return jax.tree.unflatten(jax.tree.structure(shape), jaxpr_as_fun(stopped)())

    def separate_evaluation(
        self, session: Session[NumPyroPrograms], key: jax.Array, i: Any
    ) -> AbstractContextManager[None]:
        own = jax.random.fold_in(key, i)
        changes = renewed(session.scope, own)
        return session.within(plain=True, evaluation=own, distribution=SiteDistribution, **changes)

    def stacked(self, trees: Sequence[Any]) -> Any:
        return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)

    def repeated(self, tree: Any, n: int) -> Any:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *jnp.shape(x))), tree)


def shapes(tree: Any) -> Any:
    """The shape of an array, or a tree of them."""
    return tree.shape if hasattr(tree, "shape") else jax.tree.map(jnp.shape, tree)


def _counted(key: jax.Array) -> Iterator[jax.Array]:
    count = 0
    while True:
        yield jax.random.fold_in(key, count)
        count += 1
