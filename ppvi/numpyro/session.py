"""A session: one run of an objective, for staging it or for finding its parameters.

It holds what the runs of the model and the guide share: parameters, keys, strategies, minibatches. One evaluation of
the objective sees one minibatch: a plate's subsample depends on the evaluation's key and the plate's name only, so the
model, the guide and every particle agree on it.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from ppvi import strategies
from ppvi.compiler.ir import Candidate, SiteInfo
from ppvi.errors import EngineError, ProgramError, StrategyError
from ppvi.numpyro import source
from ppvi.numpyro.distributions import SiteDistribution, check_same_batch, unvalidated
from ppvi.numpyro.handlers import Handle, current_trace
from ppvi.numpyro.ops import OPS
from ppvi.numpyro.stage import mark_because, mark_estimate, mark_site, one_key
from ppvi.strategies import Draw, Strategy, default_strategies


def as_key(key: Any) -> jax.Array:
    """A typed JAX key, from either kind of key."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ():
        return key
    if dtype == jnp.uint32 and shape == (2,):
        return jax.random.wrap_key_data(key)
    found = f"an array of shape {shape} and dtype {dtype}" if shape is not None else f"{key!r}"
    raise ProgramError(f"the key must be one JAX key, such as jax.random.key(0), not {found}; it comes first.")


class Session:
    """The engine's side of `ppvi.program.Session`, while an objective is staged."""

    marking = True
    ops = OPS

    def __init__(
        self,
        key: jax.Array,
        params: Mapping[str, Any],
        chosen: Mapping[str, Strategy],
        distribution: Callable[..., SiteDistribution] = SiteDistribution,
    ):
        self.root = as_key(key)
        self.params = params
        self.chosen = chosen
        self.distribution = distribution
        self.drawn: set[str] = set()
        self.learning = False
        self.relaxed: set[str] = set()
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.constraints: dict[str, Any] = {}
        """Of the parameters that the programs declare."""
        self._held: bool | str = False
        self._keys = _counted(self.root)
        self._index: Any = None
        self._lanes: list[Any] = []

    # What runs of programs ask for ------------------------------------------------------------------------------------

    def key(self) -> jax.Array:
        """A fresh key, within an `each` one for every run.

        Keys of runs are told apart by one fold of the run's number, however deep the nesting: splitting a key for each run
        first, and folding it then, costs as much again as the draws of a small program.
        """
        key = next(self._keys)
        return key if self._index is None else jax.random.fold_in(key, self._index)

    def plate_key(self, name: str) -> jax.Array:
        """The key of a plate's minibatch, the same throughout one evaluation."""
        return jax.random.fold_in(self.root, zlib.crc32(name.encode()))

    def param(self, name: str, initial: Callable[[], Any], msg: Any, role: str) -> Any:
        del initial, role
        self.constraints[name] = msg["kwargs"].get("constraint", dist.constraints.real)
        if name not in self.params:
            raise ProgramError(
                f"parameter {name!r} at {source.here()} is missing from params, which has {sorted(self.params)}: "
                f"take params from `init`, or add a value under that name."
            )
        value = self.params[name]
        return jax.tree.map(self._hold, value) if self._held else value

    def _hold(self, x: jax.Array) -> jax.Array:
        return self.because(lax.stop_gradient(x), self._held) if isinstance(self._held, str) else lax.stop_gradient(x)

    def log_prob(
        self, fn: dist.Distribution, value: Any, name: str, role: str, intermediates: list[Any] | None = None
    ) -> Any:
        """log_prob of a site's value, of the site's batch shape, with shapes checked."""
        problem = None
        fn = unvalidated(fn) if name in self.relaxed else fn
        try:
            log_prob = fn.log_prob(value, intermediates) if intermediates else fn.log_prob(value)
            fits = check_same_batch(log_prob, value, fn)
        except (TypeError, ValueError) as error:
            problem, fits, log_prob = error, False, None
        if not fits or log_prob is None:
            raise ProgramError(
                f"site {name!r} of the {role} at {source.here()}: a value of shape {jnp.shape(value)} does not fit "
                f"{type(fn).__name__} of batch shape {fn.batch_shape} and event shape {fn.event_shape}. Make the shapes "
                f"agree, or add to_event or a plate."
            ) from problem
        return log_prob

    def ran(self, role: str, values: Mapping[str, jax.Array], log_probs: Mapping[str, jax.Array]) -> None:
        """Told of every finished run of a program."""

    def draw(
        self, name: str, fn: dist.Distribution, infer: Mapping[str, Any]
    ) -> tuple[jax.Array, list[jax.Array], str]:
        """Draw a site by its strategies and mark it. `infer` may name its `strategy` and its `baseline_input`.

        **Returns** its value, the intermediates of its sampler, and the route of its gradient.
        """
        where = source.here()
        trace = current_trace()
        # JAX does not export the class; a law draws under a foreign vmap and expects this error.
        if type(trace).__name__ == "BatchTrace" and not any(trace is lanes for lanes in self._lanes):
            raise EngineError(one_key(name, where))
        self.drawn.add(name)
        site = (self.distribution if self.marking else SiteDistribution)(fn, infer.get("baseline_input"))
        strategy = self.chosen.get(name, infer.get("strategy"))
        fitting = default_strategies(site) if strategy is None else (as_strategy(strategy, name, site, where),)
        self.learning = self.learning or any(candidate.stateful for candidate in fitting)
        if any(candidate.relaxes for candidate in fitting):
            self.relaxed.add(name)
        key = self.key()
        draws = [candidate.draw(site, key) for candidate in fitting]
        if not self.marking:
            return draws[0].value, site.intermediates, fitting[0].route
        inputs: list[jax.Array] = []
        candidates = [Candidate(s, _collect(draw, inputs)) for s, draw in zip(fitting, draws, strict=True)]
        bounds = site.bounds()
        info = SiteInfo(
            name=name,
            distribution=site.name,
            where=where,
            ndim=len(site.lanes),
            candidates=tuple(candidates),
            named=strategy is not None,
            bounds=tuple(range(1 + len(inputs), 1 + len(inputs) + len(bounds))),
            support=site.support,
        )
        return mark_site(info, key, [*inputs, *bounds]), site.intermediates, fitting[0].route

    # What verbs ask for -----------------------------------------------------------------------------------------------

    def each(self, function: Callable[..., Any], stacks: Sequence[Any], n: int | None) -> Any:
        """`function` of every entry along the leading axis of the stacks, `n` of them where there are no stacks."""

        n, base = n or length(stacks), next(self._keys)

        def run(i: jax.Array, *entries: Any) -> Any:
            with self.fresh(base, self.nested(i, n)):
                return function(*entries)

        return jax.vmap(run)(jnp.arange(n, dtype=jnp.uint32), *stacks)

    def nested(self, i: Any, n: int) -> Any:
        """The number of run `i` of `n` among the runs of all the `each` around it."""
        return i if self._index is None else self._index * n + i

    def handle(self, fn: Callable[..., Any], *leading: Any) -> Handle:
        """A handle on a program that is neither the model nor the guide."""
        name = getattr(fn, "__name__", type(fn).__name__)
        return Handle(functools.partial(fn, *leading), f"program {name}", self, self.args, self.kwargs)

    def choice(self, site: str, log_weights: jax.Array, n: int | None) -> jax.Array:
        """A site that chooses along the leading axis with these log weights, `n` times where `n` is given."""
        lanes = log_weights.shape[1:] if n is None else (n, *log_weights.shape[1:])
        fn = dist.CategoricalLogits(jnp.broadcast_to(jnp.moveaxis(log_weights, 0, -1), (*lanes, len(log_weights))))
        return self.draw(site, fn, {})[0]

    def kl(self, q: Any, p: Any) -> jax.Array | None:
        """KL divergence between the distributions of one site, scaled and summed; None where no closed form is known.

        Nor where the model and the guide scale the site differently, for then it is no divergence that stands there.
        """
        (mine, scale), (other, other_scale) = q, p
        alike = scale is other_scale or (isinstance(scale, int | float) and scale == other_scale)
        try:
            divergence = dist.kl_divergence(mine, other) if alike else None
        except NotImplementedError:
            divergence = None
        if divergence is None:
            return None
        return jnp.sum(divergence if scale is None else scale * divergence)

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
        marking, root = self.marking, self.root
        self.marking, self.root = False, key
        try:
            with self.fresh(key):
                yield
        finally:
            self.marking, self.root = marking, root

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

    def estimate(self, value: jax.Array, what: str) -> jax.Array:
        """The value, marked as an unbiased estimate."""
        return mark_estimate(value, what) if self.marking else value

    def because(self, value: jax.Array, reason: str) -> jax.Array:
        """A value held constant, marked with the reason."""
        return mark_because(value, reason) if self.marking else value

    @contextmanager
    def held(self, stop: bool | str) -> Iterator[None]:
        """Parameters are constants for every gradient, if `stop`, which may be the reason."""
        outer, self._held = self._held, self._held or stop
        try:
            yield
        finally:
            self._held = outer

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


