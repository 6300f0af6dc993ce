"""A session on JAX: keys, lanes, minibatches and markers.

One evaluation of the objective sees one minibatch: a plate's subsample depends on the evaluation's key and the plate's name
only, so the model, the guide and every particle agree on it.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from ppvi.compiler.ir import Support
from ppvi.engine import sessions as engine
from ppvi.engine.minibatches import Plates
from ppvi.engine.runs import Arrays, Run, Site, Told
from ppvi.errors import EngineError, ProgramError
from ppvi.numpyro import markers, source
from ppvi.numpyro.distributions import SiteDistribution, check_same_batch, unvalidated
from ppvi.numpyro.edges import careful
from ppvi.numpyro.handlers import Around, Direct, InnerSiteError, current_trace
from ppvi.numpyro.lifting import run_lifted
from ppvi.numpyro.ops import OPS
from ppvi.numpyro.regions import support_of
from ppvi.numpyro.sharding import split_runs
from ppvi.strategies import Strategy


def as_key(key: Any) -> jax.Array:
    """A typed JAX key, from either kind of key."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ():
        return key
    if dtype == jnp.uint32 and shape == jax.random.PRNGKey(0).shape:
        return jax.random.wrap_key_data(key)
    found = f"an array of shape {shape} and dtype {dtype}" if shape is not None else f"{key!r}"
    raise ProgramError(f"the key must be one JAX key, such as jax.random.key(0), not {found}; it comes first.")


def body_key(key: jax.Array) -> jax.Array:
    """The key of what an objective draws in bodies of its own."""
    return jax.random.fold_in(as_key(key), zlib.crc32(b"bodies"))