def as_strategy(strategy: Any, name: str, site: SiteDistribution, where: str) -> Strategy:
    """The strategy that a user named for a site, or a `StrategyError` that says why it cannot be."""
    problem = not_a_strategy(strategy) or strategy.misfit(site)
    if problem:
        raise StrategyError(f"site {name!r} ~ {site.name} at {where}: {problem}.")
    return strategy


def not_a_strategy(strategy: Any) -> str | None:
    """What is wrong with something that should be a strategy, if anything."""
    if isinstance(strategy, Strategy):
        return None
    if isinstance(strategy, type) and issubclass(strategy, Strategy):
        return f"{strategy.__name__} is a class; write {strategy.__name__}()"
    classes = [cls for cls in vars(strategies).values() if isinstance(cls, type) and issubclass(cls, Strategy)]
    known = ", ".join(sorted(f"{cls.__name__}()" for cls in classes if dataclasses.is_dataclass(cls)))
    return f"{strategy!r} is not a gradient strategy; in ppvi.strategies there are {known}"


def _collect(draw: Draw, inputs: list[jax.Array]) -> tuple[int | None, ...]:
    """Append a draw's arrays to a site's inputs; where each field went. Input 1 is the site's key."""
    places: list[int | None] = []
    for field in draw:
        if field is None:
            places.append(None)
            continue
        inputs.append(jnp.asarray(field))
        places.append(0 if len(inputs) == 1 else len(inputs))
    return tuple(places)


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