class Session(engine.Session):
    """An objective's run on JAX."""

    ops = OPS
    marks = markers

    def __init__(
        self,
        key: jax.Array,
        params: Mapping[str, Any],
        chosen: Mapping[str, Strategy],
        distribution: Callable[..., SiteDistribution] = SiteDistribution,
        lifted: bool = False,
    ):
        super().__init__(params, chosen, distribution)
        self.lifted = lifted
        self.root = as_key(key)
        self._keys = _counted(self.root)
        self._index: Any = None
        self._given: dict[str, Any] | None = None
        self._inner = False
        self._level = current_trace()
        self._lanes: list[Any] = []

    def here(self) -> str:
        return source.here()

    # What runs of programs ask for ------------------------------------------------------------------------------------

    def key(self) -> jax.Array:
        """A fresh key, within an `each` one for every run.

        Keys of runs are told apart by one fold of the run's number, however deep the nesting: splitting a key for each run
        first, and folding it then, costs as much again as the draws of a small program.
        """
        if self._given is not None or self._in_a_body():
            return markers.ask_key()
        key = next(self._keys)
        return key if self._index is None else jax.random.fold_in(key, self._index)

    def prng_key(self) -> jax.Array:
        """The key of what a program draws without a site, such as the initial weights of a module."""
        return self.key()

    def _in_a_body(self) -> bool:
        """Whether an operation of the objective is traced that runs this more than once, or not at all."""
        trace = current_trace()
        return self.marking and trace is not self._level and not any(trace is lanes for lanes in self._lanes)

    def plate_key(self, name: str) -> jax.Array:
        """The key of a plate's minibatch, the same throughout one evaluation."""
        return jax.random.fold_in(self.root, zlib.crc32(name.encode()))

    def array(self, value: Any) -> jax.Array:
        return jnp.asarray(value)

    def shape_of(self, initial: Any, again: bool) -> Any:
        return None if callable(initial) else shapes(initial)

    def execute(self, run: Run, program: Callable[[], Any]) -> Any:
        """Programs with sites in bodies, of loops for one, are lifted; whether one has any shows when it runs as if not."""
        plates = Plates(self, run.role)
        with plates.explained():
            if not self.lifted:
                self._inner = False
                with Around(run, self, plates):
                    returned = program()
                if not self._inner:
                    return returned
                run.clear()
            return run_lifted(self, run, program, plates)

    @property
    def lifting(self) -> bool:
        """Whether bodies are being traced that will be lifted."""
        return self._given is not None

    @contextmanager
    def within(self, given: dict[str, Any]) -> Iterator[None]:
        """Programs are traced whole; what their sites are given from outside is put in the dict."""
        outer, self._given = self._given, given
        try:
            yield
        finally:
            self._given = outer

    def meet_inner_site(self) -> None:
        """Told of a site in a body of a program that runs as if it had none."""
        if self.marking:
            raise InnerSiteError("this program is to be lifted")
        self._inner = True

    def keep(self, run: Run, name: str, value: Any) -> None:
        """Tell a run of a deterministic site."""
        if self._given is None:
            run.deterministic[name] = value
        else:
            told = Told(name, self.here(), latent=False, density=None, deterministic=True)
            markers.tell(told, Arrays(jnp.asarray(value), jnp.zeros(()), None, ()))

    def given(self, site: Site, value: jax.Array, role: str) -> jax.Array:
        if self._given is None:
            return super().given(site, value, role)
        self._given[site.name] = value
        like, where = jnp.zeros(site.fn.shape(), value.dtype), self.here()
        # Of a distribution its shapes only: what is traced must not outlive its trace.
        shapes = (tuple(site.fn.batch_shape), tuple(site.fn.event_shape))
        told = functools.partial(engine.refuse_shape, site.name, shapes, role, lambda: where)
        return markers.ask_given(like, site.name, told)

    def tell(self, run: Run, site: Site, told: Told, arrays: Arrays) -> jax.Array:
        return super().tell(run, site, told, arrays) if self._given is None else markers.tell(told, arrays)

    def direct(self) -> Direct:
        return Direct(self)

    def refuse_foreign_lanes(self, name: str, where: str) -> None:
        trace = current_trace()
        # JAX does not export the class; a law draws under a foreign vmap and expects this error.
        if type(trace).__name__ == "BatchTrace" and not any(trace is lanes for lanes in self._lanes):
            raise EngineError(markers.one_key(name, where))

    def same_rows(self, rows: Any, others: Any) -> bool:
        # A constant of the program that is traced is lowered to its value.
        one, other = (x.full_lower() if isinstance(x, Tracer) else x for x in (rows, others))
        return one is other or (
            not (isinstance(one, Tracer) or isinstance(other, Tracer)) and np.array_equal(one, other)
        )

    def support_of(self, constraint: Any) -> Support:
        return support_of(constraint)

    def is_signal(self, error: Exception) -> bool:
        return isinstance(error, jax.errors.JAXTypeError | jax.errors.JAXIndexError)

    def evaluate(
        self, fn: dist.Distribution, value: Any, intermediates: Sequence[Any]
    ) -> tuple[jax.Array | None, Exception | None]:
        try:
            with careful():
                log_prob: Any = fn.log_prob(value, list(intermediates)) if intermediates else fn.log_prob(value)
            return (log_prob if check_same_batch(log_prob, value, fn) else None), None
        except (TypeError, ValueError) as error:
            return None, error

    def unvalidated(self, fn: dist.Distribution, name: str) -> dist.Distribution:
        return unvalidated(fn) if name in self.relaxed else fn

    # What verbs ask for -----------------------------------------------------------------------------------------------

    def each(self, function: Callable[..., Any], stacks: Sequence[Any], n: int | None) -> Any:
        """`function` of every entry along the leading axis of the stacks, `n` of them where there are no stacks."""

        n, base = n or length(stacks), next(self._keys)

        def run(i: jax.Array, *entries: Any) -> Any:
            with self.fresh(base, self.nested(i, n)):
                return function(*entries)

        return jax.vmap(run)(split_runs(jnp.arange(n, dtype=jnp.uint32)), *stacks)

    def nested(self, i: Any, n: int) -> Any:
        """The number of run `i` of `n` among the runs of all the `each` around it."""
        return i if self._index is None else self._index * n + i

    def choice(self, site: str, log_weights: jax.Array, n: int | None) -> jax.Array:
        """A site that chooses along the leading axis with these log weights, `n` times where `n` is given."""
        lanes = log_weights.shape[1:] if n is None else (n, *log_weights.shape[1:])
        fn = dist.CategoricalLogits(jnp.broadcast_to(jnp.moveaxis(log_weights, 0, -1), (*lanes, len(log_weights))))
        return self.draw(site, fn, {})[0]

    def divergence(self, q: dist.Distribution, p: dist.Distribution) -> jax.Array | None:
        try:
            return dist.kl_divergence(q, p)
        except NotImplementedError:
            return None

    def fold(self, count: Any, body: Callable[[jax.Array, Any], Any], carry: Any) -> Any:
        """`carry` after `body(i, carry)` for i below `count`, every site simply drawn, without a gradient."""
        key = self.key()

        def run(i: jax.Array, carry: Any) -> Any:
            with self.apart(jax.random.fold_in(key, i)):
                return jax.tree.map(jnp.asarray, body(i, carry))

        def loop() -> Any:
            return lax.fori_loop(0, count, run, jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), carry))

        # A loop of unknown length has no reverse mode, so nothing that it closes over may carry a gradient into it.
        closed, shape = jax.make_jaxpr(loop, return_shape=True)()
        reason = "a plain run, which stands for a number"
        stopped = ClosedJaxpr(closed.jaxpr, [self.because(lax.stop_gradient(x), reason) for x in closed.consts])
        return jax.tree.unflatten(jax.tree.structure(shape), jaxpr_as_fun(stopped)())

    @contextmanager
    def apart(self, key: jax.Array) -> Iterator[None]:
        """An evaluation of its own: sites are simply drawn, nothing is marked, and minibatches are other ones."""
        outer = self.marking, self.root, self.distribution
        self.marking, self.root, self.distribution = False, key, SiteDistribution
        try:
            with self.fresh(key):
                yield
        finally:
            self.marking, self.root, self.distribution = outer

    def poisson(self, rate: float) -> jax.Array:
        """A draw of no site."""
        return jax.random.poisson(self.key(), rate)

    def geometric(self, decay: float) -> jax.Array:
        """A draw of no site: n >= 0 with probability (1 - decay) decay^n."""
        return jax.random.geometric(self.key(), 1 - decay) - 1

    def subset(self, data: Any, size: int) -> tuple[Any, int]:
        """Rows of the data, drawn without replacement, and how many there are in all."""
        total = length([data])
        if size > total:
            raise ProgramError(f"minibatch: there are {total} rows, fewer than a batch of {size}.")
        rows = jax.random.choice(self.key(), total, (size,), replace=False)
        return jax.tree.map(lambda x: jnp.asarray(x)[rows], data), total

    @contextmanager
    def fresh(self, key: jax.Array, index: Any = None) -> Iterator[None]:
        """Keys come from `key`, for the run of an `each` that has this number among all its runs."""
        outer = self._keys, self._index
        self._keys, self._index = _counted(key), index
        self._lanes.append(current_trace())
        try:
            yield
        finally:
            self._keys, self._index = outer
            self._lanes.pop()


def shapes(tree: Any) -> Any:
    """The shape of an array, or a tree of them."""
    return tree.shape if hasattr(tree, "shape") else jax.tree.map(jnp.shape, tree)


def _counted(key: jax.Array) -> Iterator[jax.Array]:
    count = 0
    while True:
        yield jax.random.fold_in(key, count)
        count += 1


def length(stacks: Sequence[Any]) -> int:
    """The size of the leading axis that all arrays share."""
    sizes = {jnp.shape(x)[:1] for x in jax.tree.leaves(list(stacks))}
    if len(sizes) != 1 or sizes == {()}:
        raise ProgramError(f"each: the stacks must share the size of their leading axis; theirs are {sorted(sizes)}.")
    return sizes.pop()[0]
